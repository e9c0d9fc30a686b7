"""The bands of a photograph in other colors: gray, three equal ones, and with a white that other formats have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from diffusion.commands.photographs.writing import Values
from diffusion.data.images.bands import LUMA, Bands

# From so many gray levels on, an image in RGB without a colored pixel is taken for a gray photograph.
FEWEST_LEVELS = 16


def to_gray(bands: Bands) -> Bands:
    """Colors as their luma, rounded as those of 8 bits are by Pillow."""
    colors = bands.colors
    if colors.dtype == np.uint8:
        gray = np.asarray(Image.fromarray(np.ascontiguousarray(colors[:, :, :3])).convert("L"))[:, :, None]
    else:
        weighed = colors[:, :, :3] @ LUMA[:, None]
        gray = (np.rint(weighed) if colors.dtype.kind in "iu" else weighed).astype(colors.dtype)
    values = np.concatenate([gray, bands.values[:, :, -1:]], 2) if bands.alpha else gray
    return replace(bands, values=values, kind="gray")


def deepened(bands: Bands, white: int) -> tuple[Bands, str]:
    """Values whose white is the largest of their depth, and what is to be said of it.

    No other format than theirs knows of a white that is darker, so that results would be black.
    """
    dtype, top = (np.uint8, 255) if white <= 255 else (np.uint16, 65535)
    values = np.rint(bands.values.astype(np.float64) * (top / white)).astype(dtype)
    told = f"has values of 0 to {white:,}, its results have 0 to {top:,}" if white != top else ""
    return replace(bands, values=values, white=None), told


def to_rgb(bands: Bands) -> Bands:
    """Gray values as three equal colors."""
    values = np.repeat(bands.colors, 3, 2)
    values = np.concatenate([values, bands.values[:, :, -1:]], 2) if bands.alpha else values
    return replace(bands, values=values, kind="rgb")


def is_neutral(bands: Bands, known: Values | None) -> bool:
    """Whether all known pixels are gray, of enough levels."""
    colors = bands.colors[:, :, :3]
    colors = colors.reshape(-1, 3) if known is None else colors[known.all(2)]
    if not len(colors) or (colors[:, :1] != colors).any():
        return False
    return len(np.unique(colors[:, 0])) >= FEWEST_LEVELS
