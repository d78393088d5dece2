"""Long-tailed Fashion-MNIST: the images, the class profile, and Caffe's HDF5 files."""

import gzip
import hashlib
from collections import namedtuple
from pathlib import Path

import numpy as np

from _common import Failure

from ..common import write_hdf5

DATA_DIR = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
IMBALANCE = 100
# Which images make up the tail. RandomState's streams are frozen, so every NumPy picks the same.
SUBSET_SEED = 20181227
HELD_OUT_PER_CLASS = 1000

# images: uint8 (N, 1, 28, 28); labels: int (N,)
Images = namedtuple("Images", "images labels")
Split = namedtuple("Split", "name train test counts")


def profile(largest):
    """Images per class, falling exponentially from largest to largest / IMBALANCE."""
    last = len(CLASSES) - 1
    return [int(largest * IMBALANCE ** (-c / last)) for c in range(last + 1)]


def read_idx(path):
    """The array in a gzipped IDX file of bytes (the format of MNIST)."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise Failure(
            f"no {path}: install the Debian package dataset-fashion-mnist "
            "(apt-get install dataset-fashion-mnist), or name the folder with its files (--data)"
        ) from None
    except (OSError, EOFError) as error:
        raise Failure(f"cannot read {path} ({error}); reinstall dataset-fashion-mnist") from None
    axes = data[3] if data[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(data, ">u4", axes, 4).astype(int)
    if not axes or len(data) != 4 + 4 * axes + shape.prod():
        raise Failure(f"{path} is not an IDX file of bytes; reinstall dataset-fashion-mnist")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_images(folder, prefix):
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    return Images(images[:, None], labels.astype(int))


def load_split(folder, name):
    """The long-tailed training images and what to score on.

    test: 6,000 down to 60 training images, scored on the 10,000 test images.
    held-out: 5,000 down to 50, scored on 1,000 other training images per class, so that a net, a
    schedule or weights can be chosen without looking at the test set.
    """
    everything = read_images(folder, "train")
    generator = np.random.RandomState(SUBSET_SEED)
    by_class = [
        generator.permutation(np.flatnonzero(everything.labels == c)) for c in range(len(CLASSES))
    ]
    held_out = HELD_OUT_PER_CLASS if name == "held-out" else 0
    counts = profile(min(map(len, by_class)) - held_out)
    train = np.concatenate([rows[:n] for rows, n in zip(by_class, counts)])
    if held_out:
        test = pick(everything, np.concatenate([rows[-held_out:] for rows in by_class]))
    else:
        test = read_images(folder, "t10k")
    return Split(name, pick(everything, train), test, counts)


def pick(data, rows):
    return Images(data.images[rows], data.labels[rows])


def one_vs_rest(labels):
    """Targets (N, 10): 1 for an image's class, 0 for the nine others."""
    return np.eye(len(CLASSES), dtype=np.float32)[labels]


def digest(split):
    """A digest of everything that HDF5 files of this split hold."""
    total = hashlib.sha256()
    for data in (split.train, split.test):
        total.update(data.images.tobytes())
        total.update(data.labels.astype("<i4").tobytes())
    return total.hexdigest()


def blobs(data):
    return {"image": data.images, "label": one_vs_rest(data.labels)}


def write_split(folder, split, seeds):
    """Write the test file, and per seed a training file with the rows in the seed's order.

    HDF5Data's shuffle uses rand(), which nothing seeds: every training sees the same permutations.
    With the rows in another order for each seed, the batches differ between seeds too.
    """
    write_hdf5(folder, "test", blobs(split.test))
    for seed in seeds:
        order = np.random.RandomState(seed).permutation(len(split.train.labels))
        write_hdf5(folder, f"train-seed{seed}", blobs(pick(split.train, order)))
