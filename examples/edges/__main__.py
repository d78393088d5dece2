"""Train a net to find edges in noisy photographs with and without class_balance, and report.

`make edges` runs this. Into the output folder go the models with their prototxts and logs, the
HDF5 files, report.json, report.txt and report.png. A finished run is trained again only when asked
or when something that it depends on has changed: prototxts, data, seed, or Caffe's library.
"""

import platform
import sys
from functools import partial

try:
    import google.protobuf
    import h5py
    import matplotlib
    import numpy
    import scipy
    import skimage

    from _common import program

    from ..common import CaffeInstall, make_parser, parse, score_batches, summary, write_report
    from ..trainer import Run, Trainer, prepare, run_folder, train_missing
    from . import boundaries, pictures
    from .networks import TITLES, prototxts, read_solver
    from .plot import plot
    from .report import text
except ImportError as error:
    print(
        f"edges: {error}; run it as `make edges` does, with the Debian packages python3-h5py "
        "python3-matplotlib python3-numpy python3-protobuf python3-rich python3-scipy "
        "python3-skimage",
        file=sys.stderr,
    )
    sys.exit(2)


def train(args, install, photographs, runs):
    """Train the runs that are not finished; returns {run: record}."""
    pb = install.pycaffe().proto.caffe_pb2
    iterations = args.iterations or read_solver(pb).max_iter
    texts = {run: prototxts(pb, run, iterations) for run in runs}
    context = {"data": pictures.digest(photographs), "library": install.library_digest()}
    keys = prepare(args.output, texts, context)
    write_crops = partial(pictures.write_crops, args.output / "data", photographs)
    trainer = Trainer(install, args.output, iterations)
    return train_missing(trainer, keys, TITLES, write_crops, args.retrain)


def score_runs(output, install, held_out, runs):
    """{run: [scores (H, W) of each picture]}."""
    caffe = install.pycaffe()
    batches = [image[None, None] for image in pictures.noisy(held_out)]
    return {
        run: [scores[0, 0] for scores in score_batches(caffe, run_folder(output, run), batches)]
        for run in runs
    }


def count_runs(scores, held_out):
    """{run: [Counts of each picture]}."""
    return {
        run: [boundaries.count(s, picture.target) for s, picture in zip(maps, held_out)]
        for run, maps in scores.items()
    }


def evaluate(counts):
    """The figures of each seed of each net, and their summary."""
    results = {}
    for scheme, title in TITLES.items():
        own = {run: c for run, c in counts.items() if run.scheme == scheme}
        seeds = {str(run.seed): boundaries.figures(c) for run, c in own.items()}
        results[scheme] = {"title": title, "seeds": seeds, "summary": summary([*seeds.values()])}
    return results


def describe_picture(picture):
    return {
        "name": picture.name,
        "size": picture.target.shape,
        "edges": float((picture.target == pictures.EDGE).mean()),
        "undecided": float((picture.target == pictures.UNDECIDED).mean()),
    }


def make_report(trained_on, held_out, records, results, library):
    """Everything that report.json holds: what was trained on what with what, and the results."""
    libraries = (numpy, scipy, skimage, h5py, matplotlib, google.protobuf)
    return {
        "data": {
            "photons": pictures.PHOTONS,
            "trained_on": [describe_picture(picture) for picture in trained_on],
            "held_out": [describe_picture(picture) for picture in held_out],
            "digest": pictures.digest(trained_on + held_out),
        },
        "tolerance": boundaries.TOLERANCE,
        "seeds": sorted({run.seed for run in records}),
        "versions": {
            "libcaffe_sha256": library,
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in libraries},
        },
        "runs": [{**run._asdict(), **record} for run, record in records.items()],
        "results": results,
    }


def main(argv=None):
    args = parse(make_parser(__doc__.splitlines()[0]), argv)
    install = CaffeInstall("edges")
    trained_on, held_out = pictures.split()
    runs = [Run(name, seed) for seed in range(1, 1 + args.seeds) for name in TITLES]
    records = train(args, install, trained_on, runs)
    scores = score_runs(args.output, install, held_out, runs)
    counts = count_runs(scores, held_out)
    results = evaluate(counts)
    report = make_report(trained_on, held_out, records, results, install.library_digest())
    plot(report, held_out, scores, counts, args.output / "report.png")
    write_report(args.output, report, text(report))
    return 0


if __name__ == "__main__":
    program(main, "interrupted; what was finished is kept")
