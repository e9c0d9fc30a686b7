"""What the tags of a TIFF say of its samples, and whether Pillow reads all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import TiffImagePlugin

from diffusion.data.images.bands import mode_of

# Tags (TIFF 6.0, section 8).
WIDTH, LENGTH, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRA, FORMAT = 256, 257, 258, 262, 274, 277, 338, 339
DESCRIPTION = 270
RGB, PALETTE, CMYK, LAB = 2, 3, 5, 8
# The bands of color by the number of PHOTOMETRIC: RGB, CMYK, YCbCr and CIELAB; others have one.
_COLORS = {RGB: 3, CMYK: 4, 6: 3, LAB: 3}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3


@dataclass(frozen=True)
class Layout:
    """The size and the samples of a page: their number, bits, numerical format, colors, and which are extra.

    `extra` has 0 for an unspecified sample, 1 and 2 for alpha.
    """

    width: int
    height: int
    samples: int
    bits: int
    numbers: int
    photometric: int
    extra: tuple[int, ...]
    orientation: int

    @classmethod
    def of(cls, tags: Mapping[int, Any]) -> Layout:
        """Reads the tags of a page, as Pillow has them."""
        bits, numbers, extra = tags.get(BITS, 1), tags.get(FORMAT, 1), tags.get(EXTRA, ())
        samples, photometric = int(tags.get(SAMPLES, 1)), int(tags.get(PHOTOMETRIC, 1))
        extra = extra if isinstance(extra, tuple) else (extra,)
        # Some writers leave out the tag for bands beyond those of the colors.
        extra = extra or (0,) * max(0, samples - _COLORS.get(photometric, 1))
        return cls(
            int(tags[WIDTH]),
            int(tags[LENGTH]),
            samples,
            int(max(bits) if isinstance(bits, tuple) else bits),
            int(numbers[0] if isinstance(numbers, tuple) else numbers),
            photometric,
            extra,
            int(tags.get(ORIENTATION, 1)),
        )

    @property
    def unspecified(self) -> int:
        """The number of bands that are neither color nor alpha."""
        return sum(sample not in (1, 2) for sample in self.extra)

    @property
    def reader(self) -> Literal["plain", "gray", "color", "bands"]:
        """The part of it that Pillow reads.

        It is all of a "plain" file of at most 8 bits, all of a deep "gray" one, 8 of the 16 bits of a deep "color" one,
        and nothing that may be used of one with other "bands".
        """
        if self.numbers in (_UNSIGNED, 4) and not self.unspecified:
            if self.bits <= 8 or self.photometric in (CMYK, LAB):
                return "plain"
            if self.bits <= 16 and self.samples > 1 and self.photometric == RGB:
                return "color"
        one = self.samples == 1 and self.photometric in (0, 1)
        native = {_UNSIGNED: (12, 16), _SIGNED: (16, 32), _FLOAT: (32,)}.get(self.numbers, ())
        return "gray" if one and self.bits in native and self.photometric else "bands"

    @property
    def mode(self) -> str:
        """The mode of a file that is read by its bands."""
        if self.photometric == PALETTE and self.samples == 1:
            return "RGB;16"
        deep = ";16" if self.bits > 8 else ""
        if self.photometric == RGB and self.samples == 4 and self.unspecified == 1 and self.numbers == _UNSIGNED:
            return f"RGB+1{deep}"
        if self.photometric != RGB and self.samples == 2 and not self.unspecified:
            return f"LA{deep}"
        kind = {_SIGNED: "i", _FLOAT: "f"}.get(self.numbers, "u")
        size = max(1, -(-self.bits // 8))
        size = next(n for n in (1, 2, 4, 8) if n >= min(size, 8))
        return mode_of(self.samples, np.dtype(f"{kind}{max(size, 2) if kind == 'f' else size}"))

    def __str__(self) -> str:
        numbers = {_SIGNED: " signed", _FLOAT: " floating-point"}.get(self.numbers, "")
        channels = f"{self.samples} channel{'s' if self.samples > 1 else ''}"
        return f"a TIFF of a kind that is not read ({channels}, {self.bits}{numbers} bits)"


def read_layout(file: BinaryIO) -> Layout:
    """Reads the layout of the first page of a TIFF. Raises an error of almost any type for a damaged one."""
    return Layout.of(read_tags(file))


def read_tags(file: BinaryIO) -> Mapping[int, Any]:
    """Reads the tags of the first page of a TIFF, by Pillow though it need not be able to read the pixels.

    Raises an error of almost any type for a damaged one.
    """
    file.seek(0)
    head = file.read(8)
    if head[2:3] == b"\x2b":
        head += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(directory.next)
    directory.load(file)
    return directory
