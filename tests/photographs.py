"""Photographs of all kinds, made in memory: with profiles, EXIF data, transparency, palettes and 16 bits."""

from __future__ import annotations

import struct

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


def wide_profile() -> bytes:
    """A matrix profile of the primaries of Display P3 with a gamma of 2.2."""
    white = (0.9642, 1.0, 0.8249)
    primaries = {
        b"rXYZ": (0.5151, 0.2412, -0.0011),
        b"gXYZ": (0.2920, 0.6922, 0.0419),
        b"bXYZ": (0.1571, 0.0666, 0.7841),
    }
    return _icc(b"RGB ", white, {**{name: _xyz(*xyz) for name, xyz in primaries.items()}, **_curves(b"rgb", 2.2)})


def gray_profile(gamma: float = 1.0) -> bytes:
    """A profile of gray values whose light is their power of gamma."""
    return _icc(b"GRAY", (0.9642, 1.0, 0.8249), _curves(b"k", gamma))


def _curves(names: bytes, gamma: float) -> dict[bytes, bytes]:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    return {bytes([name]) + b"TRC": curve for name in names}


def _icc(space: bytes, white: tuple[float, float, float], extra: dict[bytes, bytes]) -> bytes:
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + b"\0" * 78
    tags = {
        b"desc": text + b"\0" * (-len(text) % 4),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": _xyz(*white),
        **extra,
    }
    start, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    middle = b"\0" * 12 + b"acsp" + b"\0" * 28 + _xyz(*white)[8:] + b"\0" * 48
    return head + middle + table + data


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)
