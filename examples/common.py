"""What the examples share: arguments, the built Caffe, its files, figures per seed, reports."""

import argparse
import hashlib
import io
import json
import os
import statistics
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np

from _common import Failure, write_atomic


def make_parser(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, required=True, help="where everything goes")
    parser.add_argument("--retrain", action="store_true", help="train finished runs again")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings per scheme (3)")
    parser.add_argument("--iterations", type=int, help="instead of solver.prototxt's max_iter")
    return parser


def parse(parser, argv):
    args = parser.parse_args(argv)
    if args.seeds < 1 or (args.iterations is not None and args.iterations < 1):
        parser.error("--seeds and --iterations are at least 1")
    return args


class CaffeInstall:
    """The install tree whose pycaffe PYTHONPATH names, as `make TARGET` leaves it."""

    def __init__(self, target="demo"):
        found = find_spec("caffe")
        if not found:
            raise Failure(f"no built Caffe: PYTHONPATH has no caffe; run `make {target}`", status=2)
        self.folder = Path(found.origin).resolve().parents[2]
        self.program = self.folder / "bin" / "caffe"
        if not self.program.is_file():
            raise Failure(f"no built Caffe: {self.program} is missing; run `make {target}`", 2)

    def library_digest(self):
        """The digest of libcaffe: another library may train another model."""
        (library,) = {path.resolve() for path in (self.folder / "lib").glob("libcaffe.so*")}
        return hashlib.sha256(library.read_bytes()).hexdigest()

    def pycaffe(self):
        """Import pycaffe without its log on the screen."""
        os.environ.setdefault("GLOG_minloglevel", "2")
        import caffe

        return caffe


def write_hdf5(folder, name, blobs):
    """Write {blob: array} to NAME.h5, and the list NAME.txt that HDF5Data's `source` names.

    The list holds a path relative to folder's parent, where `caffe train` runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for blob, array in blobs.items():
            file[blob] = array
    write_atomic(folder / f"{name}.h5", stream.getvalue())
    (folder / f"{name}.txt").write_text(f"{folder.name}/{name}.h5\n")


def score_batches(caffe, folder, batches, output="score"):
    """An output, in float64, that the model in folder gives for each batch of images."""
    files = str(folder / "net.prototxt"), str(folder / "model.caffemodel")
    net = caffe.Net(files[0], caffe.TEST, stages=["deploy"], weights=files[1])
    for batch in batches:
        net.blobs["image"].reshape(*batch.shape)
        net.blobs["image"].data[...] = batch
        yield net.forward()[output].astype(np.float64)


def summary(per_seed):
    """The same tree as each seed's figures, with their mean and standard deviation as leaves."""
    first = per_seed[0]
    if isinstance(first, dict):
        return {key: summary([seed[key] for seed in per_seed]) for key in first}
    if isinstance(first, list):
        return [summary(list(values)) for values in zip(*per_seed)]
    spread = statistics.stdev(per_seed) if len(per_seed) > 1 else None
    return {"mean": statistics.fmean(per_seed), "std": spread}


def cell(value, digits=3):
    """A leaf of summary as a cell of a table."""
    if value["std"] is None:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} ±{value['std']:.{digits}f}"


def write_json(path, value):
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def open_axes(axes):
    """Without the upper and the right line of the frame."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save_figure(figure, path):
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, format="png")
    write_atomic(path, stream.getvalue())


def write_report(output, report, words):
    """Write report.json and report.txt, and print the latter."""
    write_json(output / "report.json", report)
    write_atomic(output / "report.txt", (words + "\n").encode())
    print(words)
    print(f"\nmodels, report.json, report.txt and report.png are in {output}")
