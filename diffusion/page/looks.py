"""Images of any kind as a browser shows them: upright, 8 bits, sRGB, PNG. What is decoded here is what commands see.

It imports torch, as all reading of images does, so that the page imports it when an image is asked for.
"""

from __future__ import annotations

import io
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from diffusion.commands.photographs.images import transparent
from diffusion.commands.photographs.photograph import read_photograph
from diffusion.data import DataSpec, decode, read_header
from diffusion.data.images.bands import Bands
from diffusion.data.images.decoding import ImageError, PixelFormat, Pixels, decode_to_look_at, read_bands
from diffusion.data.images.masks import fitted, read_mask
from diffusion.data.images.pixel_format import Range
from diffusion.data.images.source import LIMIT
from diffusion.page.answers import Refusal
from diffusion.page.kept import Upload

# Decoding takes up to a gigabyte for the largest images, so that one is decoded at a time.
ALONE = Lock()
# How hard PNGs are packed: a large view has to be there soon.
PACKED = 1


def described(path: Path, number: str, name: str) -> Upload:
    """Returns what is to be known of an image file, all of whose pixels are decoded.

    Raises Refusal: 413 for too many pixels, 415 for a file that is no image that can be read.
    """
    with ALONE:
        try:
            header, photograph, bands = read_header(path), read_photograph(path), read_bands(path)
        except ImageError as error:
            raise _refusal(error, name) from error
        height, width = bands.values.shape[:2]
        notices = tuple(dict.fromkeys((*header.notices, *(notice for notice in photograph.notices))))
        return Upload(number, name, width, height, _in_words(bands), bool(transparent(bands).any()), notices)


def _refusal(error: ImageError, name: str) -> Refusal:
    return Refusal(413 if LIMIT in error.reason else 415, f"{name}: {error.reason}")


def _in_words(bands: Bands) -> str:
    kinds = {"gray": "gray", "rgb": "RGB", "bands": f"{bands.colors.shape[2]} bands"}
    kind = f"{kinds[bands.kind]}{' and alpha' if bands.alpha else ''}"
    values = bands.values.dtype
    return f"{kind}, floating point" if values.kind == "f" else f"{kind}, {8 * values.itemsize} bits"


def view(path: Path, side: int, value_range: Range | None) -> bytes:
    """Returns a PNG of an image file, in RGB or with alpha, of at most `side` pixels on its longer side.

    Values of black and white are those that the model has, or of the file's own depth, or the extremes of the file
    where neither is known.
    """
    with ALONE:
        picture = Image.fromarray(_shown(path, value_range))
        scale = side / max(picture.size)
        if scale < 1:
            width, height = (max(1, round(scale * length)) for length in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return _png(picture)


def _shown(path: Path, value_range: Range | None) -> Pixels:
    channels = 4 if read_bands(path).alpha else 3
    try:
        return decode(path, PixelFormat(channels, value_range=value_range))
    except ImageError:
        return decode_to_look_at(path)


def opaque(path: Path) -> bytes | None:
    """Returns a PNG of one bit that is black where an image file is transparent; None where it is nowhere."""
    with ALONE:
        hidden = transparent(read_bands(path))
    return _png(Image.fromarray(~hidden[:, :, 0])) if hidden.any() else None


def hidden_by(mask: Path, image: Path, size: tuple[int, int]) -> int:
    """Returns the number of pixels that a mask hides of an image of a size (H, W).

    Raises InputError for a mask that cannot be meant, and for one of another size; Refusal as `described` does.
    """
    with ALONE:
        try:
            read = read_mask(mask, name="mask", options=False)
        except ImageError as error:
            raise _refusal(error, "mask") from error
        return int((~fitted(read, Path("mask"), Path("the image"), size, turn=1).known).sum())


def example_picture(stored: Tensor, spec: DataSpec) -> bytes:
    """Returns a PNG of stored values (C, H, W): gray for one or two channels, RGB for three, four with alpha, and of
    more the first one. Continuous values are shown from 0 to 1.
    """
    values = (stored.double() / spec.top).clamp(0, 1).mul(255).round().byte()
    return _png(Image.fromarray(_arranged(values.permute(1, 2, 0).contiguous().numpy())))


def _arranged(values: Pixels) -> Any:  # noqa: ANN401, an array as Pillow takes it
    channels = values.shape[2]
    return values if channels in (3, 4) else np.ascontiguousarray(values[:, :, 0])


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=PACKED)
    return buffer.getvalue()
