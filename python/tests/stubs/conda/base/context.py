import os


class _Context:
    quiet = False

    @property
    def pkgs_dirs(self):
        return tuple(d for d in os.environ.get("CONDA_PKGS_DIRS", "").split(",") if d)


context = _Context()
