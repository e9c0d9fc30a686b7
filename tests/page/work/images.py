"""Images for jobs, and their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def photograph(path: Path, size: tuple[int, int] = (12, 16), seed: int = 0) -> Path:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def pixels(path: Path) -> npt.NDArray[Any]:
    with Image.open(path) as image:
        return np.array(image)
