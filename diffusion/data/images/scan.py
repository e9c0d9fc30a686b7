"""The scan of a container: every image with its header and label, every unusable file with the reason, and a table."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion.data.images.container import Container, LeftOut
from diffusion.data.images.decoding import printable
from diffusion.data.images.folder import Folder
from diffusion.data.images.huggingface import find_dataset
from diffusion.data.images.index import Index, open_index
from diffusion.data.images.shards import find_shards
from diffusion.errors import InputError
from diffusion.files import expanded

# The numbers of sizes, modes or formats that a table lists, and of classes, problems or suffixes.
SIZES = 4
LINES = 10


class FolderError(InputError):
    """Images cannot be trained on; the message states the findings and what to do."""


@dataclass(frozen=True)
class Scan:
    """The findings in a container: its images, their classes, the problems, and the counts of other files by suffix.

    `classes` is empty for a scan without labels.
    """

    container: Container
    entries: Index
    classes: tuple[str, ...]
    problems: tuple[LeftOut, ...]
    others: dict[str, int]


def open_container(path: str | os.PathLike[str]) -> Container:
    """Opens the container that a path names: a Hugging Face dataset, tar shards, or else a folder of images.

    Raises FolderError when the path names none of them, InputError when a dataset cannot be loaded.
    """
    written = os.fspath(path) if "://" in os.fspath(path) else os.fspath(expanded(path))
    if dataset := find_dataset(written):
        return dataset
    return find_shards(Path(written)) or Folder(_existing(Path(written)))


def scan(
    images: str | os.PathLike[str] | Container, *, labels: bool, cache: Path | None = None, progress: bool = True
) -> Scan:
    """Reads the headers of all images of a container, or of the container at a path, in its order.

    The images of a folder and of its subfolders come in natural order of names, 2 before 10. Links are followed, and a
    folder is read once however many links lead to it. Names that start with a dot are skipped. With `labels`, an image
    of a folder belongs to the class named by the first subfolder on its path. A file that is damaged behind its header
    is found only by decoding it, as `pack` does. With a folder as `cache`, a container in which nothing changed since
    the last scan is not read again.

    Raises FolderError when there is no such container, it holds no readable image, or its images lack the class that
    `labels` asks for, and when the cache cannot be written.
    """
    container = images if isinstance(images, Container) else open_container(images)
    try:
        entries = open_index(container, cache, progress=progress)
    except OSError as error:
        raise unwritable(cache or Path(tempfile.gettempdir()), error) from error
    others = entries.content["others"]
    if not entries:
        raise FolderError(_nothing_found(container, entries.problems, others))
    found = Scan(container, entries, (), entries.problems, others)
    return _labeled(found) if labels else found


def _labeled(found: Scan) -> Scan:
    """Returns the scan with a label for every entry; its classes are those that have images."""
    loose = np.flatnonzero(found.entries.rows["group"] < 0)
    if len(loose):
        raise FolderError(
            f"data.labels: {len(loose)} images in {found.container.name} have no class, like "
            f"{found.entries.names[loose[0]]}: {found.container.labeling}, or set data.labels=false"
        )
    used = found.entries.content["groups"]
    empty = set(found.entries.content["classes"]) - set(used)
    unused = [name for name in found.entries.content["classes"] if name in empty]
    return replace(
        found,
        entries=replace(found.entries, labeled=True),
        classes=tuple(map(printable, used)),
        problems=(*found.problems, *(LeftOut(Path(name), "not a class: no image in it") for name in unused)),
    )


def default_cache() -> Path:
    """Returns the default folder of the cache: $DIFFUSION_CACHE, $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion."""
    default = os.environ.get("DIFFUSION_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diffusion"
    return expanded(default).resolve()


def cache_folder(cache: Path | None, root: Path) -> Path:
    """Creates the folder of the cache, `cache` or else `default_cache()`, and returns it.

    Raises FolderError when it lies within the folder of images at `root` or cannot be written.
    """
    folder = expanded(cache).resolve() if cache else default_cache()
    if folder.is_relative_to(root.resolve()):
        raise FolderError(
            f"cache: {printable(folder)} lies within the folder of images {printable(root)}, which is never "
            "written to; set DIFFUSION_CACHE to a folder outside of it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(folder: Path, error: OSError) -> FolderError:
    """Returns the error for a cache that cannot be written; its message says what to do."""
    where = printable(folder)
    return FolderError(f"cache: cannot write to {where} ({error}); set DIFFUSION_CACHE to another folder")


def _existing(folder: Path) -> Path:
    """Returns a folder that exists; else raises FolderError with the names that are similar to the missing one."""
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FolderError(f"data.path: {printable(folder)} is a file; name the folder that holds the images")
    parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
    missing = folder.absolute().relative_to(parent).parts[0]
    similar = difflib.get_close_matches(missing, os.listdir(parent))
    advice = f"; did you mean {' or '.join(printable(parent / name) for name in similar)}?" if similar else ""
    # Of a name alone the folder in which the program runs says nothing.
    where = "" if parent == Path.cwd() and not folder.is_absolute() else f"; {printable(parent)} does"
    raise FolderError(f"data.path: {printable(folder)} does not exist{where}{advice}")


def _nothing_found(container: Container, problems: tuple[LeftOut, ...], others: dict[str, int]) -> str:
    """Says what was found instead of images, since the path is usually off by a folder."""
    counts = [f"{count} {suffix}" for suffix, count in others.items()] or ["no other files"]
    text = f"data.path: 0 readable images in {container.name} ({', '.join(counts)})"
    if problems:
        text += f"; {len(problems)} could not be read, such as {problems[0]}"
    return text


def table(scan: Scan) -> str:
    """Returns the table of a scan: images by size, mode, format and class, the problems, and the ignored files."""
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
    if entries.content["notices"]:
        notices = (
            f"{count:,} images: {text}, such as {path}" for text, (count, path) in entries.content["notices"].items()
        )
        rows.append(("notices", listing([*notices])))
    if scan.problems:
        rows.append(("left out", listing(scan.problems)))
    if scan.others:
        rows.append(("ignored", [_counts(Counter(scan.others), LINES)]))
    return "\n".join(_aligned(rows))


def listing(items: Sequence[object], count: int | None = None) -> list[str]:
    """Returns lines for the first LINES items, and one for the number of the others; `count` is the number of all."""
    more = (len(items) if count is None else count) - LINES
    lines = [str(item) for item in items[:LINES]]
    return [*lines, f"and {more:,} more"] if more > 0 else lines


def _counter(numbers: npt.NDArray[Any], names: Sequence[str]) -> Counter[str]:
    """Counts how often each number occurs, by its name, in the order of the numbers."""
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
