"""The files of numbered samples: an image each, or points by the batch, each written whole or not at all.

Which numbers there are is read off the folder, so that a command that was stopped goes on with those that are missing,
and several commands may fill one folder.
"""

from __future__ import annotations

import bisect
import heapq
import re
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.data import DataSpec, PixelFormat, decode
from diffusion.data.images.decoding import to_tensor
from diffusion.data.images.encoding import file_values, save_image
from diffusion.errors import InputError
from diffusion.files import TEMPORARY, replacing

# The samples of --npz, and the name of their array, as the evaluation of guided-diffusion reads them.
PACKED, ARRAY = "samples.npz", "arr_0"
# The seconds after which nobody writes to a temporary file any more.
ABANDONED = 3600
# The digits of a number in the name of a file, at least.
DIGITS = 5
POINTS = re.compile(r"points-(\d+)\.npy")


class SampleFiles(ABC):
    """The samples in a folder, by number."""

    @abstractmethod
    def __contains__(self, number: object) -> bool:
        """Whether the sample of a number is there."""

    @abstractmethod
    def numbers(self) -> Iterator[int]:
        """Yields the numbers that are there, in no order."""

    @abstractmethod
    def write(self, numbers: range, x: Tensor, info: Mapping[str, Any]) -> None:
        """Writes those samples of some numbers, x (B, *) in units, that are missing, with `info` in each image."""

    @abstractmethod
    def read(self, number: int) -> Tensor:
        """Reads a sample in units, (*)."""

    @abstractmethod
    def values(self, number: int) -> npt.NDArray[Any]:
        """Returns a sample in the values of files, (H, W, C) or (D,)."""

    def refresh(self) -> None:
        """Looks again at what is there, after other processes have written."""
        return

    def first(self, count: int) -> list[int]:
        """Returns the `count` least numbers that are there."""
        return heapq.nsmallest(count, self.numbers())


@dataclass(frozen=True)
class ImageFiles(SampleFiles):
    """Images, a file each: 00000.png, 00001.png, ... with numbers of at least `width` digits."""

    folder: Path
    spec: DataSpec
    kind: str = ".png"
    width: int = DIGITS

    def path(self, number: int) -> Path:
        """Returns the path of the image of a number."""
        return self.folder / f"{number:0{self.width}d}{self.kind}"

    def __contains__(self, number: object) -> bool:
        """Whether the file of a number is there."""
        return isinstance(number, int) and self.path(number).exists()

    def numbers(self) -> Iterator[int]:
        """Yields the numbers of the files that are there."""
        for path in self.folder.iterdir():
            if path.suffix == self.kind and path.stem.isdecimal() and path == self.path(int(path.stem)):
                yield int(path.stem)

    def write(self, numbers: range, x: Tensor, info: Mapping[str, Any]) -> None:
        """Writes the images whose files are missing."""
        for number, image in zip(numbers, x, strict=True):
            if number not in self:
                save_image(image, self.path(number), self.spec, {**info, "index": number})

    def read(self, number: int) -> Tensor:
        """Reads an image in units, (C, H, W)."""
        pixels = PixelFormat.of(self.spec)
        return to_tensor(decode(self.path(number), pixels), pixels)

    def values(self, number: int) -> npt.NDArray[Any]:
        """Returns an image in the values of files, (H, W, C)."""
        return file_values(self.read(number), self.spec)


@dataclass(frozen=True)
class PointFiles(SampleFiles):
    """Points, a file of rows (N, D) float32 for each batch, named by the number of its first: points-00000.npy."""

    folder: Path
    width: int = DIGITS
    _held: dict[int, int] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Lists the files that are there."""
        for path in self.folder.iterdir():
            if found := POINTS.fullmatch(path.name):
                self._hold(int(found[1]), len(np.load(path, mmap_mode="r", allow_pickle=False)))

    def __contains__(self, number: object) -> bool:
        """Whether the point of a number is there."""
        return isinstance(number, int) and self._start(number) is not None

    def numbers(self) -> Iterator[int]:
        """Yields the numbers of the points that are there."""
        for start, count in self._held.items():
            yield from range(start, start + count)

    def write(self, numbers: range, x: Tensor, info: Mapping[str, Any]) -> None:
        """Writes each run of missing points to a file of its own."""
        missing = {number for number in numbers if number not in self}
        for start in sorted(number for number in missing if number - 1 not in missing):
            stop = next(number for number in range(start, numbers.stop + 1) if number not in missing)
            path = self.folder / f"points-{start:0{self.width}d}.npy"
            rows = x[start - numbers.start : stop - numbers.start].numpy()
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
            self._hold(start, stop - start)

    def read(self, number: int) -> Tensor:
        """Reads a point, (D,)."""
        return torch.from_numpy(self.values(number))

    def values(self, number: int) -> npt.NDArray[Any]:
        """Returns a point, (D,)."""
        start = self._start(number)
        assert start is not None
        rows = np.load(self.folder / f"points-{start:0{self.width}d}.npy", mmap_mode="r", allow_pickle=False)
        return np.array(rows[number - start])

    def _hold(self, start: int, count: int) -> None:
        if start not in self._held:
            bisect.insort(self._starts, start)
        self._held[start] = count

    def _start(self, number: int) -> int | None:
        """The first number of the file that has a number."""
        place = bisect.bisect_right(self._starts, number) - 1
        if place < 0:
            return None
        start = self._starts[place]
        return start if number < start + self._held[start] else None


def files_in(folder: Path, spec: DataSpec, kind: str, width: int) -> SampleFiles:
    """Returns the samples in a folder: images in files that end with `kind`, or points."""
    return ImageFiles(folder, spec, kind, width) if spec.is_image else PointFiles(folder, width)


def pack(files: SampleFiles, numbers: range, path: Path) -> None:
    """Writes samples into one .npz file, as its array "arr_0", (N, H, W, C) or (N, D) in the values of files.

    One sample is held at a time.
    """
    example = files.values(numbers.start)
    header = {"descr": example.dtype.str, "fortran_order": False, "shape": (len(numbers), *example.shape)}
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open(f"{ARRAY}.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for number in numbers:
            file.write(np.ascontiguousarray(files.values(number)).tobytes())


def foreign(folder: Path) -> str | None:
    """Returns the name of a file in a folder, None if it is empty or not there; hidden files do not count.

    Raises InputError for a path that is a file.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"--out: {folder} is a file; name a folder")
    return min((path.name for path in folder.iterdir() if not path.name.startswith(".")), default=None)


def sweep(folder: Path) -> None:
    """Removes what a process that was killed left half written an hour ago or earlier."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
