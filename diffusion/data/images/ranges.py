"""The range of values that becomes [0, 1], and what is to be said of the values of images under it.

One range holds for all images. Without one, black and white are those of the type of each file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffusion.data.images.bands import shown
from diffusion.data.images.depth import MEASURED, Depth, RangeOption, Values
from diffusion.data.images.pixel_format import PixelFormat, Range, levels_between
from diffusion.data.images.scan import FolderError

# The share of their range below which it is said that images use so little of it.
LITTLE = 0.25
# The bits of usual cameras and converters.
BITS = (8, 10, 12, 14, 16)


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


def lines(depth: Depth, pixel_format: PixelFormat, value_range: RangeOption, modes: Mapping[str, int]) -> list[str]:
    """Returns what is to be said of the values of images under a format, a line each; `modes` counts those of headers.

    Nothing is said of usual images, without a range: of 8 bits, or of 16 that lose nothing at 8, of which they use a
    good part.
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
    if deep.images and deep.white and not _fits(deep):
        whole = suggested(deep)
        todo = f"set data.range={shown(*whole)}{' to keep all of them' if whole[1] == deep.white else ''}"
        if depth.shallow.images:
            todo = f"move them to a folder of their own and {todo}, as others are of 8 bits, whose white is 255"
        said.append(
            f"depth     {deep.images:,} images of more than 8 bits: values {deep.low:,.9g} to {deep.high:,.9g} of "
            f"{deep.white:,.9g}: {deep.levels} of 256 levels remain; {todo}"
        )
    few = depth.shallow
    if few.images and _use_little(few):
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


def _use_little(values: Values) -> bool:
    return values.high - values.low < LITTLE * values.white


def _fits(values: Values) -> bool:
    """Whether images lose nothing at 8 bits, and use them."""
    return values.exact == values.images and not _use_little(values)


def _bands(modes: Mapping[str, int], pixel_format: PixelFormat) -> list[str]:
    """Lines about bands that are left out."""
    count = sum(number for mode, number in modes.items() if mode.startswith("RGB+1"))
    if not count or pixel_format.channels > 3:
        return []
    return [
        f"bands     {count:,} images hold a band beside their colors that is not alpha; data.channels="
        f"{pixel_format.channels} leaves it out, data.channels=4 trains it"
    ]


def channels_of(mode: str) -> int:
    """Returns the number of bands of a mode of a header, without alpha: 1 for gray, 3 for RGB, or any other."""
    if " x " in mode:
        return int(mode.split()[0])
    return 1 if mode in ("1", "L", "LA", "La", "LA;16") or mode.startswith(("I", "F")) else 3


def suggestion(modes: Mapping[str, int], depth: Depth | None) -> dict[str, Any]:
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
        ends = None if _fits(depth.deep) else suggested(depth.deep)
    elif depth.shallow.images and _use_little(depth.shallow):
        ends = depth.shallow.low, depth.shallow.high
    return {**keys, "range": list(ends)} if ends is not None and ends[0] < ends[1] else keys
