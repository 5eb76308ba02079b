import pluggy

_hookspec = pluggy.HookspecMarker("conda")


class CondaSpecs:
    @_hookspec
    def conda_subcommands(self): ...

    @_hookspec
    def conda_health_checks(self): ...

    @_hookspec
    def conda_pre_commands(self): ...
