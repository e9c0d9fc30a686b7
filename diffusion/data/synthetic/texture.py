"""Random crops of a few photographs, cut when they are indexed: a texture to train on, with a hole to fill later."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import Dataset
from diffusion.data.generated import Generated
from diffusion.data.hashing import hashed, uniform
from diffusion.data.images import depth, ranges
from diffusion.data.images.decoding import (
    RGB,
    SUFFIXES,
    BinaryFile,
    ImageError,
    PixelFormat,
    Pixels,
    decode,
    printable,
    read_bands,
    read_header,
)
from diffusion.data.images.depth import RangeOption
from diffusion.data.images.scan import FolderError, scan
from diffusion.data.names import Numbered
from diffusion.data.spec import DataSpec
from diffusion.errors import require
from diffusion.files import expanded
from diffusion.randomness import example_seed


@dataclass(frozen=True)
class Places:
    """The places, numbered 0, 1, ..., of crops (h, w) in an image (H, W) that do not touch the hole.

    The hole is the square of side `hole` in the center of the image. Sizes are in pixels.
    """

    image: tuple[int, int]
    crop: tuple[int, int]
    hole: int = 0

    @property
    def blocked(self) -> list[tuple[int, int]]:
        """The ranges [from, to) of first rows and of first columns; a crop in both ranges touches the hole."""
        spans = []
        for side, cut in zip(self.image, self.crop, strict=True):
            low = (side - self.hole) // 2
            spans.append((max(0, low - cut + 1), min(side - cut + 1, low + self.hole)))
        return spans if self.hole else [(0, 0), (0, 0)]

    @property
    def sides(self) -> tuple[int, int]:
        """The numbers of first rows and of first columns at which a crop fits into the image."""
        height, width = (max(0, side - cut + 1) for side, cut in zip(self.image, self.crop, strict=True))
        return height, width

    @property
    def count(self) -> int:
        """The number of places."""
        (top, bottom), (left, right) = self.blocked
        height, width = self.sides
        return max(0, height * width - (bottom - top) * (right - left))

    def __call__(self, number: int) -> tuple[int, int]:
        """Returns the first row and column of a place; places in the rows of the hole come after all others."""
        (top, bottom), (left, right) = self.blocked
        height, width = self.sides
        free = (height - (bottom - top)) * width
        if number < free:
            row, column = divmod(number, width)
            return row + (bottom - top if row >= top else 0), column
        row, column = divmod(number - free, width - (right - left))
        return top + row, column + (right - left if column >= left else 0)


@dataclass(frozen=True)
class Crops(Generated):
    """`count` crops (C, h, w) of photographs (C, H, W), each a function of the seed and its number.

    All places of all photographs are equally likely.
    """

    photographs: tuple[Pixels, ...]
    places: tuple[Places, ...]
    count: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (count, C, h, w) of an array of all crops."""
        return self.count, len(self.photographs[0]), *self.places[0].crop

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """The end of the places of each photograph when those of all are numbered consecutively."""
        return np.cumsum([place.count for place in self.places])

    def _choose(self, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Returns the photograph of each crop, and its place in it: (B,) -> (B,), (B,)."""
        keys = np.array([example_seed(self.seed, number) for number in numbers.tolist()], np.uint64)
        place = (uniform(keys, np.zeros(len(keys), np.int64)) * self._ends[-1]).astype(np.int64)
        chosen = np.searchsorted(self._ends, place, side="right")
        return chosen, place - np.concatenate([[0], self._ends])[chosen]

    def contents(self) -> npt.NDArray[np.uint64]:
        """Returns a hash of the photograph of each crop, so that its crops are held out together or not at all."""
        return hashed(self._choose(np.arange(self.count))[0].astype(np.uint64))

    def make(self, numbers: npt.NDArray[np.int64]) -> Pixels:
        """Cuts the crops with the given numbers: (B, C, h, w)."""
        height, width = self.places[0].crop
        crops = np.empty((len(numbers), *self.shape[1:]), self.photographs[0].dtype)
        for crop, chosen, place in zip(crops, *self._choose(numbers), strict=True):
            row, column = self.places[chosen](int(place))
            crop[:] = self.photographs[chosen][:, row : row + height, column : column + width]
        return crops


def texture(
    path: str | os.PathLike[str],
    n: int,
    seed: int,
    *,
    size: tuple[int, int],
    pixel_format: PixelFormat = RGB,
    value_range: RangeOption = None,
    hole: int = 0,
    log: Callable[[str], None] = print,
) -> Dataset:
    """Returns n random crops of the image file, or of the images of the folder, at a path.

    No crop touches the square of side `hole` in the center of its image. Crops of the same image are never both trained
    on and held out. The log names the images that are left out.

    Raises ImageError for a file that cannot be decoded, and FolderError when no image has a place for a crop.
    """
    require(n >= 1, "data.count", "at least 1", n)
    require(hole >= 0, "data.hole", "0 or more", hole)
    images, places = [], []
    if pixel_format.value_range is None and pixel_format.levels == RGB.levels:
        pixel_format = _ranged(path, pixel_format, value_range, log)
    for name, pixels in _images(path, pixel_format, log):
        place = Places(pixels.shape[:2], size, hole)
        if place.count:
            images.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
            places.append(place)
        else:
            log(f"left out  {name}: no place for a crop in {pixels.shape[1]}x{pixels.shape[0]} pixels")
    if not images:
        beside = f" beside a hole of {hole}" if hole else ""
        raise FolderError(
            f"data.size: no image at {printable(path)} has room for a crop of {size[1]}x{size[0]}{beside}; "
            "make data.size or data.hole smaller"
        )
    crops = Crops(tuple(images), tuple(places), n, seed)
    spec = DataSpec((pixel_format.channels, *size), levels=pixel_format.levels, value_range=pixel_format.value_range)
    return Dataset(crops, spec, None, Numbered("crop", n), contents=crops.contents())


def _ranged(
    path: str | os.PathLike[str], pixel_format: PixelFormat, value_range: RangeOption, log: Callable[[str], None]
) -> PixelFormat:
    """Returns the format with the range of the images at a path, and logs what is to be said of it."""
    results, modes = [], Counter[str]()
    ends = value_range if isinstance(value_range, tuple) else None
    for name, opened in _streams(path):
        with suppress(ImageError), opened() as stream:
            mode = read_header(name, stream).mode
            modes[mode] += 1
            if value_range is not None or depth.is_deep(mode):
                stream.seek(0)
                results.append(depth.values_of(read_bands(name, stream), ends))
    found = depth.together(results)
    chosen = ranges.resolve(pixel_format, value_range, found, 0)
    for line in ranges.lines(found, chosen, value_range, modes):
        log(line)
    return chosen


def _images(
    path: str | os.PathLike[str], pixel_format: PixelFormat, log: Callable[[str], None]
) -> Iterator[tuple[str, Pixels]]:
    """Yields the name and the pixels (H, W, C) of every image that can be decoded at a path.

    Raises ImageError where the path is a file that cannot be decoded.
    """
    path = expanded(path)
    alone = path.is_file() and path.suffix.lower() in SUFFIXES
    for name, opened in _streams(path):
        try:
            with opened() as stream:
                pixels = decode(name, pixel_format, stream)
        except ImageError as error:
            if alone:
                raise
            log(f"left out  {error}")
        else:
            yield printable(name), pixels


def _streams(path: str | os.PathLike[str]) -> Iterator[tuple[str, Callable[[], BinaryFile]]]:
    """Yields the name of every image at a path, a file or a container, and a function that opens it."""
    if (file := expanded(path)).is_file() and file.suffix.lower() in SUFFIXES:
        yield os.fspath(file), lambda: file.open("rb")
        return
    found = scan(path, labels=False, progress=False)
    for entry in found.entries:
        name = os.path.join(found.container.name, entry.path)
        yield name, partial(found.container.open, entry.path, entry.offset, entry.size)
