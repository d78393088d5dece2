"""Write images in place of those in Caffe's examples/images, which PyPI's sdist leaves out.

Upstream's tests look at their sizes alone: width, height, and of the first one the bytes.
"""

import sys
from pathlib import Path

from PIL import Image

SIZES = {
    "cat.jpg": ("RGB", 480, 360, 140391),
    "fish-bike.jpg": ("RGB", 481, 323, 0),
    "cat gray.jpg": ("L", 480, 360, 0),
    "cat_gray.jpg": ("L", 480, 360, 0),
}


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    for name, (mode, width, height, size) in SIZES.items():
        path = folder / name
        Image.effect_noise((width, height), 40).convert(mode).save(path, quality=50)
        data = path.read_bytes()
        # Decoders stop at the image's end.
        path.write_bytes(data + bytes(max(0, size - len(data))))


if __name__ == "__main__":
    main()
