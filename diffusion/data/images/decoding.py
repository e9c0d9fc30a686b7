"""Decodes an image file to 8-bit pixels, or raises an error that names the file.

Pillow damages some images without a warning: it clips 16-bit pixels to white, shows the hidden colors of transparent
pixels, and leaves photographs lying on their side. Here every kind of file is either converted faithfully or refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from diffusion.data.images.formats import FORMATS, PILLOW_FORMATS, SUFFIXES
from diffusion.data.images.pixel_format import BLACK, RGB, WHITE, Color, PixelFormat, Pixels, to_tensor
from diffusion.errors import InputError

__all__ = [
    "BLACK",
    "FORMATS",
    "MAX_PIXELS",
    "RGB",
    "SUFFIXES",
    "WHITE",
    "BinaryFile",
    "Color",
    "Header",
    "ImageError",
    "PixelFormat",
    "Pixels",
    "composite",
    "decode",
    "printable",
    "read_header",
    "resize_and_crop",
    "to_tensor",
]

BinaryFile: TypeAlias = BufferedReader | BytesIO

MAX_PIXELS = 64_000_000
_LIMIT = f"at most {MAX_PIXELS // 1_000_000} million are read; make the image smaller"


class ImageError(InputError):
    """A file cannot be used as an image; the message names the file and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"

    @property
    def transient(self) -> bool:
        """Whether the system refused to read the file, which is not a lasting property of the file."""
        return isinstance(self.__cause__, MemoryError) or getattr(self.__cause__, "errno", None) is not None


@dataclass(frozen=True)
class Header:
    """The facts that a file states about its image; width and height are in pixels, after the rotation by EXIF."""

    width: int
    height: int
    mode: str
    format: str
    frames: int


def printable(path: str | os.PathLike[str]) -> str:
    """Returns a path as printable text; bytes that are not UTF-8 become backslashes and hexadecimal digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_header(path: str | os.PathLike[str], file: BinaryFile | None = None) -> Header:
    """Reads the header of an image file, but not its pixels; the file may already be open as `file`.

    Raises ImageError when the file is not an image of a known format, is too large, or holds floating-point pixels.
    """
    with _opened(path, file) as image:
        width, height = image.size
        if _lies_on_its_side(image):
            width, height = height, width
        return Header(width, height, image.mode, image.format or "", getattr(image, "n_frames", 1))


def decode(
    path: str | os.PathLike[str], pixel_format: PixelFormat, file: BinaryFile | None = None, *, frame: int = 0
) -> Pixels:
    """Decodes a frame of an image file, by default the first, to (H, W, C) in a pixel format.

    The file may already be open as `file`. The rotation by EXIF is applied, 16-bit gray is scaled to 8 bits, palettes
    and CMYK are converted.

    Raises ImageError when the file cannot be decoded to its last byte, or for the reasons of `read_header`.
    """
    with _opened(path, file) as image:
        if frame:
            image.seek(frame)
        upright = ImageOps.exif_transpose(image)
        pixels = np.asarray(_converted(_eight_bits(upright), pixel_format))
    return pixels.reshape(*pixels.shape[:2], pixel_format.channels)


def resize_and_crop(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Scales an image (H, W, C) until it just covers the size (h, w), and crops its center: (h, w, C).

    Both axes are scaled by the same factor, so that shapes are preserved. Shrinking is antialiased. An image that needs
    no scaling is only cropped.
    """
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1])
    if scale == 1:
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        return image[top : top + size[0], left : left + size[1]]
    window = size[0] * scale, size[1] * scale
    top, left = max(0.0, (height - window[0]) / 2), max(0.0, (width - window[1]) / 2)
    box = left, top, min(left + window[1], width), min(top + window[0], height)
    # Lanczos keeps the most detail when shrinking, but rings around the hard edges of an enlarged image.
    kernel = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    resized = np.asarray(picture.resize((size[1], size[0]), kernel, box=box))
    return resized.reshape(*size, image.shape[2])


@contextmanager
def _opened(path: str | os.PathLike[str], file: BinaryFile | None) -> Iterator[Image.Image]:
    """Opens an image without reading its pixels; any error within the context becomes an ImageError."""
    try:
        with Image.open(file or path, formats=PILLOW_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels; {_LIMIT}")
            if image.mode == "F":
                raise ValueError("floating-point pixels have no known range; convert them to 8 or 16 bits")
            yield image
    except Exception as error:  # Pillow's readers raise errors of almost every type on damaged files.
        raise ImageError(path, _reason(error, path, file)) from error


def _reason(error: Exception, path: str | os.PathLike[str], file: BinaryFile | None) -> str:
    if isinstance(error, UnidentifiedImageError):
        empty = (file.seek(0, os.SEEK_END) if file else os.path.getsize(path)) == 0
        return "the file is empty" if empty else f"not an image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"far too many pixels; {_LIMIT}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _lies_on_its_side(image: Image.Image) -> bool:
    # Without the first test, Pillow would decode a whole PNG in search of EXIF data behind the pixels.
    return "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit gray, which Pillow keeps in the modes I and I;16*, to 8 bits; returns other images unchanged."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(f"pixels from {low} to {high} do not fit into 16 bits; convert them to 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _converted(image: Image.Image, pixel_format: PixelFormat) -> Image.Image:
    if pixel_format.channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = composite(image, pixel_format.background)
    return image.convert("RGB" if pixel_format.channels == 3 else "L")


def composite(image: Image.Image, background: Color) -> Image.Image:
    """Composites an image on a background, which makes it opaque, in the mode RGBA."""
    behind = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(behind, image.convert("RGBA"))
