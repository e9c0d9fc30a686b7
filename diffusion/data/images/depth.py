"""The values that the images of a container hold, the range that becomes [0, 1], and what is to be said of both.

A camera of 12 bits writes files of 16, and a microscope may use a hundredth of its range. Such images are black at 8
bits, so the values of a folder are measured and said. One range holds for all images.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.data.images import facts, uses
from diffusion.data.images.bands import Bands, shown
from diffusion.data.images.container import Container
from diffusion.data.images.decoding import ImageError, read_frames
from diffusion.data.images.formats import READERS
from diffusion.data.images.index import Entry
from diffusion.data.images.pages import runs
from diffusion.data.images.parallel import in_order
from diffusion.data.images.pixel_format import PixelFormat, Range, levels_between
from diffusion.data.images.scan import FolderError, Scan

MEASURED: Literal["measured"] = "measured"
RangeOption: TypeAlias = Literal["measured"] | Range | None

# The version of the measurement. It is to be raised when the code changes such that the same files give other numbers.
LAYOUT = 2
# The first part of the names of entries with the values of images.
VALUES = "values"
# The most images of 8 bits that are looked at, and the share of their range below which using so little is said.
LOOKED, LITTLE = 32, 0.25
# The bits of usual cameras and converters.
BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Values:
    """The values of images: how many `images` there are, and the `low`est and `high`est value in them.

    `white` is the largest white of their types, `unknown` the number of images whose type tells no white, as signed and
    floating-point ones do not. `outside` is the share of values outside a range.
    """

    images: int = 0
    low: float = 0.0
    high: float = 0.0
    white: float = 0.0
    unknown: int = 0
    outside: float = 0.0

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


def is_floating(mode: str) -> bool:
    """Whether a mode of a header stands for floating-point values."""
    return mode == "F" or " x float" in mode


def measure(
    found: Scan, cache: Path, value_range: RangeOption = None, *, looked: int | None = LOOKED, progress: bool = True
) -> Depth:
    """Measures the values of the images of a scan, in one pass, or reads them from the cache.

    All images of more than 8 bits are read, and `looked` others, evenly spaced; all of them for None or with a
    `value_range`. Files that cannot be read are left to the packing.
    """
    modes = found.entries.content["modes"]
    deep = np.array([is_deep(mode) for mode in modes], bool)[found.entries.rows["mode"]]
    others = np.flatnonzero(~deep)
    if value_range is None and looked is not None and len(others) > looked:
        others = others[np.linspace(0, len(others) - 1, looked).round().astype(np.int64)]
    numbers = np.union1d(np.flatnonzero(deep), others)
    ends = value_range if isinstance(value_range, tuple) else None
    settings = json.dumps([LAYOUT, READERS, ends, value_range is None])
    family = f"{VALUES}-{hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()}"
    identity = f"{found.entries.content['identity']} {len(numbers)}"
    entry = cache / f"{family}-{hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()}"
    digests = np.ascontiguousarray(found.entries.rows["digest"][numbers])
    rows = facts.known(cache, family, digests, WIDTH)
    missing = np.flatnonzero(np.isnan(rows[:, 0]))
    items = (found.entries[int(number)] for number in numbers[missing])
    reading = partial(_values, found.container, ends)
    shown = progress and bool(len(missing))
    files = in_order(reading, runs(items, 1), None, title="measuring values", progress=shown)
    for place, row in zip(missing, chain.from_iterable(files), strict=True):
        rows[place] = row
    if len(missing) or not entry.exists():
        facts.publish(entry, digests, rows)
    uses.note(entry, found.container.root)
    return Depth(*(_together(rows[rows[:, 0] == kind]) for kind in range(3)))


def _values(container: Container, ends: Range | None, pages: list[Entry]) -> list[tuple[float, ...]]:
    """Returns for each image of one file its kind, 0 to 2 in the order of `Depth`, and its values.

    The kind is -1 for an image that cannot be read, and NaN if another attempt may read it.
    """
    first, found = pages[0], []
    kind = -1.0
    try:
        with container.open(first.path, first.offset, first.size) as file:
            for bands in read_frames(first.path, file, [page.frame for page in pages]):
                number, values = values_of(bands, ends)
                found.append((float(number), *astuple(values)))
    except ImageError as error:
        kind = math.nan if error.transient else kind
    return found + [(kind,) * WIDTH] * (len(pages) - len(found))


def values_of(bands: Bands, ends: Range | None) -> tuple[int, Values]:
    """Returns the kind of an image, 0 to 2 in the order of `Depth`, and its values; `ends` are those of a range."""
    colors, full = bands.colors, bands.full
    low, high = bands.ends
    outside = 0.0 if ends is None else float(((colors < ends[0]) | (colors > ends[1])).mean())
    white = full[1] if full else 0.0
    kind = 2 if colors.dtype.kind == "f" else 0 if 0 < white <= 255 else 1
    return kind, Values(1, float(low), float(high), white, int(full is None), outside)


def together(results: Iterable[tuple[int, Values]]) -> Depth:
    """Returns the values of all images from the kind and the values of each."""
    rows = np.array([(kind, *astuple(values)) for kind, values in results]).reshape(-1, WIDTH)
    return Depth(*(_together(rows[rows[:, 0] == kind]) for kind in range(3)))


def _together(rows: npt.NDArray[np.float64]) -> Values:
    """Returns the values of all images of one kind from the kind and the values of each, (N, WIDTH)."""
    if not len(rows):
        return Values()
    _, images, low, high, white, unknown, outside = rows.T
    return Values(int(images.sum()), low.min(), high.max(), white.max(), int(unknown.sum()), outside.mean())


def resolve(pixel_format: PixelFormat, value_range: RangeOption, depth: Depth, allowed: int) -> PixelFormat:
    """Returns the format with the range and the levels that suit the images.

    The levels are the whole numbers of the range; data are continuous where the images hold floating-point values, or
    the range has other ends or more than 65,536 numbers.

    Raises FolderError where more images than `allowed` need a range and there is none, and where a range is to be
    measured of values that are all the same.
    """
    if value_range is None:
        unknown = depth.deep.unknown + depth.floating.unknown
        if unknown > allowed:
            low, high = replace(depth, shallow=Values()).ends
            kinds = "floating-point" if depth.floating.images else "signed or large"
            raise FolderError(
                f"data.range: {unknown:,} images hold {kinds} values, from {low:.9g} to {high:.9g}, of which none is "
                f"known to be black or white; set data.range={shown(low, high)}"
            )
        return pixel_format
    ends = depth.ends if value_range == MEASURED else value_range
    if ends[0] == ends[1]:
        raise FolderError(f"data.range: every value of the images is {ends[0]:g}; there is no range to measure")
    levels = None if depth.floating.images else levels_between(ends)
    return replace(pixel_format, value_range=ends, levels=levels)


def suggested(values: Values) -> Range:
    """Returns the range of a usual number of bits that holds the values, or for others their own."""
    bits = next((n for n in BITS if values.high < 2**n), None)
    return (values.low, values.high) if values.low < 0 or bits is None else (0, 2**bits - 1)


def lines(depth: Depth, pixel_format: PixelFormat, value_range: RangeOption, modes: dict[str, int]) -> list[str]:
    """Returns what is to be said of the values of images under a format, a line each; `modes` counts those of headers.

    Nothing is said of usual images: of 8 bits, without a range, of which they use a good part.
    """
    said = _bands(modes, pixel_format)
    if pixel_format.value_range is None:
        return [*_without(depth), *said]
    low, high = pixel_format.value_range
    said.insert(0, stated(pixel_format, ", measured" if value_range == MEASURED else ""))
    used = depth.ends
    if used[1] - used[0] < LITTLE * (high - low):
        said.append(f"range     the images use {used[0]:,.9g} to {used[1]:,.9g} of it alone")
    images = sum(part.images for part in depth.parts)
    outside = sum(part.images * part.outside for part in depth.parts) / max(1, images)
    if outside:
        then = "are clipped" if pixel_format.levels else "lie beyond 0 and 1"
        said.append(
            f"range     {outside:.2%} of the values, which reach from {used[0]:,.9g} to {used[1]:,.9g}, are outside of "
            f"it and {then}"
        )
    if sum(part.images > 0 for part in depth.parts) > 1 or len(_whites(depth)) > 1:
        counts = [f"{part.images:,} of {name}" for name, part in _named(depth) if part.images]
        said.append(f"range     MIXED depths share it: {', '.join(counts)}; white of one may be black of another")
    return said


def stated(pixel_format: PixelFormat, origin: str = "") -> str:
    """Returns the line about the range and the levels of a format that has a range."""
    assert pixel_format.value_range is not None
    low, high = pixel_format.value_range
    levels = "continuous values" if pixel_format.levels is None else f"{pixel_format.levels:,} gray levels"
    return f"range     {low:,.9g} to {high:,.9g}{origin}: {levels}, the unit of likelihoods"


def _named(depth: Depth) -> list[tuple[str, Values]]:
    return list(zip(("at most 8 bits", "more bits", "floating point"), depth.parts, strict=True))


def _whites(depth: Depth) -> set[float]:
    return {part.white for part in depth.parts if part.images}


def _without(depth: Depth) -> list[str]:
    """Lines about images without a range."""
    said = []
    deep = depth.deep
    if deep.images and deep.white:
        whole = suggested(deep)
        said.append(
            f"depth     {deep.images:,} images of more than 8 bits: values {deep.low:,.9g} to {deep.high:,.9g} of "
            f"{deep.white:,.9g}: {deep.levels} of 256 levels remain; set data.range={shown(*whole)} "
            f"{'to keep all of them' if whole[1] == deep.white else ''}".rstrip()
        )
    few = depth.shallow
    if few.images and few.high - few.low < LITTLE * few.white:
        low, high = (few.low, few.high) if few.low < few.high else (few.low, few.low + 1)
        said.append(
            f"depth     {few.images:,} images of at most 8 bits, looked at: values {few.low:,.9g} to {few.high:,.9g} "
            f"of {few.white:,.9g}, {few.levels} of 256 levels; set data.range={shown(low, high)} to use the whole range"
        )
    unknown = depth.deep.unknown + depth.floating.unknown
    if unknown:
        low, high = replace(depth, shallow=Values()).ends
        said.append(
            f"depth     {unknown:,} images of values without a known range, {low:,.9g} to {high:,.9g}, cannot be used; "
            f"set data.range={shown(low, high)}"
        )
    return said


def _bands(modes: dict[str, int], pixel_format: PixelFormat) -> list[str]:
    """Lines about bands that are left out."""
    count = sum(number for mode, number in modes.items() if mode.startswith("RGB+1"))
    if not count or pixel_format.channels > 3:
        return []
    return [
        f"bands     {count:,} images hold a band beside their colors that is not alpha; data.channels="
        f"{pixel_format.channels} leaves it out, data.channels=4 trains it"
    ]


def modes_of(found: Scan) -> dict[str, int]:
    """Returns the number of images by the mode of their header."""
    names = found.entries.content["modes"]
    counts = np.bincount(found.entries.rows["mode"], minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def channels_of(mode: str) -> int:
    """Returns the number of bands of a mode of a header, without alpha: 1 for gray, 3 for RGB, or any other."""
    if " x " in mode:
        return int(mode.split()[0])
    return 1 if mode in ("1", "L", "LA", "La", "LA;16") or mode.startswith(("I", "F")) else 3


def suggestion(modes: dict[str, int], depth: Depth | None) -> dict[str, Any]:
    """Returns keys of [data] that suit images, by their modes and their values if they were measured.

    These are the `channels`, and a `range` where the values need one or would lose levels without it.
    """
    counts = {channels_of(mode) for mode, number in modes.items() if number} or {3}
    keys: dict[str, Any] = {"channels": counts.pop() if len(counts) == 1 else 3}
    if depth is None:
        return keys
    unknown = depth.deep.unknown + depth.floating.unknown
    ends: Range | None = None
    if unknown:
        ends = replace(depth, shallow=Values()).ends
    elif depth.deep.images > depth.shallow.images:
        ends = suggested(depth.deep)
    elif depth.shallow.images and depth.shallow.high - depth.shallow.low < LITTLE * depth.shallow.white:
        ends = depth.shallow.low, depth.shallow.high
    return {**keys, "range": list(ends)} if ends is not None and ends[0] < ends[1] else keys
