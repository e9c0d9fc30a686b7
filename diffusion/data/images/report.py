"""What is said of a scan before anything is done with it: a table of what there is, and lines on what may be wrong."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion.data.images.index import counted
from diffusion.data.images.layout import find_splits, find_targets, split_files, within
from diffusion.data.images.resizing import kept
from diffusion.data.images.scan import Scan
from diffusion.data.images.shards import Shards
from diffusion.data.images.unread import ARCHIVES, VIDEOS, advice_on

# The numbers of sizes, modes or formats that a table lists, and of classes, problems or suffixes.
SIZES = 4
LINES = 10
# The share of an image, and the mean share of all, of which it is said that a crop cuts it off.
MOST, SAID = 0.5, 0.005

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Rows = list[tuple[str, list[str]]]


def table(scan: Scan) -> str:
    """Returns the table of a scan: images by size, mode, format and class, the problems, and what is ignored.

    Behind it there are lines on what a person should look at: image files that are not read, parts of data sets, masks.
    """
    entries = scan.entries
    rows: Rows = [
        (scan.container.kind, [scan.container.name]),
        ("images", [f"{len(entries):,}"]),
        ("sizes", _sizes(entries.rows["width"], entries.rows["height"])),
        ("modes", [_counts(entries.modes)]),
        ("formats", [_counts(entries.formats)]),
    ]
    rows += _frames(scan)
    if scan.classes:
        labels = counted(entries.rows["group"], scan.classes)
        rows.append(("classes", [f"{len(labels):,}: {_counts(labels, LINES)}", *scan.labeling]))
    if entries.content["notices"]:
        notices = (
            f"{count:,} images: {text}, such as {path}" for text, (count, path) in entries.content["notices"].items()
        )
        rows.append(("notices", listing([*notices])))
    if scan.problems:
        rows.append(("left out", listing(scan.problems)))
    if scan.others:
        rows.append(("ignored", [_counts(Counter(scan.others), LINES)]))
    if entries.content["skipped"]:
        rows.append(("skipped", [_counts(Counter(entries.content["skipped"]), LINES)]))
    return "\n".join(_aligned([*rows, *_unread(scan), *_beside(scan), *_layouts(scan)]))


def crop_line(scan: Scan, size: tuple[int, int]) -> list[str]:
    """Returns a line on the share of the images that the crop to a size (h, w) cuts off, if it is worth one."""
    rows = scan.entries.rows
    cut = 1 - kept(rows["width"], rows["height"], size)
    mean, many = float(cut.mean()), int(np.count_nonzero(cut > MOST))
    if mean < SAID and not many:
        return []
    worst = f", more than half of {many:,} images" if many else ""
    return [f"{'crop':<10}{size[0]}x{size[1]} (height x width) from the middle cuts off {mean:.0%} of the area{worst}"]


def enlarged_line(scan: Scan, size: tuple[int, int]) -> list[str]:
    """Returns a line on the images that are smaller than a size (h, w), if there are any."""
    rows, (height, width) = scan.entries.rows, size
    small = np.count_nonzero((rows["width"] < width) | (rows["height"] < height))
    return [f"{'enlarged':<10}{small:,} images, smaller than {width}x{height}"] if small else []


def _frames(scan: Scan) -> Rows:
    rows = scan.entries.rows
    if scan.entries.held is not None:
        pages = rows["frame"] >= 0
        files = int(np.count_nonzero(rows["frame"] == 0))
        alone = ": as there is one file, none is" if files == 1 and pages.all() else ""
        holders = "1 file" if files == 1 else f"{files:,} files"
        return [("pages", [f"{np.count_nonzero(pages):,} of {holders}, held out by file{alone}"])]
    several = rows["frames"] > 1
    count = int(np.count_nonzero(several))
    if not count:
        return []
    frames = int(rows["frames"][several].sum())
    first = 'the first of each is used; data.pages="all" takes all'
    return [("frames", [f"{count:,} files hold several, {frames:,} in all; {first}"])]


def _unread(scan: Scan) -> Rows:
    unread = scan.unread
    if not unread:
        return []
    total = sum(found.count for found in unread.values())
    share = total / (total + len(scan.entries) + len(scan.problems))
    lines = [f"{total:,} image files, {share:.0%} of all"]
    for todo, suffixes in advice_on({suffix: found.count for suffix, found in unread.items()}):
        kinds = ", ".join(f"{unread[suffix].count:,} {suffix}" for suffix in suffixes[:SIZES])
        more = f" and {len(suffixes) - SIZES} more kinds" if len(suffixes) > SIZES else ""
        lines.append(f"{kinds}{more}, such as {unread[suffixes[0]].example}: {todo}")
    return [("NOT READ", lines)]


def _beside(scan: Scan) -> Rows:
    """Lines on files beside the images that may hold more of them."""
    rows: Rows = []
    videos = {suffix: count for suffix, count in scan.others.items() if suffix in VIDEOS}
    if videos:
        todo = "ffmpeg -i FILE frame-%05d.png takes their frames out"
        rows.append(("videos", [f"{_counts(Counter(videos))} are not read; {todo}"]))
    archives = {suffix: count for suffix, count in scan.others.items() if suffix in ARCHIVES}
    if archives:
        rows.append(
            ("archives", [f"{_counts(Counter(archives))} beside images are not read; unpack them, or keep them apart"])
        )
    if scan.entries.content["only_results"]:
        rows.append(("results", ["all images are results of diffusion, and are taken as there are no others"]))
    return rows


def _layouts(scan: Scan) -> Rows:
    """Lines on folders that should be looked at before all of them are trained on."""
    folders, name = scan.folders, scan.container.name
    if parts := find_splits(folders):
        path = os.path.join(name, parts.first)
        return [("SPLITS", [f"{parts}: ALL of them are taken; set data.path={path} to keep the others apart"])]
    if isinstance(scan.container, Shards) and (files := split_files(scan.container.files)):
        names = f"{', '.join(files[:SIZES])}{', ...' if len(files) > SIZES else ''}"
        return [("SPLITS", [f"{names}: ALL of them are taken; keep those for training in a folder of their own"])]
    lines = [
        f"{target} ({within(folders, target):,}) beside {image} ({within(folders, image):,}) is taken too; set "
        f"data.path={os.path.join(name, image)} if it holds masks or labels"
        for image, target in find_targets(folders)
    ]
    return [("MASKS", listing(lines))] if lines else []


def listing(items: Sequence[object], count: int | None = None) -> list[str]:
    """Returns lines for the first LINES items, and one for the number of the others; `count` is the number of all."""
    more = (len(items) if count is None else count) - LINES
    lines = [_one_line(str(item)) for item in items[:LINES]]
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def _sizes(width: npt.NDArray[Any], height: npt.NDArray[Any]) -> list[str]:
    by_area = np.argsort(width * height, kind="stable")
    pixels = np.stack([width, height], axis=1)[by_area]
    smallest, median, largest = (f"{w}x{h}" for w, h in pixels[[0, len(pixels) // 2, -1]])
    if smallest == largest:
        return [f"all {smallest}"]
    _, first, counts = np.unique(pixels.view("<i8"), return_index=True, return_counts=True)
    order = np.argsort(first)
    names = Counter({"{}x{}".format(*pixels[first[i]]): int(counts[i]) for i in order})
    return [
        f"smallest {smallest}, median {median}, largest {largest} (width x height)",
        f"commonest: {_counts(names, SIZES)}",
    ]


def _counts(counter: Counter[str], limit: int = SIZES) -> str:
    text = ", ".join(f"{name} ({count:,})" for name, count in counter.most_common(limit))
    return text + (f", and {len(counter) - limit:,} more" if len(counter) > limit else "")


def _aligned(rows: Iterable[tuple[str, list[str]]]) -> Iterable[str]:
    for name, lines in rows:
        for i, line in enumerate(lines):
            yield f"{name if i == 0 else '':<10}{_one_line(line)}"


def _one_line(text: str) -> str:
    """Shows control characters, which the names of files may hold, by their escapes, as they would break the lines."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
