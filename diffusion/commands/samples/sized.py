"""Sizes of images: reads images at the size of a model, for what works on whole images of that size alone, and what is
meant by a size on the command line.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from diffusion.data import PixelFormat, read_header
from diffusion.data.images.decoding import decode_at, to_tensor
from diffusion.errors import InputError, require
from diffusion.model import Model


def read_sized(path: Path, model: Model) -> tuple[Tensor, str]:
    """Reads an image in units, (C, H, W), resized and cropped as in training, and a line to print if it was.

    Raises InputError for a file that cannot be decoded, and for a model of points.
    """
    if not model.spec.is_image:
        raise InputError(f"{path}: this model was trained on points, and takes no images")
    return _read(path, PixelFormat.of(model.spec, model.config.data.background), model)


def read_pair(path: Path, model: Model) -> tuple[Tensor, str]:
    """Reads the pair of an image (data.condition) in units, (K, H, W), as `read_sized` reads images.

    Raises InputError for a file that cannot be decoded, and for a model that was not trained on pairs.
    """
    data = model.config.data
    require(data.condition, "--given", "left out for a model that was not trained on pairs (data.condition)", path)
    return _read(path, PixelFormat(data.paired_channels, data.background, levels=model.spec.levels), model)


def _read(path: Path, pixels: PixelFormat, model: Model) -> tuple[Tensor, str]:
    _, height, width = model.spec.shape
    header = read_header(path)
    x = to_tensor(decode_at(path, pixels, (height, width)), pixels)
    if (header.height, header.width) == (height, width):
        return x, ""
    return x, f"{path.name}: {header.width} x {header.height} pixels, resized and cropped to {width} x {height}"


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Returns the size (height, width) that a text such as `128x256` or `128` asks for; None for none.

    Raises InputError for anything else.
    """
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if not (len(sides) in (1, 2) and all(side.strip().isdecimal() and int(side) for side in sides)):
        raise InputError(f"--size: must be a height and a width, as in 128x256, or one number for both, got {text!r}")
    return int(sides[0]), int(sides[-1])
