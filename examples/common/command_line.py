"""The arguments that every example takes."""

import argparse
from pathlib import Path


def make_parser(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--install", type=Path, required=True, help="the built Caffe")
    parser.add_argument("--output", type=Path, required=True, help="where everything goes")
    parser.add_argument("--retrain", action="store_true", help="train finished runs again")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings a scheme (3)")
    parser.add_argument("--iterations", type=int, help="instead of solver.prototxt's max_iter")
    return parser


def parse(parser, argv):
    args = parser.parse_args(argv)
    if args.seeds < 1 or (args.iterations is not None and args.iterations < 1):
        parser.error("--seeds and --iterations are at least 1")
    return args
