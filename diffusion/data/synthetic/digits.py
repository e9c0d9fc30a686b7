"""The 8x8 handwritten digits of scikit-learn as a folder of images: real data without a download."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from diffusion.data.images.decoding import printable
from diffusion.data.images.scan import FolderError
from diffusion.files import expanded

CLASSES = tuple(map(str, range(10)))


def write_digits(folder: Path) -> Path:
    """Writes the 1,797 digits as gray PNG files into the subfolders 0, ..., 9, unless they are there already.

    The gray levels 0..16 of the data become 0..255. The folder appears complete or not at all; it is returned.

    Raises FolderError when the folder holds something else, or scikit-learn is missing.
    """
    folder = expanded(folder)
    if _complete(folder):
        return folder
    if folder.exists():
        raise FolderError(f"digits: {printable(folder)} exists and does not hold the digits; name another folder")
    images, labels = _load()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        for name in CLASSES:
            (unfinished / name).mkdir()
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(unfinished / str(label) / f"{i:04}.png")
        os.chmod(unfinished, 0o755)
        os.rename(unfinished, folder)
    except OSError:
        if not _complete(folder):  # Otherwise another process has written the same digits in the meantime.
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _complete(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in CLASSES)


def _load() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise FolderError("digits: they come with scikit-learn; install it: pip install scikit-learn") from error
    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target
