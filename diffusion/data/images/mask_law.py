"""The masks in a folder as a law of what is observed of training examples (`observed.folder`).

As everywhere, white is seen and black is not. A mask is resized and cropped as images are, and a pixel of it is seen
where most of its area is (`holes.seen_at`). Masks belong to no image: each example may be observed through any of them.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.images.folder import natural
from diffusion.data.images.formats import SUFFIXES
from diffusion.data.images.holes import seen_at
from diffusion.data.images.masks import read_mask
from diffusion.errors import InputError
from diffusion.files import expanded

KEY = "observed.folder"


@lru_cache(maxsize=1)
def read_masks(folder: str, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Returns all masks of a folder and of its subfolders at a size (H, W), in natural order: (N, 1, H, W), 1 where
    seen.

    Raises InputError for a size of points, for a folder without masks, for a file that cannot be read as a mask, and
    for a mask that at this size hides nothing or shows nothing.
    """
    if len(size) != 2:
        raise InputError(f"{KEY}: must be unset for points, of which random coordinates are observed, got {folder!r}")
    root = expanded(folder)
    if not root.is_dir():
        raise InputError(f"{KEY}: must be a folder of masks, got {folder!r}")
    names = [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not names:
        raise InputError(f"{KEY}: {folder} holds no masks")
    masks = np.empty((len(names), 1, *size), np.uint8)
    for row, name in enumerate(natural(names)):
        masks[row, 0] = _read(root / name, (size[0], size[1]))
    masks.flags.writeable = False
    return masks


def _read(path: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    known = read_mask(path, name=f"{KEY}: {path}", options=False).known
    seen = seen_at(known, size)[:, :, 0]
    if seen.all() or not seen.any():
        shown = "everything as seen" if seen.all() else "nothing as seen"
        raise InputError(
            f"{KEY}: {path} shows {shown} at {size[0]}x{size[1]}, the size of the images; paint what is hidden black "
            "and what is seen white, or remove the file"
        )
    return seen


def digest(masks: npt.NDArray[np.uint8]) -> str:
    """Returns a hash of masks and of their order."""
    return hashlib.sha256(repr(masks.shape).encode() + masks.tobytes()).hexdigest()
