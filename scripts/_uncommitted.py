"""Which files of a tree git has uncommitted changes of. Python 3.6."""

import os
import subprocess


class Unknown(Exception):
    """Why git could not tell, in one line."""


def uncommitted(root, paths):
    """Those of PATHS that git tracks and that differ from its last commit, staged or not.

    Git compares contents, so that a file with only a new date is none of them. Where ROOT is in no
    repository, there are none.
    """
    top = root.resolve()
    if not paths or not any((folder / ".git").exists() for folder in [top, *top.parents]):
        return []
    # A hook's variables name another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment.update(GIT_OPTIONAL_LOCKS="0", LC_ALL="C")
    options = ["--name-only", "-z", "--relative", "--no-renames", "--no-ext-diff", "--no-textconv"]
    try:
        done = subprocess.run(  # noqa: UP022, since Python 3.6 has no capture_output
            ["git", "diff"] + options + ["HEAD", "--"] + sorted(paths),
            cwd=str(root),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise Unknown(f"cannot run git: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Unknown(said.partition("\n")[0] or f"git ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
