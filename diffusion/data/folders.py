"""What a folder holds: every image with its header and label, every file that cannot be used and why."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from diffusion.data.decoding import SUFFIXES, Header, ImageError, read_header, shown
from diffusion.data.parallel import in_order
from diffusion.errors import InputError


class FolderError(InputError):
    """A folder that cannot be trained on; the message says what was found and what to do."""


@dataclass(frozen=True)
class Problem:
    """A file or folder that is left out, by its path within the scanned folder, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.reason}"


@dataclass(frozen=True)
class Entry:
    """An image, its path within the scanned folder, and its label, which is -1 without classes."""

    path: Path
    header: Header
    label: int = -1


@dataclass(frozen=True)
class Scan:
    """What was found in a folder; `others` counts the files that are not images by their suffix."""

    root: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    problems: tuple[Problem, ...]
    others: dict[str, int]


def scan(folder: str | os.PathLike[str], *, labels: bool, progress: bool = True) -> Scan:
    """Read the headers of the images in a folder and below it, in natural order of names: 2 before 10.

    Links are followed, and a folder is read once however many links lead to it. Names that start with a dot
    are skipped. With `labels` an image belongs to the class named by the first subfolder on its path. A file
    that is damaged behind its header is found by decoding it, which `pack` does.

    Raises FolderError when the folder is missing, is a file, holds no readable image, or its images lack
    the class that `labels` asks for.
    """
    root = _existing(Path(folder))
    walk = _Walk(root)
    walk.visit(Path())
    results = list(in_order(partial(_read, root), walk.images, title="reading headers", progress=progress))
    entries = tuple(result for result in results if isinstance(result, Entry))
    problems = (*walk.problems, *(result for result in results if isinstance(result, Problem)))
    others = dict(walk.others.most_common())
    if not entries:
        raise FolderError(_nothing_found(root, problems, others))
    found = Scan(root, entries, (), problems, others)
    return _labeled(found) if labels else found


@dataclass
class _Walk:
    """A walk through a folder that collects the paths of image files, relative to its root."""

    root: Path
    images: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    visited: set[tuple[int, int]] = field(default_factory=set)

    def visit(self, folder: Path) -> None:
        try:
            status = os.stat(self.root / folder)
            names = sorted(os.listdir(self.root / folder), key=_natural)
        except OSError as error:
            self.problems.append(Problem(folder, f"the folder cannot be read: {error.strerror}"))
            return
        if (status.st_dev, status.st_ino) in self.visited:
            self.problems.append(Problem(folder, "a link to a folder that is read already"))
            return
        self.visited.add((status.st_dev, status.st_ino))
        for name in names:
            if name.startswith("."):
                continue
            if os.path.isdir(self.root / folder / name):
                self.visit(folder / name)
            else:
                self._file(folder / name)

    def _file(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            self.others[shown(path.suffix.lower()) or "without suffix"] += 1
        elif os.path.isfile(self.root / path):
            self.images.append(path)
        else:
            broken = os.path.islink(self.root / path)
            self.problems.append(Problem(path, "a broken link" if broken else "not a regular file"))


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts numbers within names by value; the name itself breaks ties, as between 1 and 01."""
    pieces = re.split(r"([0-9]+)", name)
    return [(int(piece or 0), "") if i % 2 else (0, piece) for i, piece in enumerate(pieces)], name


def _read(root: Path, path: Path) -> Entry | Problem:
    try:
        return Entry(path, read_header(root / path))
    except ImageError as error:
        return Problem(path, error.reason)


def _labeled(found: Scan) -> Scan:
    """The scan with a label for every entry; the classes are the first-level subfolders that hold images."""
    loose = [entry.path for entry in found.entries if len(entry.path.parts) == 1]
    if loose:
        raise FolderError(
            f"data.labels: {len(loose)} images lie right in {shown(found.root)}, like {shown(loose[0])}, but "
            "the label is the name of a subfolder; move them into one, or set data.labels=false"
        )
    subfolders = [name for name in sorted(os.listdir(found.root), key=_natural) if not name.startswith(".")]
    subfolders = [name for name in subfolders if os.path.isdir(found.root / name)]
    used = {entry.path.parts[0] for entry in found.entries}
    label = {name: i for i, name in enumerate(name for name in subfolders if name in used)}
    unused = [name for name in subfolders if name not in used]
    return replace(
        found,
        entries=tuple(replace(entry, label=label[entry.path.parts[0]]) for entry in found.entries),
        classes=tuple(map(shown, label)),
        problems=(*found.problems, *(Problem(Path(name), "not a class: no image in it") for name in unused)),
    )


def _existing(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FolderError(f"data.path: {shown(folder)} is a file; name the folder that holds the images")
    parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
    missing = folder.absolute().relative_to(parent).parts[0]
    similar = difflib.get_close_matches(missing, os.listdir(parent))
    advice = f"; did you mean {' or '.join(shown(parent / name) for name in similar)}?" if similar else ""
    raise FolderError(f"data.path: {shown(folder)} does not exist; {shown(parent)} does{advice}")


def _nothing_found(root: Path, problems: tuple[Problem, ...], others: dict[str, int]) -> str:
    """Says what was found instead of images, since the path is usually off by a folder."""
    counts = [f"{count} {suffix}" for suffix, count in others.items()] or ["no other files"]
    text = f"data.path: 0 readable images in {shown(root)} ({', '.join(counts)})"
    if problems:
        text += f"; {len(problems)} could not be read, such as {problems[0]}"
    return text
