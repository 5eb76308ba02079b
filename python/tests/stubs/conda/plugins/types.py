from __future__ import annotations

from dataclasses import dataclass
from typing import Callable


@dataclass
class CondaSubcommand:
    name: str
    summary: str
    action: Callable
    aliases: tuple = ()
    configure_parser: Callable | None = None


@dataclass
class CondaHealthCheck:
    name: str
    action: Callable[[str, bool], None]
    fixer: Callable | None = None
    summary: str | None = None
    fix: str | None = None


@dataclass
class CondaPreCommand:
    name: str
    action: Callable[[str], None]
    run_for: set[str]
