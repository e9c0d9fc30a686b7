"""CIFAR-10 in memory, from a folder that holds its binary version, or a zip of it as image files.

The binary version is data_batch_1.bin to data_batch_5.bin and test_batch.bin, at any depth, whose rows have a label and
three planes of 32 x 32 bytes. A zip has images of any kind as train/CLASS/NUMBER.png and test/CLASS/NUMBER.png, which
are read in the order of their numbers. The version for Python is a pickle, which runs whatever code it holds, so it is
not read.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from benchmarks.judge import Images
from diffusion.data import PixelFormat, decode
from diffusion.data.images.decoding import SUFFIXES
from diffusion.errors import InputError

SHAPE = 3, 32, 32
FILES = {"train": "data_batch_?.bin", "test": "test_batch.bin"}


def read(data: Path, part: str) -> Images:
    """Reads the part "train" or "test", (N, 3, 32, 32). Classes are numbered as in the binary version, or by the order
    of their names.

    Raises InputError for a folder that holds neither kind of file.
    """
    if binary := sorted(data.rglob(FILES[part])):
        rows = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 1 + int(np.prod(SHAPE))) for path in binary])
        return Images(torch.from_numpy(rows[:, 1:].reshape(-1, *SHAPE)), torch.from_numpy(rows[:, 0]).long())
    if zipped := sorted(data.glob("*.zip")):
        return unzip(zipped[0], part)
    raise InputError(f"--data: must hold {FILES[part]} or a zip of images of CIFAR-10, got {data}")


def unzip(path: Path, part: str) -> Images:
    """Reads the images of a part of a zip. Raises InputError if it has none."""
    with zipfile.ZipFile(path) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
        found = [name for name in names if name.parts[0] == part and name.suffix.lower() in SUFFIXES]
        if not found:
            raise InputError(f"--data: must hold images in {part}/CLASS, got {path}")
        classes = sorted({name.parts[-2] for name in found})
        found.sort(key=lambda name: int(name.stem))
        values = np.empty((len(found), *SHAPE), np.uint8)
        for value, name in zip(values, found, strict=True):
            pixels = decode(str(name), PixelFormat(), io.BytesIO(archive.read(str(name))))
            value[:] = pixels.transpose(2, 0, 1)
    label = torch.tensor([classes.index(name.parts[-2]) for name in found])
    return Images(torch.from_numpy(values), label)
