"""What `diffusion inspect` says of the clocks of images or of a run: what is decided at which noise."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from diffusion.config import Config
from diffusion.data import Dataset, DataSpec, Scan
from diffusion.data.dataset import standardized
from diffusion.data.images import cache as packed
from diffusion.data.images import ranges
from diffusion.data.images.decoding import ImageError, decode_frames_at
from diffusion.data.images.depth import Depth
from diffusion.data.images.index import Entry
from diffusion.data.images.parallel import in_order
from diffusion.data.images.pixel_format import PixelFormat, Pixels
from diffusion.errors import InputError
from diffusion.model.clocks import EXAMPLES, VALUES, ClassPair, Clocks, measure

# The most images that are compared where they need not be decoded.
PACKED = 8192
# The gap between speciation and collapse, in units of log-SNR, from which on it is called wide.
WIDE = 3.0
# The most times as many examples of which it is said that more are needed.
BEYOND = 1e6
INDENT = " " * 10


def of_images(found: Scan, experiment: Config, depth: Depth | None, cache: Path) -> list[str]:
    """Lines about the clocks of the images of a scan, at the size of an experiment; why there are none, if so.

    Images are taken from the cache where they lie packed as the experiment would have them. Else some are decoded.
    """
    try:
        examples = sampled(found, experiment, depth, cache)
        return lines(measure(examples, count=len(found.entries), limit=PACKED))
    except InputError as error:
        return [f"clocks    none: {error}"]


def sampled(found: Scan, experiment: Config, depth: Depth | None, cache: Path) -> Dataset:
    """Returns evenly spaced images of a scan at the size of an experiment, or all of them where they lie packed.

    Raises InputError where images have masks, where their values have no known range, and where none can be decoded.
    """
    data = experiment.data
    if found.masking is not None:
        raise InputError("they are not known of images with masks")
    pixel_format, (height, width) = data.pixel_format, data.shape
    if depth is not None:
        pixel_format = ranges.resolve(pixel_format, data.range, depth, 0)
    ends = pixel_format.value_range
    spec = DataSpec((data.channels, height, width), pixel_format.levels, found.classes, value_range=ends)
    size = height + 2 * data.margin, width + 2 * data.margin
    if (cache / f"{packed.family(size, pixel_format)}-{found.entries.content['identity']}").is_dir():
        there = packed.pack(found, size=size, pixel_format=pixel_format, cache=cache, progress=False)
        return standardized(Dataset(there.values, spec, there.labels, there.names, data.margin))
    numbers, values = decoded(found, pixel_format, size, max(3, min(EXAMPLES, VALUES // spec.dim)))
    labels = found.entries.rows["group"][numbers].astype(np.int64) if found.classes else None
    names = [str(found.entries.names[number]) for number in numbers]
    return standardized(Dataset(values, spec, labels, names, data.margin))


def decoded(found: Scan, pixel_format: PixelFormat, size: tuple[int, int], limit: int) -> tuple[list[int], Pixels]:
    """Decodes at most `limit` evenly spaced images of a scan at a size (h, w), and returns their numbers and values.

    Those that cannot be decoded are passed over. Raises InputError where none can be.
    """
    numbers = np.linspace(0, len(found.entries) - 1, min(limit, len(found.entries))).round().astype(int).tolist()
    make = partial(_decoded, found, pixel_format, size)
    entries = (found.entries[number] for number in numbers)
    each = in_order(make, entries, len(numbers), title="decoding some at this size", progress=True)
    kept = {number: pixels for number, pixels in zip(numbers, each, strict=True) if pixels is not None}
    if not kept:
        raise InputError("no image can be decoded")
    return list(kept), np.stack(list(kept.values()))


def _decoded(found: Scan, pixel_format: PixelFormat, size: tuple[int, int], entry: Entry) -> Pixels | None:
    try:
        with found.container.open(entry.path, entry.offset, entry.size) as file:
            (pixels,) = decode_frames_at(entry.path, pixel_format, size, file, [entry.frame])
    except ImageError:
        return None
    return None if isinstance(pixels, ImageError) else pixels.transpose(2, 0, 1)


def lines(found: Clocks) -> list[str]:
    """Lines about clocks: where each is, what it means for these examples, and how many would move it."""
    image = len(found.shape) == 3
    what, unit = ("images", "in gray levels of 255") if image else ("points", "in units of the data")
    size = f" at {found.shape[2]}x{found.shape[1]}" if image else ""
    part = f", measured on {found.measured:,}" if found.measured < found.count else ""
    return [
        f"clocks    the log-SNRs, and the noise σ {unit}, at which is decided, from noise to {what[:-1]},",
        f"{INDENT}what becomes of {found.count:,} {what}{size}{part}",
        *(INDENT + line for line in (*_levels(found, what), *_each(found, what), *_meaning(found, what))),
    ]


def _levels(found: Clocks, what: str) -> list[str]:
    rest = ", ".join(number(level) for level in found.speciation[1:])
    axes = f"the gross structure: the first principal axis{'; the next ones at ' * bool(rest)}{rest}"
    said = [_row("speciation", found, found.speciation[0], axes)]
    if found.classes is not None:
        said.append(_row("classes", found, found.classes, "the direction that tells them apart best"))
    if found.first is not None and found.last is not None and found.first.names != found.last.names:
        said.append(
            f"{'':12s}of the pairs, first {_pair(replace(found.first, decided=None))}, last {_pair(found.last)}"
        )
    elif found.last is not None and found.last.decided is not None:
        said.append(f"{'':12s}{_pair(found.last)}")
    if found.collapse is None:
        return [*said, f"{'collapse':12s}at no level: {what} are too few, or most of them copies"]
    value, low, high = found.collapse
    # The bias of a part of the examples is larger than the interval over those for which noise was drawn.
    part = f"as {found.measured:,} of them say it, which is too noisy by a little"
    sure = f"95 % interval {number(low)} to {number(high)}" if found.measured == found.count else part
    which = f"which of the {found.count:,} it is; {sure}"
    return [*said, _row("collapse", found, value, which)]


def number(level: float) -> str:
    """Returns a log-SNR with one decimal, and no sign where that is 0."""
    return f"{round(level, 1) + 0.0:.1f}"


def _row(name: str, found: Clocks, level: float, text: str) -> str:
    sigma = found.noise * math.exp(-level / 2)
    noise = f"{sigma:,.0f}" if sigma >= 10 else f"{sigma:.2g}"
    return f"{name:12s}{number(level):>5s}  σ {noise:6s} {text}"


def _pair(pair: ClassPair) -> str:
    level = "no level" if pair.level is None else number(pair.level)
    decided = "" if pair.decided is None else f" ({pair.decided:.0%} decided at the collapse)"
    return f"{pair.names[0]} and {pair.names[1]} at {level}{decided}"


def _each(found: Clocks, what: str) -> list[str]:
    """Lines about the levels at which single examples are recognized."""
    low, middle, high = found.recognized
    if middle is None:
        return [f"{'each':12s}half of {found.probes:,} {what} or more are never recognized: they have copies"]
    spread = f"5 % by {'?' if low is None else number(low)}, 95 % {'never' if high is None else f'by {number(high)}'}"
    copies = f"; {found.copies:,} never: copies" if found.copies else ""
    shared = os.path.commonpath([os.path.dirname(name) for name, _ in found.earliest + found.latest]) + "/"
    named = [
        ", ".join(f"{name.removeprefix(shared)} {number(level)}" for name, level in some)
        for some in (found.earliest, found.latest)
    ]
    return [
        _row("each", found, middle, f"half of {found.probes:,} {what} are recognized by then; {spread}{copies}"),
        f"{'':12s}first, isolated: {named[0]}",
        f"{'':12s}last, with others like them: {named[1]}",
    ]


def _meaning(found: Clocks, what: str) -> list[str]:
    """Sentences about the gap between the clocks, and about how many examples would move the collapse."""
    if found.collapse is None or found.factor is None:
        return []
    gap = found.collapse[0] - found.speciation[0]
    judged = f"a {'wide' if gap >= WIDE else 'narrow'} gap of {number(gap)}" if gap > 0 else "no gap"
    more = f"{min(found.factor, BEYOND):,.0f} times as many"
    tenfold = "beyond all levels" if found.tenfold is None else f"to {number(found.tenfold)}"
    return [
        f"new {what} are made between speciation and collapse: {judged}",
        f"with less noise than at the collapse, a network that fits these {what} perfectly only repeats them",
        f"ten times as many {what} would move the collapse {tenfold}; to move it by 1 takes more than {more}",
    ]
