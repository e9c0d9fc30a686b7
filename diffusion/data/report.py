"""A scan as a table to read before training: what is in the folder, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from diffusion.data.decoding import shown
from diffusion.data.folders import Entry, Problem, Scan

SIZES = 4
LINES = 10


def table(scan: Scan) -> str:
    """The images of a scan by size, mode, format and class, its problems by name, and the ignored files."""
    headers = [entry.header for entry in scan.entries]
    rows = [
        ("folder", [shown(scan.root)]),
        ("images", [f"{len(headers):,}"]),
        ("sizes", _sizes(scan.entries)),
        ("modes", [_counts(Counter(header.mode for header in headers))]),
        ("formats", [_counts(Counter(header.format for header in headers))]),
    ]
    animated = sum(header.frames > 1 for header in headers)
    if animated:
        rows.append(("frames", [f"{animated:,} files hold several; the first is used"]))
    if scan.classes:
        labels = Counter(scan.classes[entry.label] for entry in scan.entries)
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


def _sizes(entries: Iterable[Entry]) -> list[str]:
    sizes = sorted(((e.header.width, e.header.height) for e in entries), key=lambda size: size[0] * size[1])
    names = [f"{width}x{height}" for width, height in sizes]
    if names[0] == names[-1]:
        return [f"all {names[0]}"]
    return [
        f"smallest {names[0]}, median {names[len(names) // 2]}, largest {names[-1]} (width x height)",
        f"commonest: {_counts(Counter(names), SIZES)}",
    ]


def _counts(counter: Counter[str], limit: int = SIZES) -> str:
    text = ", ".join(f"{name} ({count:,})" for name, count in counter.most_common(limit))
    return text + (f", and {len(counter) - limit:,} more" if len(counter) > limit else "")


def _aligned(rows: Iterable[tuple[str, list[str]]]) -> Iterable[str]:
    for name, lines in rows:
        for i, line in enumerate(lines):
            yield f"{name if i == 0 else '':<10}{line}"
