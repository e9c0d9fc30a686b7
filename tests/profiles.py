"""Color profiles of known curves and primaries (ICC.1:2010, sections 7 to 10)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

Primaries = Sequence[tuple[float, float, float]]


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, kind, space, connection)
    header += struct.pack(">6H4s4sI4s4sQI", 2020, 1, 1, 0, 0, 0, b"acsp", b"\0" * 4, 0, b"\0" * 4, b"\0" * 4, 0, 0)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _description(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(data)) + data + b"\0" * 78


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


WHITE = {b"wtpt": _xyz((0.9642, 1.0, 0.8249))}


def matrix_profile(primaries: Primaries, *, gamma: float) -> bytes:
    """Return the profile of an RGB space by its primaries, relative to D50, and its gamma."""
    tags = {b"desc": _description("test profile"), b"cprt": _description("none"), **WHITE}
    tags |= {name + b"XYZ": _xyz(values) for name, values in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {name + b"TRC": _gamma(gamma) for name in (b"r", b"g", b"b")}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def gray_profile(gamma: float) -> bytes:
    """Return the profile of gray values by their gamma."""
    tags = {b"desc": _description("test profile"), b"cprt": _description("none"), **WHITE, b"kTRC": _gamma(gamma)}
    return _profile(b"GRAY", b"XYZ ", b"mntr", tags)


def cmyk_profile() -> bytes:
    """Return the profile of a press whose inks are grayer than pure ones, as a table of 2 points by ink."""
    grid = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    ink = 1 - 0.8 * grid[:, :3]
    black = 1 - 0.9 * grid[:, 3:]
    light = (ink * black).mean(1)
    a, b = (ink[:, 0] - ink[:, 1]) * black[:, 0], (ink[:, 1] - ink[:, 2]) * black[:, 0]
    table = np.stack([light, 0.5 + 0.25 * a, 0.5 + 0.25 * b], 1)
    lut = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut += struct.pack(">HH", 2, 2) + struct.pack(">8H", *([0, 65535] * 4))
    lut += (table * 65280).astype(">u2").tobytes() + struct.pack(">6H", *([0, 65535] * 3))
    tags = {b"desc": _description("test press"), b"cprt": _description("none"), **WHITE, b"A2B0": lut}
    return _profile(b"CMYK", b"Lab ", b"prtr", tags)


# The primaries of Display P3, and those of sRGB with its curve as a power of 2.2, which is near but another one.
P3 = matrix_profile(((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), gamma=2.2)


def _srgb_curve() -> bytes:
    x = np.linspace(0, 1, 1024)
    y = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(">I", len(x)) + (y * 65535).round().astype(">u2").tobytes()


def _srgb() -> bytes:
    primaries = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
    tags = {b"desc": _description("sRGB"), b"cprt": _description("none"), **WHITE}
    tags |= {name + b"XYZ": _xyz(values) for name, values in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {name + b"TRC": _srgb_curve() for name in (b"r", b"g", b"b")}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


# Another file of sRGB than Pillow's.
SRGB = _srgb()
