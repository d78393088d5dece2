"""Train a network on long-tailed Fashion-MNIST with and without class weights, and report.

`make demo` runs this. Into the output folder go the models with their prototxts and logs, the
HDF5 files, report.json, report.txt and report.png. A finished run is trained again only when asked
or when something that it depends on has changed: prototxts, data, seed, or Caffe's library.
"""

import platform
import sys
from functools import partial
from pathlib import Path

try:
    import google.protobuf
    import h5py
    import matplotlib
    import numpy
    import sklearn

    from _common import program

    from ..common import CaffeInstall, make_parser, parse, write_report
    from ..trainer import Run, Trainer, prepare, run_folder, train_missing
    from . import longtail
    from .calibration import evaluate_calibration
    from .evaluate import evaluate
    from .plot import plot, plot_rare_class
    from .report import text
    from .schemes import BETA, SCHEMES, class_weights
    from .scoring import probabilities, score_runs
    from .training import max_iterations, prototxts
except ImportError as error:
    print(
        f"fashion_mnist: {error}; run it as `make demo` does, with the Debian packages "
        "python3-h5py python3-matplotlib python3-numpy python3-protobuf python3-rich "
        "python3-sklearn",
        file=sys.stderr,
    )
    sys.exit(2)

# A seed for each training of a scheme; choices on the held-out split are made with others.
FIRST_SEED = {"test": 1, "held-out": 101}


def parse_arguments(argv):
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=longtail.DATA_DIR, help="Fashion-MNIST's files"
    )
    parser.add_argument(
        "--split",
        choices=tuple(FIRST_SEED),
        default="test",
        help="what to score on: the test images, or training images kept out, to choose a net by",
    )
    return parse(parser, argv)


def train(args, install, split, runs):
    """Train the runs that are not finished; returns {run: record}."""
    pb = install.pycaffe().proto.caffe_pb2
    iterations = args.iterations or max_iterations(pb)
    context = {"data": longtail.digest(split), "library": install.library_digest()}
    texts = {run: prototxts(pb, run, split.counts, iterations) for run in runs}
    keys = prepare(args.output, texts, context)
    trainer = Trainer(install, args.output, iterations)
    titles = {name: scheme.title for name, scheme in SCHEMES.items()}
    write_data = partial(longtail.write_split, args.output / "data", split)
    return train_missing(trainer, keys, titles, write_data, args.retrain)


def describe_run(run, record, counts):
    curves = {name: record[name] for name in ("train_loss", "test_loss")}
    return {
        "scheme": run.scheme,
        "seed": run.seed,
        "model": str(run_folder(Path(), run) / "model.caffemodel"),
        "sha256": record["sha256"],
        "cls_weight": class_weights(run.scheme, counts),
        "seconds": record["seconds"],
        **curves,
    }


def make_report(split, records, scores, found, library):
    """Everything that report.json holds: what was trained on what with what, and the results."""
    libraries = (numpy, h5py, sklearn, matplotlib, google.protobuf)
    return {
        "data": {
            "split": split.name,
            "classes": longtail.CLASSES,
            "counts": split.counts,
            "subset_seed": longtail.SUBSET_SEED,
            "tested": len(split.test.labels),
            "digest": longtail.digest(split),
        },
        "beta": BETA,
        "seeds": sorted({run.seed for run in records}),
        "versions": {
            "libcaffe_sha256": library,
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in libraries},
        },
        "runs": [describe_run(run, record, split.counts) for run, record in records.items()],
        "results": evaluate(scores, split),
        "calibration": evaluate_calibration(found, split),
    }


def main(argv=None):
    args = parse_arguments(argv)
    install = CaffeInstall()
    split = longtail.load_split(args.data, args.split)
    first = FIRST_SEED[args.split]
    runs = [Run(name, seed) for seed in range(first, first + args.seeds) for name in SCHEMES]
    records = train(args, install, split, runs)
    folders = {run: run_folder(args.output, run) for run in runs}
    scores = score_runs(install.pycaffe(), folders, split.test.images)
    found = probabilities(install.pycaffe(), folders, split.test.images, scores)
    report = make_report(split, records, scores, found, install.library_digest())
    plot(report, scores, found, split, args.output / "report.png")
    plot_rare_class(report, scores, split, args.output / "rare-class.png")
    write_report(args.output, report, text(report))
    return 0


if __name__ == "__main__":
    program(main, "interrupted; what was finished is kept")
