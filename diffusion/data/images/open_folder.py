"""From a folder of images, tar shards or a Hugging Face dataset to a Dataset: scan, report, pack."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion.data.dataset import Dataset
from diffusion.data.images.cache import pack
from diffusion.data.images.decoding import Color
from diffusion.data.images.scan import FolderError, cache_folder, listing, open_container, scan, table
from diffusion.data.spec import DataSpec

FEW_BAD = 10


def open_folder(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    channels: int = 3,
    labels: bool = False,
    background: Color = (255, 255, 255),
    margin: int = 0,
    cache: Path | None = None,
    min_images: int = 8,
    max_bad: float = 0.01,
    log: Callable[[str], None] = print,
    progress: bool = True,
) -> Dataset:
    """The images at a path at the size (h, w) plus a margin all round; the log names every file left out.

    What lies there is never written to; decoded images are kept in the cache.

    Raises FolderError when the folder or the cache cannot be used, or holds fewer than `min_images` images or a larger
    share than `max_bad` of files that cannot be used, and more than a few of them; InputError when a dataset cannot be
    loaded.
    """
    container = open_container(path)
    place = cache_folder(cache, container.root)
    found = scan(container, labels=labels, cache=place, progress=progress)
    log(table(found))
    height, width = size[0] + 2 * margin, size[1] + 2 * margin
    rows = found.entries.rows
    small = np.count_nonzero((rows["width"] < width) | (rows["height"] < height))
    if small:
        log(f"enlarged  {small:,} images, smaller than {width}x{height}")
    packed = pack(
        found,
        size=(height, width),
        channels=channels,
        background=background,
        cache=place,
        progress=progress,
    )
    for line in listing(packed.problems[len(found.problems) :]):
        log(f"left out  {line}")
    if packed.copies:
        log(f"copies    {packed.copies:,} files repeat another; copies are held out together or not at all")
    count = len(packed.values)
    if count < min_images:
        raise FolderError(
            f"data.path: {count} images in {container.name}, at least {min_images} are needed, for some are "
            f"held out; add images, or set data.min_images={count}"
        )
    bad = len(packed.problems)
    if bad > max(FEW_BAD, max_bad * (count + bad)):
        raise FolderError(
            f"data.path: {bad:,} of {count + bad:,} files in {container.name} cannot be used, a larger share than "
            f"data.max_bad, {max_bad:g}; mend or remove them, or raise it to go on without them"
        )
    spec = DataSpec((channels, *size), levels=256, classes=found.classes)
    return Dataset(packed.values, spec, packed.labels, packed.names, margin, packed.contents)
