"""Tools for SigmoidCrossEntropyWeightLoss, Caffe's class-weighted sigmoid cross-entropy loss."""

import argparse
import contextlib
import os
import sys

from weighted_sigmoid_loss.errors import Failure, Refused

from . import calibrate, class_weights, migrate
from .prototxt import one_line

PROGRAM = "weighted-loss"
COMMANDS = {"migrate": migrate, "class-weights": class_weights, "calibrate": calibrate}


def parse_arguments():
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    return parser.parse_args()


def main():
    """Run a command; return the exit status. What it may expect to fail with becomes one line."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115, in place of a stream that the caller has closed
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal may lack the names' characters
    name = PROGRAM
    try:
        try:
            arguments = parse_arguments()
            name = arguments.command
            return COMMANDS[name].run(arguments)
        finally:
            sys.stdout.flush()
    except Failure as error:
        status, words = error.status, str(error)
    except KeyboardInterrupt:
        status, words = 130, "interrupted"
    except (MemoryError, RecursionError):
        status, words = Refused.status, "the input is larger or nested deeper than can be read here"
    except OSError as error:
        # 1 would mean to migrate's --check that there is a change.
        status = Refused.status
        words = f"{error.filename or 'the output'}: {error.strerror or error}"
        if isinstance(error, BrokenPipeError):  # whoever reads it, as `head` does, has read enough
            return status
    with contextlib.suppress(OSError):
        print(f"{name}: {one_line(words)}", file=sys.stderr)
    return status


def finish(status):
    """Exit, without Python's second try to write what the output has refused."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


if __name__ == "__main__":
    finish(main())
