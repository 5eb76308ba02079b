import pluggy

hookimpl = pluggy.HookimplMarker("conda")
