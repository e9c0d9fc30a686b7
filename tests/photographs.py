"""Photographs of all kinds, made in memory, with masks and EXIF data."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

HEIGHT, WIDTH = 48, 64


def photo(*, seed: int = 0) -> Image.Image:
    """A colored image without a pixel that is black, white or gray."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(seed).integers(0, 20, (HEIGHT, WIDTH, 3))
    base = np.stack([60 + 2 * columns, 40 + 2 * rows, 200 - columns - rows], -1)
    return Image.fromarray((base + noise).clip(1, 254).astype(np.uint8))


def hole(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A mask: white is known, a block a quarter of each side long is not."""
    values = np.full((height, width), 255, np.uint8)
    values[height // 3 : height // 3 + height // 4, width // 3 : width // 3 + width // 4] = 0
    return Image.fromarray(values)


def exif(*, orientation: int | None = None, **texts: str) -> Image.Exif:
    """EXIF data with a maker, an exposure, a size and a place, and with texts by the names of their tags."""
    made = Image.Exif()
    made[ExifTags.Base.Make] = "Maker"
    for name, text in texts.items():
        made[ExifTags.Base[name]] = text
    if orientation is not None:
        made[ExifTags.Base.Orientation] = orientation
    inner = made.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.ExposureTime] = 0.01
    inner[ExifTags.Base.ExifImageWidth], inner[ExifTags.Base.ExifImageHeight] = WIDTH, HEIGHT
    made.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return made
