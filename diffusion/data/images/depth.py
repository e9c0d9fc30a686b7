"""Measures the values that the images of a container hold.

A camera of 12 bits writes files of 16, and a microscope may use a hundredth of its range. Such images are black at 8
bits. The values of an image are kept in the cache by the bytes of its file, so that each file is measured once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.data.images import facts, uses
from diffusion.data.images.bands import Bands
from diffusion.data.images.container import Container
from diffusion.data.images.decoding import ImageError, made_of_frames
from diffusion.data.images.formats import READERS
from diffusion.data.images.index import Entry
from diffusion.data.images.masking import VERSION, Masking
from diffusion.data.images.pages import runs
from diffusion.data.images.parallel import in_order
from diffusion.data.images.pixel_format import Range
from diffusion.data.images.scan import Scan
from diffusion.data.images.source import Source

MEASURED: Literal["measured"] = "measured"
RangeOption: TypeAlias = Literal["measured"] | Range | None

# The version of the measurement. It is to be raised when the code changes such that the same files give other numbers.
LAYOUT = 3
# The first part of the names of entries with the values of images.
VALUES = "values"
# The most images of 8 bits that are looked at.
LOOKED = 32


@dataclass(frozen=True)
class Values:
    """The values of images: how many `images` there are, and the `low`est and `high`est value in them.

    `white` is the largest white of their types, `unknown` the number of images whose type tells no white, as signed and
    floating-point ones do not. `outside` is the share of values outside a range. `exact` is the number of images none
    of whose values is rounded at 8 bits.
    """

    images: int = 0
    low: float = 0.0
    high: float = 0.0
    white: float = 0.0
    unknown: int = 0
    outside: float = 0.0
    exact: int = 0

    @property
    def levels(self) -> int:
        """The number of 256 levels that remain of the values at 8 bits."""
        return round(self.high * 255 / self.white) - round(self.low * 255 / self.white) + 1


# The numbers that are kept of an image: its kind and the fields of its values.
WIDTH = 1 + len(fields(Values))


@dataclass(frozen=True)
class Depth:
    """The values of the images of a container: `shallow` of at most 8 bits, `deep` of more, `floating`-point ones."""

    shallow: Values = Values()
    deep: Values = Values()
    floating: Values = Values()

    @property
    def ends(self) -> Range:
        """The lowest and the highest value of all images."""
        found = [part for part in self.parts if part.images]
        return min((part.low for part in found), default=0.0), max((part.high for part in found), default=0.0)

    @property
    def parts(self) -> tuple[Values, Values, Values]:
        """The values by kind."""
        return self.shallow, self.deep, self.floating


def is_deep(mode: str) -> bool:
    """Whether a mode of a header stands for values of more than 8 bits, or of signed or floating-point types."""
    return (
        mode.startswith(("I", "F"))
        or mode.endswith(";16")
        or (" x " in mode and not mode.endswith((" uint8", " bool")))
    )


def measure(
    found: Scan, cache: Path, value_range: RangeOption = None, *, looked: int | None = LOOKED, progress: bool = True
) -> Depth:
    """Measures the values of the images of a scan, in one pass, or reads them from the cache.

    All images of more than 8 bits are read, and `looked` others, evenly spaced; all of them for None or with a
    `value_range`. Pixels that nobody has seen do not count. Files that cannot be read are left to the packing.
    """
    modes = found.entries.content["modes"]
    deep = np.array([is_deep(mode) for mode in modes], bool)[found.entries.rows["mode"]]
    others = np.flatnonzero(~deep)
    if value_range is None and looked is not None and len(others) > looked:
        others = others[np.linspace(0, len(others) - 1, looked).round().astype(np.int64)]
    numbers = np.union1d(np.flatnonzero(deep), others)
    ends = value_range if isinstance(value_range, tuple) else None
    masks = (found.masking.key, VERSION) if found.masking else ()
    settings = json.dumps([LAYOUT, READERS, ends, value_range is None, *masks])
    family = f"{VALUES}-{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}"
    identity = f"{found.entries.content['identity']} {len(numbers)}"
    entry = cache / f"{family}-{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}"
    digests = np.ascontiguousarray(found.entries.rows["digest"][numbers])
    rows = facts.known(cache, family, digests, WIDTH)
    missing = np.flatnonzero(np.isnan(rows[:, 0]))
    items = (found.entries[int(number)] for number in numbers[missing])
    reading = partial(_values, found.container, ends, found.masking)
    shown = progress and bool(len(missing))
    files = in_order(reading, runs(items, 1), None, title="measuring values", progress=shown)
    for place, row in zip(missing, chain.from_iterable(files), strict=True):
        rows[place] = row
    if len(missing) or not entry.exists():
        facts.publish(entry, digests, rows)
    uses.note(entry, found.container.root)
    return _by_kind(rows)


def _values(
    container: Container, ends: Range | None, masking: Masking | None, pages: list[Entry]
) -> list[tuple[float, ...]]:
    """Returns for each image of one file its kind, 0 to 2 in the order of `Depth`, and its values.

    The kind is -1 for an image that cannot be read, and NaN if another attempt may read it.
    """
    first, path = pages[0], str(pages[0].path)

    def measured(source: Source, frame: int) -> tuple[float, ...]:
        bands = source.bands(frame) if masking is None else masking.only_seen(source, frame, path)
        kind, values = values_of(bands, ends)
        return float(kind), *astuple(values)

    def failed(error: ImageError) -> tuple[float, ...]:
        return (math.nan if error.transient else -1.0,) * WIDTH

    try:
        with container.open(first.path, first.offset, first.size) as file:
            found = [*made_of_frames(first.path, file, [page.frame for page in pages], measured)]
    except ImageError as error:
        return [failed(error)] * len(pages)
    return [failed(each) if isinstance(each, ImageError) else each for each in found]


def values_of(bands: Bands, ends: Range | None) -> tuple[int, Values]:
    """Returns the kind of an image, 0 to 2 in the order of `Depth`, and its values; `ends` are those of a range."""
    colors, full = bands.colors, bands.full
    low, high = bands.ends
    outside = 0.0 if ends is None else float(((colors < ends[0]) | (colors > ends[1])).mean())
    white = full[1] if full else 0.0
    kind = 2 if colors.dtype.kind == "f" else 0 if 0 < white <= 255 else 1
    return kind, Values(1, float(low), float(high), white, int(full is None), outside, int(_exact(colors, white)))


def _exact(colors: npt.NDArray[Any], white: float) -> bool:
    """Whether every value becomes a whole number where white becomes 255, as those of 8 bits in files of 16 do."""
    if not white or colors.dtype.kind not in "bu":
        return False
    # Most images of 16 bits fail in their first row.
    return white == 255 or not any((row * np.uint64(255) % np.uint64(white)).any() for row in colors)


def together(results: Iterable[tuple[int, Values]]) -> Depth:
    """Returns the values of all images from the kind and the values of each."""
    return _by_kind(np.array([(kind, *astuple(values)) for kind, values in results]).reshape(-1, WIDTH))


def _by_kind(rows: npt.NDArray[np.float64]) -> Depth:
    """Returns the values of all images from the kind and the values of each, (N, WIDTH)."""
    return Depth(*(_together(rows[rows[:, 0] == kind]) for kind in range(3)))


def _together(rows: npt.NDArray[np.float64]) -> Values:
    """Returns the values of all images of one kind from the kind and the values of each, (N, WIDTH)."""
    if not len(rows):
        return Values()
    _, images, low, high, white, unknown, outside, exact = rows.T
    counts = int(images.sum()), int(unknown.sum()), int(exact.sum())
    return Values(counts[0], low.min(), high.max(), white.max(), counts[1], outside.mean(), counts[2])
