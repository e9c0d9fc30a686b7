"""Decodes an image file to pixels, or raises an error that names the file.

Pillow damages some images without a warning: it clips 16-bit pixels to white, drops bands, shows the hidden colors of
transparent pixels, ignores color profiles, and leaves photographs lying on their side. Here every kind of file is
either converted faithfully or refused. What a file holds is found by its first bytes and not by its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from diffusion.data.images.arrays import Array, Dicom, Tiff
from diffusion.data.images.bands import Bands, arranged, no_range
from diffusion.data.images.formats import FORMATS, HEAD, PILLOW_FORMATS, SUFFIXES, jpeg_kind, signature
from diffusion.data.images.pictures import Picture, composite
from diffusion.data.images.pixel_format import BLACK, RGB, WHITE, Color, PixelFormat, Pixels, to_tensor
from diffusion.data.images.resizing import resize_and_crop
from diffusion.data.images.source import LIMIT, MAX_PIXELS, BinaryFile, Header, Source, check_size
from diffusion.data.images.tiff import Layout, read_layout
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
    "decode_at",
    "decode_frames_at",
    "decode_to_look_at",
    "decode_with_alpha",
    "decoded",
    "looked_at",
    "made_of_frames",
    "printable",
    "read_bands",
    "read_header",
    "resize_and_crop",
    "to_tensor",
]

Made = TypeVar("Made")

ARRAY, TIFFS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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


def printable(path: str | os.PathLike[str]) -> str:
    """Returns a path as printable text; bytes that are not UTF-8 become backslashes and hexadecimal digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_header(path: str | os.PathLike[str], file: BinaryFile | None = None) -> Header:
    """Reads the header of an image file, but not its pixels; the file may already be open as `file`.

    Raises ImageError when the file is not an image of a known format, is too large, or needs a library that is not
    installed.
    """
    with _opened(path, file) as source:
        return source.header()


def decode(
    path: str | os.PathLike[str], pixel_format: PixelFormat, file: BinaryFile | None = None, *, frame: int = 0
) -> Pixels:
    """Decodes a frame of an image file, by default the first, to (H, W, C) in a pixel format.

    The file may already be open as `file`. The rotation by EXIF is applied. Palettes and CMYK are converted, and colors
    to sRGB where the file has a profile of other ones. With a range in the format, colors of more than 8 bits are taken
    as the numbers that they are, without regard to a profile.

    Raises ImageError when the file cannot be decoded to its last byte, when its values have no known range, when its
    bands cannot become the channels of the format, or for the reasons of `read_header`.
    """
    return decode_with_alpha(path, pixel_format, file, frame=frame)[0]


def decode_with_alpha(
    path: str | os.PathLike[str], pixel_format: PixelFormat, file: BinaryFile | None = None, *, frame: int = 0
) -> tuple[Pixels, bool]:
    """Decodes as `decode` does, and says whether the last channel is alpha: a fourth band may be anything."""
    with _opened(path, file) as source:
        return decoded(source, pixel_format, frame)


def decoded(source: Source, pixel_format: PixelFormat, frame: int) -> tuple[Pixels, bool]:
    """Decodes a frame of an open file as `decode` does, and says whether the last channel is alpha."""
    eight = pixel_format.value_range is None and pixel_format.levels == 256 and pixel_format.channels in (1, 3, 4)
    if eight and isinstance(source, Picture):
        return source.pixels(pixel_format, frame)
    bands = source.bands(frame)
    ends = pixel_format.value_range or bands.full
    if ends is None:
        raise no_range(bands)
    values, alpha = arranged(bands, pixel_format.channels, pixel_format.background, ends)
    return pixel_format.stored(values, ends), alpha


def read_bands(path: str | os.PathLike[str], file: BinaryFile | None = None, *, frame: int = 0) -> Bands:
    """Reads the values of an image file by band, in its own numbers.

    Raises ImageError as `decode` does.
    """
    with _opened(path, file) as source:
        return source.bands(frame)


def decode_to_look_at(path: str | os.PathLike[str], file: BinaryFile | None = None) -> Pixels:
    """Decodes an image file of any kind to RGB of 8 bits, (H, W, 3), to compare its looks with those of others.

    Values of more than 8 bits, of which a file may use a small part, are scaled by their own extremes, and of other
    bands than colors the first one is shown.

    Raises ImageError when the file cannot be decoded to its last byte, or for the reasons of `read_header`.
    """
    with _opened(path, file) as source:
        return looked_at(source, 0)


def looked_at(source: Source, frame: int) -> Pixels:
    """Decodes a frame of an open file as `decode_to_look_at` does."""
    if isinstance(source, Picture) and not source.deep_gray:
        return source.pixels(RGB, frame)[0]
    bands = source.bands(frame)
    if bands.kind == "bands":
        bands = Bands(bands.values[:, :, :1], "gray")
    low, high = bands.ends
    ends = (low, high) if low < high else (low - 1, low + 1)
    return RGB.stored(arranged(bands, 3, WHITE, ends)[0], ends)


def decode_at(
    path: str | os.PathLike[str],
    pixel_format: PixelFormat,
    size: tuple[int, int],
    file: BinaryFile | None = None,
    *,
    frame: int = 0,
) -> Pixels:
    """Decodes an image file at a size (h, w), to which it is resized and cropped: (h, w, C).

    Raises ImageError as `decode` does.
    """
    pixels, alpha = decode_with_alpha(path, pixel_format, file, frame=frame)
    return resize_and_crop(pixels, size, pixel_format, alpha=alpha)


def decode_frames_at(
    path: str | os.PathLike[str],
    pixel_format: PixelFormat,
    size: tuple[int, int],
    file: BinaryFile,
    frames: Iterable[int],
) -> Iterator[Pixels | ImageError]:
    """Decodes frames of an open image file in increasing order as `decode_at` does, each (h, w, C) or why it cannot be.

    The file is opened once, since reaching a frame may need all those before it.

    Raises ImageError when the file cannot be opened as an image.
    """

    def at_size(source: Source, frame: int) -> Pixels:
        pixels, alpha = decoded(source, pixel_format, frame)
        return resize_and_crop(pixels, size, pixel_format, alpha=alpha)

    return made_of_frames(path, file, frames, at_size)


def made_of_frames(
    path: str | os.PathLike[str], file: BinaryFile, frames: Iterable[int], make: Callable[[Source, int], Made]
) -> Iterator[Made | ImageError]:
    """Yields what a function makes of each frame of an open image file, in increasing order, or why it cannot be made.

    Raises ImageError when the file cannot be opened as an image.
    """
    with _opened(path, file) as source:
        for frame in frames:
            try:
                yield make(source, frame)
            except Exception as error:  # As in `_opened`.
                failed = ImageError(path, _reason(error, b"", path, file))
                failed.__cause__ = error.__cause__ if isinstance(error, ImageError) else error
                yield failed


@contextmanager
def _opened(path: str | os.PathLike[str], file: BinaryFile | None) -> Iterator[Source]:
    """Opens an image without reading its pixels; any error within the context becomes an ImageError."""
    head, given = b"", file
    try:
        given = given or open(path, "rb")  # noqa: SIM115, a context manager would cost small images some percent
        given.seek(0)
        head = given.read(HEAD)
        if head.startswith(ARRAY):
            yield Array(given)
        elif head[128:] == b"DICM":
            yield Dicom(given)
        elif head.startswith(TIFFS) and (layout := _unread_layout(given)):
            yield Tiff(given, layout)
        else:
            with Image.open(given, formats=PILLOW_FORMATS) as image:
                check_size(*image.size)
                yield Picture(image, given)
    except Exception as error:  # Readers raise errors of almost every type on damaged files.
        raise ImageError(path, _reason(error, head, path, file)) from error
    finally:
        if given is not None and file is None:
            given.close()


def _unread_layout(file: BinaryFile) -> Layout | None:
    """Returns the layout of a TIFF that Pillow does not read, or reads in part; None for others and damaged ones."""
    try:
        layout = read_layout(file)
    except Exception:  # Pillow will say what is damaged.
        return None
    return layout if layout.reader == "bands" else None


def _reason(error: Exception, head: bytes, path: str | os.PathLike[str], file: BinaryFile | None) -> str:
    if isinstance(error, UnidentifiedImageError):
        if not head:
            return "the file is empty"
        return _unidentified(head, file or path)
    if isinstance(error, Image.DecompressionBombError):
        return f"far too many pixels; {LIMIT}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _unidentified(head: bytes, file: BinaryFile | str | os.PathLike[str]) -> str:
    """Says why Pillow does not open a file, whose first bytes may be those of a known format."""
    kind = signature(head)
    if kind is None:
        return f"not an image of a known format ({', '.join(FORMATS)})"
    found = ""
    with suppress(Exception), ExitStack() as stack:
        opened = stack.enter_context(open(file, "rb")) if isinstance(file, (str, os.PathLike)) else file
        if head.startswith(TIFFS):
            return str(read_layout(opened))
        found = jpeg_kind(opened) if kind == "a JPEG" else ""
    if found:
        return f"{kind} of a kind that is not read ({found})"
    if kind.split(" ", 1)[1].removesuffix(" file").upper() in {*FORMATS, "NETPBM"}:
        return f"{kind} that is damaged, or of a kind that is not read"
    return f"{kind}, which is not read; convert it to one of {', '.join(FORMATS)}"
