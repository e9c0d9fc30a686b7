"""An open image file before its pixels are read: its header, and its values by band."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.data.images.bands import Bands, opacity

BinaryFile: TypeAlias = BufferedReader | BytesIO

MAX_PIXELS = 64_000_000
LIMIT = f"at most {MAX_PIXELS // 1_000_000} million are read; make the image smaller"


@dataclass(frozen=True)
class Header:
    """The facts that a file states about its image; width and height are in pixels, after the rotation by EXIF.

    `mode` is Pillow's, where Pillow has one for what the file holds. Otherwise it is "RGB;16" (or "RGBA;16", "LA;16")
    for colors of 16 bits, "RGB+1" for a band beside colors that is not alpha, and a number of bands with their type,
    "5 x uint16", for others. `notices` are sentences about what is converted or passed over when the image is decoded.
    """

    width: int
    height: int
    mode: str
    format: str
    frames: int
    notices: tuple[str, ...] = ()


class Source(ABC):
    """An open image file, whose size was checked."""

    @abstractmethod
    def header(self) -> Header:
        """Returns the header."""

    @abstractmethod
    def bands(self, frame: int) -> Bands:
        """Reads the values of a frame, turned upright."""

    def opaque(self, frame: int) -> npt.NDArray[np.bool_] | None:
        """Returns which pixels of a frame (H, W, 1) are fully opaque; None for a file without alpha."""
        alpha = opacity(self.bands(frame))
        return None if alpha is None else alpha == 1

    @property
    def orientation(self) -> int:
        """How the file asks to turn its image, 1 to 8 as in EXIF; 1 for not at all."""
        return 1


def check_size(width: int, height: int) -> None:
    """Raises ValueError for an image that is too large."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels; {LIMIT}")
