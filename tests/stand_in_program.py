"""A program that does what a test needs."""


def shell(path, text):
    """Make PATH a program of this shell script, whatever was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
