"""What is counted, and how it is printed."""

from __future__ import annotations

import collections

from check import Report, check_cache, check_environment, check_rattler_cache

MOST_EXAMPLES = 4


class Column:
    """What the clients of one side did and left."""

    def __init__(self):
        self.processes = 0
        self.failed = 0  # ended with an error
        self.silent = 0  # ended with status 0 and no right environment
        self.right = collections.Counter()  # by kind: environments that are right, extractions that succeeded
        self.of = collections.Counter()
        self.environments = 0
        self.found = collections.Counter()
        self.examples = {}
        self.details = []
        self.seconds = 0.0
        self.megabytes = 0.0
        self.head = None  # None: there is no store; "": all hashes are right; else what is wrong

    def judge_clients(self, truth, clients):
        for c in clients:
            self.processes += 1
            right = not c.failed and not c.error
            if c.prefix is not None:
                report = Report()
                check_environment(report, truth, str(c.prefix), truth.closure(c.specs.split(",")))
                right = report.ok
                self.environments += 1
                self._add(report)
            self.of[c.kind] += 1
            self.right[c.kind] += right
            if c.failed:
                self.failed += 1
            elif not right:
                self.silent += 1
            if c.error:
                self.examples.setdefault(c.error.split(":")[0], f"{c.name}: {c.error}")

    def judge_caches(self, truth, pkgs, rattler, conda_specs, rattler_specs):
        report = Report()
        # A fleet may be without a kind; then its cache holds nothing.
        check_cache(report, truth, str(pkgs), truth.closure(conda_specs) if self.of["conda"] else [])
        check_rattler_cache(report, truth, str(rattler), truth.closure(rattler_specs) if self.of["rattler"] else [])
        self._add(report)

    def _add(self, report):
        self.found.update(report.counts)
        self.details += report.details

    @property
    def broken(self):
        """How many things are wrong."""
        bad = ("_broken", "_absent", "_missing", "_wrong", "_corrupt", "leftovers")
        return self.failed + self.silent + sum(n for name, n in self.found.items() if name.endswith(bad))

    @property
    def ok(self):
        return self.broken == 0 and self.head == ""

    def as_dict(self):
        return dict(
            broken=self.broken, processes=self.processes, failed=self.failed, silent=self.silent, right=self.right, of=self.of,
            found=self.found, examples=list(self.examples.values()), details=self.details[:20],
            seconds=round(self.seconds, 1), megabytes=round(self.megabytes, 1), head=self.head)


ROWS = (
    ("client processes", lambda c: c.processes),
    ("clients that failed", lambda c: c.failed),
    ("clients that ended with 0, work not done", lambda c: c.silent),
    ("files missing in environments or caches", lambda c: c.found["files_missing"]),
    ("files with wrong bytes", lambda c: c.found["files_wrong"]),
    ("archives corrupt", lambda c: c.found["archives_corrupt"]),
    ("archives lost", lambda c: c.found["archives_missing"]),
    ("extracted packages broken", lambda c: c.found["directories_broken"]),
    ("extracted packages lost", lambda c: c.found["directories_missing"]),
    ("leftovers of downloads and trash", lambda c: c.found["leftovers"]),
)
KINDS = (
    ("conda", "conda-shaped: environments right"),
    ("rattler", "py-rattler: environments right"),
    ("extractor", "cph, cps: extractions done"),
    ("clean", "conda clean: done"),
)


def write_table(columns, n, out):
    names = list(columns)
    rows = [(f"{n} clients at once, cold and warm", *names)]
    for kind, text in KINDS:
        if any(c.of[kind] for c in columns.values()):
            rows.append((text, *(f"{c.right[kind]} of {c.of[kind]}" for c in columns.values())))
    rows += [(text, *(str(of(c)) for c in columns.values())) for text, of in ROWS]
    rows.append(("everything in the store re-hashed", *({None: "-", "": "right"}.get(c.head, "WRONG") for c in columns.values())))
    rows.append(("seconds", *(f"{c.seconds:.1f}" for c in columns.values())))
    rows.append(("MB downloaded", *(f"{c.megabytes:.1f}" for c in columns.values())))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(file=out)
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  " + "   ".join([row[0].ljust(widths[0]), *cells]), file=out)
    print(file=out)
    for name, c in columns.items():
        if c.broken:
            print(f"  What clients said on {name}:" if c.examples else f"  Broken on {name}:", file=out)
            for text in (list(c.examples.values()) or c.details)[:MOST_EXAMPLES]:
                print(f"    {text[:150]}", file=out)
    condafs, plain = columns["condafs"], columns["plain directory"]
    if condafs.ok:
        print(f"  Verdict: on condafs all {condafs.processes} clients did their work and every byte is right; "
              f"on the plain directory {plain.failed + plain.silent} of {plain.processes} clients failed.", file=out)
    else:
        print("  Verdict: condafs did NOT keep its promise here. Please report this with the output of --json.", file=out)
        if condafs.head:
            print(f"  {condafs.head}", file=out)
