"""Reads the kernel of a blur from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.data.images.formats import PILLOW_FORMATS
from diffusion.errors import InputError
from diffusion.files import expanded

# Modes of Pillow whose values are those of one channel, of any depth.
ONE_CHANNEL = ("1", "L", "I", "I;16", "I;16L", "I;16B", "F")


def read_kernel(file: str) -> Tensor:
    """Returns the kernel in an image file or a .npy file at its full depth, (h, w) float64 with odd sides.

    A side of even length gets a line of zeros at its end. The middle is the weight of the pixel itself. A colored image
    must be gray in fact.

    Raises InputError for a file that cannot be read, holds colors, or sums to 0.
    """
    path = expanded(file)
    try:
        values = _values(path)
    except (OSError, ValueError) as error:
        raise InputError(f"operator kernel: {file} cannot be read as an image or a .npy file ({error})") from error
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or not np.isfinite(values).all() or values.sum() == 0:
        raise InputError(
            f"operator kernel: {file} must hold one channel of finite values that do not sum to 0, (h, w), got "
            f"{values.shape}"
        )
    height, width = values.shape
    return torch.from_numpy(np.pad(values, ((0, 1 - height % 2), (0, 1 - width % 2))))


def _values(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    with Image.open(path, formats=PILLOW_FORMATS) as image:
        if image.mode in ONE_CHANNEL:
            return np.asarray(image).astype(np.float64)
        return np.asarray(image.convert("RGB")).astype(np.float64)
