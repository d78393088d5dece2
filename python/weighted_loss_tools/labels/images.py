"""Masks as images: 8 bits per pixel, gray."""

import io

import numpy as np

from weighted_sigmoid_loss.errors import Refused

from .common import Labels, dimensions, needed, refusing

# Of what OpenCV reads as well.
MAGIC = rb"\x89PNG|\xff\xd8\xff|BM.{4}\x00{4}|II\*\x00|MM\x00\*|P[2-6]\n|RIFF.{4}WEBP"
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def image(path, source):
    pixels = read(path.read_bytes(), path)
    yield Labels(f"a mask of {dimensions(pixels.shape)} in {path}", 1, False, [])
    yield pixels[None, None]


def read(data, where):
    """The pixels, H x W, as Caffe has them of a gray image."""
    needed("PIL", "python3-pil")
    from PIL import Image

    with refusing(f"{where}: not a whole image"):
        mask = Image.open(io.BytesIO(data), formats=FORMATS)
        if mask.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise Refused(f"{where}: not of 8 bits per pixel (mode {mask.mode}): save it as gray")
        pixels = np.array(mask.convert("RGB" if mask.mode in ("P", "RGBA") else mask.mode))
    if mask.mode == "1":
        return pixels.astype(np.uint8) * np.uint8(255)
    if mask.mode in ("L", "LA"):
        return pixels.reshape(*pixels.shape[:2], -1)[:, :, 0]
    if (pixels != pixels[:, :, :1]).any():
        raise Refused(
            f"{where}: has colors: count a photo's class (--field label), and save a mask as a "
            "gray image, for Caffe does not read the numbers of a palette"
        )
    return pixels[:, :, 0]
