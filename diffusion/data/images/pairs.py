"""The pairs of images: what is known of each of them, as an image of the same name in a folder of its own.

A pair is read as its image is, at the same size and with the same crop. It may have other channels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import Dataset, Rows
from diffusion.data.identity import same_place
from diffusion.data.images.cache import pack
from diffusion.data.images.container import LeftOut
from diffusion.data.images.decoding import PixelFormat
from diffusion.data.images.report import listing
from diffusion.data.images.scan import FolderError, Scan, blamed_on, cache_folder, open_container, scan

# The name of an image: its path without the suffix, and with the number of its page.
_NAME = re.compile(r"(.*?)(\.[^./#]+)?(#\d+)?", re.DOTALL)


def with_pairs(
    dataset: Dataset,
    images: str | Path,
    pairs: str | Path,
    *,
    channels: int,
    pages: str,
    background: tuple[int, int, int],
    cache: Path | None = None,
    log: Callable[[str], None] = print,
    progress: bool = True,
) -> Dataset:
    """Returns the examples of the images at a path with those at the path of `pairs` as their condition.

    Values of pairs have the `channels`, and as many gray levels as the examples. It is logged which pairs belong to no
    image. Raises FolderError where one of the paths cannot be used, both are one place, two pairs have one name or two
    images one pair, or an image has no pair or one of another aspect ratio; it names the first such image and their
    number.
    """
    if same_place(str(images), str(pairs)):
        raise FolderError(
            f"data.condition: must be another place than data.path, got {pairs}; the network would be told the images "
            "that it learns to draw"
        )
    own = _scanned(images, pages, cache, progress)
    height, width = (side + 2 * dataset.margin for side in dataset.spec.shape[1:])
    pixel_format = PixelFormat(channels, background, levels=dataset.spec.levels)
    with blamed_on("data.condition"):
        theirs = _scanned(pairs, pages, cache, progress)
        folder = cache_folder(cache, theirs.container.root)
        packed = pack(theirs, size=(height, width), pixel_format=pixel_format, cache=folder, progress=progress)
    for line in listing(packed.problems):
        log(f"left out  {line}")
    rows = _matched(dataset.names, own, packed.names, theirs, packed.problems)
    _check_shapes(dataset.names, own, theirs)
    log(f"pairs     {len(rows):,} images of {theirs.container.name}{_spare(packed.names, rows)}")
    return replace(dataset, condition=Rows(packed.values, rows))


def _scanned(path: str | Path, pages: str, cache: Path | None, progress: bool) -> Scan:
    container = open_container(path)
    folder = cache_folder(cache, container.root)
    return scan(container, labels=False, pages=pages, cache=folder, progress=progress)


def _spare(names: Sequence[str], rows: npt.NDArray[np.int64]) -> str:
    """Says how many pairs belong to no image."""
    spare = np.setdiff1d(np.arange(len(names)), rows)
    return f"; without an image of their name: {len(spare):,}, such as {names[int(spare[0])]}" if len(spare) else ""


def name_of(path: str) -> str:
    """Returns the name by which an image at a path finds its pair: without the suffix, with the number of a page."""
    found = _NAME.fullmatch(path)
    assert found is not None
    return found[1] + (found[3] or "")


def _named(found: Scan, paths: Iterable[str]) -> dict[str, int]:
    """The place of each path by its name. Raises FolderError for two paths of one name."""
    places: dict[str, int] = {}
    for place, path in enumerate(paths):
        if places.setdefault(name := name_of(found.container.inside(path)), place) != place:
            raise FolderError(f"data.condition: two images in {found.container.name} are called {name}; remove one")
    return places


def _matched(
    names: Sequence[str], images: Scan, paired: Iterable[str], pairs: Scan, unread: Sequence[LeftOut]
) -> npt.NDArray[np.int64]:
    """The place of the pair of each image. Raises FolderError for images without one, of which some may be `unread`,
    and for two images of one name.
    """
    places = _named(pairs, paired)
    own = [name_of(images.container.inside(name)) for name in names]
    rows = np.array([places.get(name, -1) for name in own], np.int64)
    if missing := int(np.count_nonzero(rows < 0)):
        first = int((rows < 0).argmax())
        reasons = {name_of(pairs.container.inside(str(each.path))): each for each in unread}
        bad = reasons.get(own[first])
        why = f", whose pair {bad.path} cannot be used: {bad.reason}" if bad else ""
        raise FolderError(
            f"data.condition: {missing:,} of {len(rows):,} images have no pair of their name in "
            f"{pairs.container.name}, the first is {names[first]}{why}; add what is missing, or remove these images"
        )
    firsts: dict[int, int] = {}
    for number, row in enumerate(rows.tolist()):
        if (first := firsts.setdefault(row, number)) != number:
            raise FolderError(
                f"data.condition: a pair must belong to one image, got {names[first]} and {names[number]}; rename one "
                "of them, and give it a pair of its own"
            )
    return rows


def _check_shapes(names: Iterable[str], images: Scan, pairs: Scan) -> None:
    """Raises FolderError for images whose pair has another aspect ratio, beyond the rounding to whole pixels."""
    own = {name: place for place, name in enumerate(images.entries.names)}
    theirs = _named(pairs, pairs.entries.names)
    wrong = [
        (name, sizes)
        for name in names
        if not _alike(
            *(sizes := (_size(images, own[name]), _size(pairs, theirs[name_of(images.container.inside(name))])))
        )
    ]
    if wrong:
        name, (mine, its) = wrong[0]
        raise FolderError(
            f"data.condition: {len(wrong):,} pairs have another aspect ratio than their images, the first is that of "
            f"{name}: {mine[0]}x{mine[1]} and {its[0]}x{its[1]}; a pair shows the same part of the scene: crop it as "
            "its image, or remove both"
        )


def _size(found: Scan, place: int) -> tuple[int, int]:
    """The width and the height of an image."""
    row = found.entries.rows[place]
    return int(row["width"]), int(row["height"])


def _alike(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one size is the other one scaled, up to a pixel of the smaller."""
    large, small = (a, b) if a[0] * a[1] >= b[0] * b[1] else (b, a)
    return abs(large[1] * small[0] / large[0] - small[1]) <= 1 or abs(large[0] * small[1] / large[1] - small[0]) <= 1
