#!/usr/bin/env python3
"""Train a network on long-tailed Fashion-MNIST with and without class weights, and report.

`make demo` runs this. Into the output folder go the models with their prototxts and logs, the
HDF5 files, report.json, report.txt and report.png. A finished run is trained again only when asked
or when something that it depends on has changed: prototxts, data, seed, or Caffe's library.
"""

import argparse
import platform
import sys
from pathlib import Path

from errors import exit_on_error

try:
    import google.protobuf
    import h5py
    import matplotlib
    import numpy
    import sklearn

    import longtail
    from caffe_install import CaffeInstall
    from evaluate import evaluate, score
    from plot import plot
    from progress import Progress
    from report import text
    from schemes import BETA, SCHEMES, class_weights
    from training import Run, Trainer, max_iterations, prepare, record_of, run_folder, write_json
except ImportError as error:
    sys.exit(
        f"demo: {error}; run it in build/venv with the Debian packages python3-h5py "
        "python3-matplotlib python3-numpy python3-protobuf python3-rich python3-sklearn"
    )

# A seed for each training of a scheme; choices on the held-out split are made with others.
FIRST_SEED = {"test": 1, "held-out": 101}


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", type=Path, required=True, help="the built Caffe")
    parser.add_argument("--output", type=Path, required=True, help="where everything goes")
    parser.add_argument(
        "--data", type=Path, default=longtail.DATA_DIR, help="Fashion-MNIST's files"
    )
    parser.add_argument("--retrain", action="store_true", help="train finished runs again")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings a scheme (3)")
    parser.add_argument("--iterations", type=int, help="instead of solver.prototxt's max_iter")
    parser.add_argument(
        "--split",
        choices=tuple(FIRST_SEED),
        default="test",
        help="what to score on: the test images, or training images kept out, to choose a net by",
    )
    args = parser.parse_args(argv)
    if args.seeds < 1 or (args.iterations is not None and args.iterations < 1):
        parser.error("--seeds and --iterations are at least 1")
    return args


def train(args, install, split, runs):
    """Train the runs that are not finished; returns {run: record}."""
    pb = install.pycaffe().proto.caffe_pb2
    iterations = args.iterations or max_iterations(pb)
    context = {"data": longtail.digest(split), "library": install.library_digest()}
    keys = prepare(args.output, runs, pb, split.counts, iterations, context)
    records = {run: record_of(args.output, run, key) for run, key in keys.items()}
    missing = {run: keys[run] for run in runs if args.retrain or records[run] is None}
    if missing:
        longtail.write_split(args.output / "data", split, sorted({run.seed for run in missing}))
        with Progress(missing, iterations) as progress:
            trainer = Trainer(install, args.output, iterations)
            records.update(trainer.train_all(missing, progress.on_iteration, progress.on_finished))
    else:
        print(f"nothing to train: {len(runs)} finished runs in {args.output}", file=sys.stderr)
    return records


def score_runs(output, install, split, runs):
    caffe = install.pycaffe()
    scores = {}
    for run in runs:
        folder = run_folder(output, run)
        files = folder / "net.prototxt", folder / "model.caffemodel"
        scores[run] = score(caffe, *files, split.test.images)
    return scores


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


def make_report(split, records, scores, library):
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
    }


def main(argv=None):
    args = parse_arguments(argv)
    install = CaffeInstall(args.install)
    split = longtail.load_split(args.data, args.split)
    first = FIRST_SEED[args.split]
    runs = [Run(name, seed) for seed in range(first, first + args.seeds) for name in SCHEMES]
    records = train(args, install, split, runs)
    scores = score_runs(args.output, install, split, runs)
    report = make_report(split, records, scores, install.library_digest())
    write_json(args.output / "report.json", report)
    (args.output / "report.txt").write_text(text(report) + "\n", encoding="utf-8")
    plot(report, scores, split.test.labels, args.output / "report.png")
    print(text(report))
    print(f"\nmodels, report.json, report.txt and report.png are in {args.output}")
    return 0


if __name__ == "__main__":
    exit_on_error("demo", main)
