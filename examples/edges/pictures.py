"""The photographs, the rule that makes their targets, the noise, and the crops to train on.

A photograph is turned to grey in [0, 1] and reduced to 400 pixels at its longer side. From that
clean picture come the targets; the net sees it only as a camera would in a dim room.

    target  1  an edge that Canny's detector finds with its strict thresholds
            2  one that it finds with its lax thresholds alone: too close to call, ignored
            0  everything else
    input      a count of photons per pixel, Poisson with mean PHOTONS * grey
"""

import hashlib
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from skimage.color import rgb2gray
from skimage.feature import canny
from skimage.io import imread
from skimage.transform import resize

from _common import Failure

from ..common import write_hdf5

# Where Debian's packages keep them: package, its Python module, the folder inside it.
SKIMAGE = ("python3-skimage", "skimage", "data")
SKLEARN = ("python3-sklearn", "sklearn", "datasets/images")
MATPLOTLIB = ("python-matplotlib-data", None, "sample_data")
PHOTOGRAPHS = {
    "astronaut.png": SKIMAGE,
    "brick.png": SKIMAGE,
    "camera.png": SKIMAGE,
    "chelsea.png": SKIMAGE,
    "china.jpg": SKLEARN,
    "clock_motion.png": SKIMAGE,
    "coffee.png": SKIMAGE,
    "coins.png": SKIMAGE,
    "flower.jpg": SKLEARN,
    "grace_hopper.jpg": MATPLOTLIB,
    "moon.png": SKIMAGE,
    "motorcycle_left.png": SKIMAGE,
    "page.png": SKIMAGE,
    "rocket.jpg": SKIMAGE,
    "text.png": SKIMAGE,
}
# Of the photographs in the order of their names, each third is held out, from the first.
HELD_OUT_STEP = 3

LONGER_SIDE = 400
SIDE_MULTIPLE = 4  # the net halves each side twice
CANNY_SIGMA = 2
# Steps of grey, as Canny's hysteresis takes them: from the higher on, and along the line to the
# lower.
STRICT, LAX = (0.10, 0.20), (0.04, 0.10)
EDGE, UNDECIDED = 1, 2
PHOTONS = 10
# Of the held-out pictures' noise; a seed's training noise is drawn with its crops.
NOISE_SEED = 20181227
CROP, CROPS = 96, 2000

Picture = namedtuple("Picture", "name clean target")


def path_of(name):
    package, module, folder = PHOTOGRAPHS[name]
    root = Path(find_spec(module).origin).parent if module else Path(get_data_path())
    # Debian 11 has Matplotlib's samples beside its data.
    paths = [root / folder / name, root.parent / folder / name]
    for path in paths:
        if path.is_file():
            return path
    raise Failure(f"no {paths[0]}: install the Debian package {package}")


def clean_picture(path):
    """Grey in [0, 1], no side longer than LONGER_SIDE, each a multiple of SIDE_MULTIPLE."""
    try:
        image = imread(path)
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {path} ({error})") from None
    grey = rgb2gray(image) if image.ndim == 3 else image / 255
    scale = min(1, LONGER_SIDE / max(grey.shape))
    height, width = (round(side * scale) // SIDE_MULTIPLE * SIDE_MULTIPLE for side in grey.shape)
    return resize(grey, (height, width), anti_aliasing=True)


def target_of(clean):
    sure = canny(clean, CANNY_SIGMA, *STRICT)
    possible = canny(clean, CANNY_SIGMA, *LAX)
    return np.where(sure, EDGE, np.where(possible, UNDECIDED, 0)).astype(np.uint8)


def photographs(names):
    cleans = {name: clean_picture(path_of(name)) for name in names}
    return [Picture(Path(name).stem, clean, target_of(clean)) for name, clean in cleans.items()]


def split():
    """The photographs to train on, and those to score on."""
    everything = photographs(sorted(PHOTOGRAPHS))
    held_out = everything[::HELD_OUT_STEP]
    return [picture for picture in everything if picture not in held_out], held_out


def photons(clean, generator):
    """What the net sees of a clean picture: bytes, which no count comes near to exceeding."""
    return generator.poisson(PHOTONS * clean).astype(np.uint8)


def noisy(pictures):
    """Each picture's photons, the same in every run of the program."""
    return [
        photons(picture.clean, np.random.RandomState(NOISE_SEED + number))
        for number, picture in enumerate(pictures)
    ]


def draw_crop(pictures, generator):
    """A square of a picture, anywhere in it, turned and mirrored at random."""
    picture = pictures[generator.randint(len(pictures))]
    top, left = (generator.randint(side - CROP + 1) for side in picture.clean.shape)
    turns, mirror = generator.randint(4), generator.randint(2)
    window = np.s_[top : top + CROP, left : left + CROP]
    images = photons(picture.clean[window], generator), picture.target[window]
    return [np.rot90(image, turns)[:, :: -1 if mirror else 1] for image in images]


def write_crops(folder, pictures, seeds):
    """Write CROPS crops per seed, in the order in which the net is to see them.

    RandomState's streams are frozen, so every NumPy draws the same.
    """
    for seed in seeds:
        generator = np.random.RandomState(seed)
        crops = np.array([draw_crop(pictures, generator) for _ in range(CROPS)])
        blobs = {"image": crops[:, :1], "target": crops[:, 1:]}
        write_hdf5(folder, f"train-seed{seed}", blobs)


def digest(pictures):
    """A digest of everything that the crops of these pictures depend on."""
    total = hashlib.sha256(repr((PHOTONS, CROP, CROPS)).encode())
    for picture in pictures:
        total.update(picture.clean.tobytes())
        total.update(picture.target.tobytes())
    return total.hexdigest()
