"""Reads maps of noise: the standard deviation of the noise on each pixel of an image."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from diffusion.data.images.formats import PILLOW_FORMATS
from diffusion.errors import InputError
from diffusion.files import expanded

# The value of white in the modes of Pillow that hold one channel of gray levels.
WHITES = {"1": 1, "L": 255, "I;16": 65535, "I;16L": 65535, "I;16B": 65535}


@dataclass(frozen=True)
class NoiseMap:
    """A map of noise. `values` are (H, W), or any shape that a .npy file holds, float32. They are shares of a standard
    deviation that white stands for where the map was an image of `gray` levels, else standard deviations in units.
    """

    values: npt.NDArray[np.float32]
    gray: bool


def read_noise_map(file: str | os.PathLike[str] | Image.Image, name: str = "noise") -> NoiseMap:
    """Reads a .npy file or a TIFF of floats, which are standard deviations, or a gray image, which is turned upright.

    A colored image must be gray in fact. Raises InputError for a file that cannot be read, and for one of other values.
    """
    try:
        if isinstance(file, Image.Image):
            return _of_image(file, name, "an image")
        path = expanded(file)
        if path.suffix.lower() != ".npy":
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                return _of_image(image, name, str(file))
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: {file} cannot be read as an image or a .npy file ({error})") from error
    if values.dtype.kind != "f":
        rule = "must hold floats, standard deviations in units of the data"
        raise InputError(f"{name}: {file} {rule}, got {values.dtype}")
    return NoiseMap(values.astype(np.float32), gray=False)


def _of_image(image: Image.Image, name: str, what: str) -> NoiseMap:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        return NoiseMap(np.asarray(upright, dtype=np.float32), gray=False)
    if upright.mode in WHITES:
        return NoiseMap(np.asarray(upright, np.float32) / np.float32(WHITES[upright.mode]), gray=True)
    colors = np.asarray(upright.convert("RGBA"))
    if upright.mode == "I" or (colors[..., :3] != colors[..., :1]).any() or (colors[..., 3] != 255).any():
        rule = "must be a gray image without transparency, or hold floats"
        raise InputError(f"{name}: {what} {rule}, got {upright.mode}")
    return NoiseMap(colors[..., 0].astype(np.float32) / np.float32(255), gray=True)
