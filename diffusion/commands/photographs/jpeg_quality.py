"""The quality at which a JPEG file was compressed, from the tables in its header."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError

from diffusion.operators import JPEG

QUALITIES = range(1, 101)


def jpeg_quality(path: Path) -> int | None:
    """Returns the quality whose tables are nearest to those of a file, 1 to 100; None for a file that is no JPEG.

    The tables of libjpeg, which most programs use, are met exactly. Those of cameras and of some editors are not the
    standard's: the nearest quality has the least sum of absolute differences of the steps of luma.

    Raises OSError for a file that cannot be read.
    """
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            tables = getattr(image, "quantization", None)
    except UnidentifiedImageError:
        return None
    if not tables:
        return None
    luma = torch.tensor(tables[min(tables)], dtype=torch.float64).reshape(8, 8)
    return min(QUALITIES, key=lambda quality: float((JPEG(quality).steps[0] - luma).abs().sum()))
