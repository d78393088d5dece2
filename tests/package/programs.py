"""Programs of the tests that need a process of their own."""

import os
import subprocess
import sys
import textwrap


def run(tmp_path, program, *arguments):
    """Run it from a file, since spawned processes import it, on two threads; return its stderr."""
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, file, *map(str, arguments)],
        env={**kept, "OMP_NUM_THREADS": "2"},
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
