"""Opens a folder of images, tar shards or a Hugging Face dataset as a Dataset: scan, report, pack and check."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion.data.dataset import Dataset
from diffusion.data.images import depth, ranges
from diffusion.data.images.cache import Packed, pack
from diffusion.data.images.container import Container
from diffusion.data.images.decoding import RGB, PixelFormat, printable
from diffusion.data.images.depth import RangeOption
from diffusion.data.images.pages import FIRST
from diffusion.data.images.report import crop_line, enlarged_line, listing, table
from diffusion.data.images.scan import FolderError, Scan, cache_folder, open_container, scan
from diffusion.data.spec import DataSpec

# The number of unusable files that never stops a run, whatever their share.
FEW_BAD = 10
# The most images of which it is said how much of them was seen.
LOOKED = 1024


def open_folder(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    pixel_format: PixelFormat = RGB,
    value_range: RangeOption = None,
    labels: bool | str = False,
    pages: str = FIRST,
    masks: str = "",
    margin: int = 0,
    cache: Path | None = None,
    min_images: int = 8,
    max_bad: float = 0.01,
    log: Callable[[str], None] = print,
    progress: bool = True,
) -> Dataset:
    """Opens the images at a path at the size (h, w), with a margin on all sides; the log names every file left out.

    `labels`, `pages` and `masks` are those of `scan`; images without a class are left out, where classes are asked for,
    and so are those of which nobody has seen a pixel.
    A `value_range`, [low, high] or "measured", becomes that of the pixel format, whose own one is taken as it is.
    Files at the path are never written to; decoded images are kept in the cache.

    Raises FolderError when the folder or the cache cannot be used, when the folder holds fewer than `min_images`
    images, and when more than FEW_BAD of its files and a larger share than `max_bad` cannot be used; InputError when a
    dataset cannot be loaded.
    """
    container = open_container(path)
    folder = cache_folder(cache, container.root)
    found = scan(container, labels=labels, pages=pages, masks=masks, cache=folder, progress=progress)
    height, width = size[0] + 2 * margin, size[1] + 2 * margin
    _report_scan(found, height, width, log)
    if pixel_format.value_range is None and pixel_format.levels == RGB.levels:
        pixel_format = _ranged(found, pixel_format, value_range, folder, max_bad, log, progress)
    elif pixel_format.value_range is not None:
        log(ranges.stated(pixel_format, ", as the model was trained"))
    packed = pack(
        found,
        size=(height, width),
        pixel_format=pixel_format,
        cache=folder,
        progress=progress,
    )
    _report_packed(found, packed, log)
    bad = len(packed.problems) + found.unusable - len(found.problems)
    usable = len(packed.values) if packed.labels is None else int(np.count_nonzero(packed.labels >= 0))
    _check(container, usable, bad, min_images, max_bad)
    spec = DataSpec(
        (pixel_format.channels, *size),
        levels=pixel_format.levels,
        classes=found.classes,
        value_range=pixel_format.value_range,
    )
    left_out = tuple((printable(each.path), each.reason) for each in packed.problems)
    values, names, contents = packed.values, packed.names, packed.contents
    dataset = Dataset(values, spec, packed.labels, names, margin, contents, left_out, packed.seen)
    if packed.labels is None or usable == len(packed.labels):
        return dataset
    return dataset.subset(np.flatnonzero(packed.labels >= 0))


def _ranged(
    found: Scan,
    pixel_format: PixelFormat,
    value_range: RangeOption,
    cache: Path,
    max_bad: float,
    log: Callable[[str], None],
    progress: bool,
) -> PixelFormat:
    """Returns the format with the range of the images, and logs what is to be said of it."""
    measured = depth.measure(found, cache, value_range, progress=progress)
    count = len(found.entries)
    chosen = ranges.resolve(pixel_format, value_range, measured, min(count - 1, max(FEW_BAD, int(max_bad * count))))
    for line in ranges.lines(measured, chosen, value_range, found.entries.modes):
        log(line)
    return chosen


def _report_scan(found: Scan, height: int, width: int, log: Callable[[str], None]) -> None:
    """Logs the table of a scan, and what becomes of its images at the size that they are packed at."""
    log(table(found))
    if found.masks:
        log(f"masks     {found.masks}")
    for line in (*enlarged_line(found, (height, width)), *crop_line(found, (height, width))):
        log(line)


def _report_packed(found: Scan, packed: Packed, log: Callable[[str], None]) -> None:
    """Logs the files that could not be decoded, and the number of copies."""
    for line in listing(packed.problems[len(found.problems) :]):
        log(f"left out  {line}")
    if packed.copies:
        log(f"copies    {packed.copies:,} files repeat another; copies are held out together or not at all")
    if packed.seen is not None:
        some = packed.seen[np.linspace(0, len(packed.seen) - 1, min(LOOKED, len(packed.seen))).round().astype(np.int64)]
        whole = int(some.all((1, 2, 3)).sum())
        log(f"seen      {some.mean():.1%} of the pixels of {len(some):,} images, {whole:,} of them as a whole")


def _check(container: Container, count: int, bad: int, min_images: int, max_bad: float) -> None:
    """Raises FolderError for too few images or too many unusable files."""
    if count < min_images:
        raise FolderError(
            f"data.path: {count} images in {container.name}, at least {min_images} are needed, for some are "
            f"held out; add images, or set data.min_images={count}"
        )
    if bad > max(FEW_BAD, max_bad * (count + bad)):
        raise FolderError(
            f"data.path: {bad:,} of {count + bad:,} files in {container.name} cannot be used, a larger share than "
            f"data.max_bad, {max_bad:g}; mend or remove them, or raise it to go on without them"
        )
