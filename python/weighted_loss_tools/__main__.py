"""Tools for SigmoidCrossEntropyWeightLoss, Caffe's class-weighted sigmoid cross-entropy loss."""

import argparse
import sys

from weighted_sigmoid_loss.errors import Failure

from . import calibrate, class_weights, migrate

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
    arguments = parse_arguments()
    try:
        return COMMANDS[arguments.command].run(arguments)
    except Failure as error:
        print(f"{arguments.command}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"{arguments.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
