"""A scan as a table to read before training: what there is, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion.data.images.container import Problem
from diffusion.data.images.scan import Scan

SIZES = 4
LINES = 10


def table(scan: Scan) -> str:
    """The images of a scan by size, mode, format and class, its problems by name, and the ignored files."""
    entries = scan.entries
    rows = [
        (scan.container.kind, [scan.container.name]),
        ("images", [f"{len(entries):,}"]),
        ("sizes", _sizes(entries.rows["width"], entries.rows["height"])),
        ("modes", [_counts(_counter(entries.rows["mode"], entries.content["modes"]))]),
        ("formats", [_counts(_counter(entries.rows["format"], entries.content["formats"]))]),
    ]
    animated = np.count_nonzero(entries.rows["frames"] > 1)
    if animated:
        rows.append(("frames", [f"{animated:,} files hold several; the first is used"]))
    if scan.classes:
        labels = _counter(entries.rows["group"], scan.classes)
        rows.append(("classes", [f"{len(labels):,}: {_counts(labels, LINES)}"]))
    if scan.problems:
        rows.append(("left out", listing(scan.problems)))
    if scan.others:
        rows.append(("ignored", [_counts(Counter(scan.others), LINES)]))
    return "\n".join(_aligned(rows))


def listing(problems: Sequence[Problem]) -> list[str]:
    """The first problems, one a line, and how many more there are."""
    lines = [str(problem) for problem in problems[:LINES]]
    if len(problems) > LINES:
        lines.append(f"and {len(problems) - LINES:,} more")
    return lines


def _counter(numbers: npt.NDArray[Any], names: Sequence[str]) -> Counter[str]:
    """How often each number occurs, by its name, in the order of the numbers."""
    counts = np.bincount(numbers, minlength=len(names))
    return Counter({name: int(count) for name, count in zip(names, counts, strict=True)})


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
            yield f"{name if i == 0 else '':<10}{line}"
