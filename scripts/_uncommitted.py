"""Which files of a tree git has uncommitted changes of. Python 3.6."""

import os
import subprocess

from _common import Failure, run


def uncommitted(root, paths):
    """Those of PATHS that git tracks and that differ from its last commit, staged or not.

    Git compares contents, so that a file with only a new date is none of them. Where ROOT is in no
    repository, there are none. Raises Failure where git cannot tell.
    """
    top = root.resolve()
    if not paths or not any((folder / ".git").exists() for folder in [top, *top.parents]):
        return []
    # A hook's variables name another repository.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment.update(GIT_OPTIONAL_LOCKS="0", LC_ALL="C")
    options = ["--name-only", "-z", "--relative", "--no-renames", "--no-ext-diff", "--no-textconv"]
    done = run(
        ["git", "diff"] + options + ["HEAD", "--"] + sorted(paths),
        check=False,
        cwd=str(root),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Failure(said.partition("\n")[0] or f"git ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
