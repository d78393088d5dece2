"""Write the demo's net and a part of its data so that a training on a GPU can be compared.

    PYTHONPATH=scripts:. python3 tests/gpu/demo_net.py FOLDER

100 iterations, the loss of each printed by itself; without the tests, and without dropout, whose
random numbers on a GPU are not the CPU's.
"""

import argparse
import re
from pathlib import Path

from _common import ROOT, Failure, program

DEMO = ROOT / "examples" / "fashion_mnist"
IMAGES = 2048
SOLVER = {
    "net": '"net.prototxt"',
    "max_iter": "100",
    "display": "1",
    "average_loss": "1",
    "snapshot_prefix": '"model"',
    "snapshot_after_train": "false",
}
LEFT_OUT = ["test_iter", "test_interval", "solver_mode"]
DROPOUT = re.compile(r'^layer \{\n  name: "dropout".*?^\}\n', re.MULTILINE | re.DOTALL)


def solver(text):
    """The demo's solver with what is another here; a line a field."""
    replaced = {**dict.fromkeys(LEFT_OUT), **SOLVER}
    lines = [line for line in text.splitlines() if line.split(":")[0] not in replaced]
    lines += [f"{name}: {value}" for name, value in SOLVER.items()]
    return "".join(f"{line}\n" for line in lines)


def write_demo(folder):
    """The demo's net, its schedule, and some of its training images, of each class."""
    # Not where the folder is there already, on a machine without h5py.
    from examples.common import write_hdf5
    from examples.fashion_mnist import longtail

    (folder / "data").mkdir(parents=True)
    net, without = DROPOUT.subn("", (DEMO / "net.prototxt").read_text(encoding="utf-8"))
    if without != 1:
        raise Failure("examples/fashion_mnist/net.prototxt has no layer dropout to leave out")
    (folder / "net.prototxt").write_text(net, encoding="utf-8")
    text = (DEMO / "solver.prototxt").read_text(encoding="utf-8")
    (folder / "solver.prototxt").write_text(solver(text), encoding="utf-8")
    split = longtail.load_split(longtail.DATA_DIR, "test")
    every = max(1, len(split.train.labels) // IMAGES)
    data = longtail.pick(split.train, slice(None, None, every))
    write_hdf5(folder / "data", "train-seed1", longtail.blobs(data))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_demo(parser.parse_args().folder)


if __name__ == "__main__":
    program(main)
