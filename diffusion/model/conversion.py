"""Converts what people hold to tensors: tensors, NumPy arrays, images of Pillow, paths of files, masks and labels."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from diffusion.data import ImageError, PixelFormat, decode, read_header
from diffusion.data.images.decoding import to_tensor
from diffusion.data.images.masks import WHITE, read_mask
from diffusion.data.images.noise_map import read_noise_map
from diffusion.data.spec import Label
from diffusion.errors import InputError, require
from diffusion.files import expanded

Picture: TypeAlias = Image.Image | str | os.PathLike[str]
Given: TypeAlias = Tensor | npt.NDArray[np.generic] | Picture
# The noise on an example: a number, or a map that says it for each pixel.
Noise: TypeAlias = float | Given
Several: TypeAlias = Given | Sequence[Given] | Sequence[Sequence[float]]
Labels: TypeAlias = Label | Sequence[int | str] | npt.NDArray[np.generic] | np.generic
KINDS = "a tensor, a NumPy array, an image of Pillow or the path of a file"
# Modes of Pillow that PNG files hold; TIFF files hold the others.
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def is_picture(value: object) -> TypeGuard[Picture]:
    """Whether a value is an image of Pillow or a path."""
    return isinstance(value, (Image.Image, str, os.PathLike))


def as_tensor(value: object, name: str) -> Tensor:
    """Returns a tensor, an array or nested lists of numbers as a tensor.

    Raises InputError for anything else, and for complex numbers.
    """
    if isinstance(value, Tensor):
        x = value.detach()
    else:
        try:
            array = np.asarray(value)
            # Torch knows neither negative strides nor the other order of bytes.
            x = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape))
        except (TypeError, ValueError):
            raise InputError(f"{name}: must be {KINDS}, got {type(value).__name__}") from None
        if not isinstance(value, np.ndarray) and x.dtype == torch.float64:
            x = x.float()
    if x.is_complex():
        raise InputError(f"{name}: must be real numbers, got {x.dtype}")
    return x


def channels_first(x: Tensor, channels: int, name: str, *, torch_order: bool) -> Tensor:
    """Returns an image (C, H, W), (H, W, C), or (H, W) for one channel, as (C, H, W).

    One that could be either is taken as (C, H, W) with `torch_order`, else it is refused. One that is neither is
    returned as it is.
    """
    if x.ndim == 2 and channels == 1:
        return x[None]
    if x.ndim != 3 or x.shape[2] != channels:
        return x
    if x.shape[0] != channels:
        return x.permute(2, 0, 1)
    if not torch_order and tuple(x.shape) != (1, 1, 1):
        raise InputError(
            f"{name}: may be C x H x W or H x W x C, got an array {tuple(x.shape)}; give a tensor (C, H, W), or an "
            "image of Pillow"
        )
    return x


def decoded(value: Picture, pixel_format: PixelFormat, name: str) -> Tensor:
    """Returns the image of a file or of Pillow in units, (C, H, W), decoded as images of the data are.

    Raises InputError for an image that cannot be decoded so; the error names the file, or the argument.
    """
    try:
        if isinstance(value, Image.Image):
            return to_tensor(decode(name, pixel_format, _file(value)), pixel_format)
        return to_tensor(decode(_path(value), pixel_format), pixel_format)
    except ImageError as error:
        raise InputError(f"{name}: {error.reason if isinstance(value, Image.Image) else error}") from error


def size_of(value: Picture, name: str) -> tuple[int, int]:
    """Returns the size (H, W) of the image of a file or of Pillow, turned upright.

    Raises InputError for one that cannot be read.
    """
    try:
        header = read_header(name, _file(value)) if isinstance(value, Image.Image) else read_header(_path(value))
    except ImageError as error:
        raise InputError(f"{name}: {error.reason if isinstance(value, Image.Image) else error}") from error
    return header.height, header.width


def mask(value: object, shape: tuple[int, ...], name: str = "known") -> Tensor:
    """Returns a mask of an example of a shape as a bool tensor that broadcasts against it: True where it is known.

    Pictures are read as mask files are, and what is to be said of them is a warning. Integers are known where they are
    1, or nearly 255 if they go beyond 1, floats in [0, 1] where they are nearly 1. Masks of images are (H, W),
    (C, H, W) or (H, W, C), with one channel or all.

    Raises InputError for other values and kinds, and for pictures as `read_mask` does.
    """
    if is_picture(value):
        return _pictured(value, name)
    known = as_tensor(value, name)
    if known.ndim == 3 == len(shape) and not _broadcasts(known.shape, shape):
        turned = known.permute(2, 0, 1)
        known = turned if _broadcasts(turned.shape, shape) else known
    if known.dtype == torch.bool:
        return known
    values = known.double()
    least, most = (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)
    whole = not known.is_floating_point()
    rule = "True where known and False elsewhere, 0 and 255, or in [0, 1]"
    require(0 <= least <= most <= (255 if whole else 1), name, rule, f"values from {least:g} to {most:g}")
    return values >= WHITE * (255 if whole and most > 1 else 1)


def pixels(value: object, n: int, shape: tuple[int, ...], name: str = "known") -> Tensor:
    """Returns a mask of the pixels of n examples of a shape, bool (n or 1, 1, *), or (n or 1, D) for points.

    It is one for all of them, as `mask` takes it, or one for each, (n, *). Raises InputError as that does, and for
    another shape, and masks that show some of the channels of a pixel.
    """
    several = not is_picture(value) and as_tensor(value, name).ndim > len(shape)
    known = mask(value, (n, *shape) if several else shape, name)
    try:
        known = known.broadcast_to((n, *shape)) if several else known.broadcast_to(shape)[None]
    except RuntimeError:
        rule = f"of the shape {shape} of the data, or ({n}, {str(shape)[1:-1].rstrip(',')})"
        raise InputError(f"{name}: must be {rule}, got {tuple(known.shape)}") from None
    if len(shape) == 1:
        return known
    whole = known.all(1, keepdim=True)
    partly = int((whole != known.any(1, keepdim=True)).sum())
    require(not partly, name, "the same in all channels of a pixel", f"one that differs in {partly:,} pixels")
    return whole


def _pictured(value: Picture, name: str) -> Tensor:
    """The known pixels (1, H, W) of a mask that is a file or an image of Pillow."""
    path, file = (Path(name), _file(value)) if isinstance(value, Image.Image) else (_path(value), None)
    try:
        found = read_mask(path, file=file, name=name)
    except ImageError as error:
        raise InputError(f"{name}: {error.reason if file else error}") from error
    for notice in found.notices:
        warnings.warn(notice, stacklevel=4)
    return torch.tensor(found.known).permute(2, 0, 1)


def number(value: object, name: str) -> float:
    """Returns a number of Python, NumPy or torch as a float. Raises InputError for anything else, such as a text."""
    if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        return float(value.item())
    if isinstance(value, (Real, np.number)):
        return float(value)
    raise InputError(f"{name}: must be a number, got {value!r}")


def noise(value: object, shape: tuple[int, ...], name: str = "noise") -> float | Tensor:
    """Returns the noise on an example of a shape: a number as a float, or a map as a tensor that broadcasts against it.

    Maps are tensors or arrays of floats in units of the data, of images (H, W), (C, H, W) or (H, W, C); or gray images,
    whose white is 1, or files (`read_noise_map`). Raises InputError for anything else.
    """
    if is_picture(value):
        return torch.tensor(read_noise_map(value, name).values)
    if not isinstance(value, (Tensor, np.ndarray)) or math.prod(value.shape) == 1:
        return number(value, name)
    found = as_tensor(value, name)
    if found.ndim == 3 == len(shape) and not _broadcasts(found.shape, shape):
        turned = found.permute(2, 0, 1)
        found = turned if _broadcasts(turned.shape, shape) else found
    return found


def whole(value: object, name: str, least: int, why: str = "") -> int:
    """Returns a whole number of Python or NumPy as an int.

    Raises InputError for anything else, and for numbers below `least`, with the reason `why` that they are.
    """
    found = int(value) if isinstance(value, Integral) else None
    if found is None or found < least:
        raise InputError(f"{name}: must be a whole number, {least} or more{why}, got {value!r}")
    return found


def plain_label(label: Labels | None) -> Label | None:
    """Returns labels with numbers and names of NumPy as those of Python."""
    found: Any = label
    if isinstance(label, (np.ndarray, np.generic)):
        found = label.tolist()
    elif isinstance(label, Sequence) and not isinstance(label, str):
        found = [each.item() if isinstance(each, np.generic) else each for each in label]
    return found  # type: ignore[no-any-return]


def _broadcasts(mine: Sequence[int], its: Sequence[int]) -> bool:
    return len(mine) <= len(its) and all(a in (1, b) for a, b in zip(mine[::-1], its[::-1], strict=False))


def _path(value: str | os.PathLike[str]) -> Path:
    return expanded(value)


def _file(image: Image.Image) -> BytesIO:
    """Returns an image of Pillow as a file without loss, with its profile and its orientation."""
    buffer = BytesIO()
    known = image.mode in PNG_MODES or image.mode in ("CMYK", "F", "I", "LAB", "YCbCr")
    shown = image if known else image.convert("RGBA" if image.has_transparency_data else "RGB")
    if shown.mode in PNG_MODES:
        shown.save(buffer, format="PNG", compress_level=0, exif=image.getexif())
    else:
        shown.save(buffer, format="TIFF", exif=image.getexif())
    buffer.seek(0)
    return buffer
