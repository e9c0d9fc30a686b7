"""A folder of image files: the names of all files in it and below it, and a fingerprint of them."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import IO

from diffusion.data.images.container import Container, Member, Walk
from diffusion.data.images.decoding import SUFFIXES, BinaryFile
from diffusion.data.images.store import stamp

# The number of names of one folder that are sorted in memory; more names are sorted by merging files.
RUN = 1 << 15


@dataclass(frozen=True)
class Folder(Container):
    """The container of the image files in a folder and below it."""

    kind = "folder"
    labeling = "the label is the name of a subfolder; move them into one"

    def walk(self, *, reading: bool) -> FolderWalk:
        """Starts a pass over all images, in natural order if they are to be read."""
        return FolderWalk(self.root, ordered=reading)

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        return (self.root / path).open("rb")


@dataclass
class FolderWalk(Walk):
    """A walk through the folder `root`, whose members are named by their paths relative to it.

    They come in natural order if `ordered`, else in the order of the file system, which is faster. Links are followed,
    and a folder is read once however many links lead to it. Names that start with a dot are skipped. The classes are
    the folders directly in the root.
    """

    root: Path
    ordered: bool
    visited: set[tuple[int, int]] = field(default_factory=set)

    def __iter__(self) -> Iterator[Member]:
        return self._visit("", None)

    def _visit(self, folder: str, group: str | None) -> Iterator[Member]:
        absolute = os.path.join(self.root, folder)
        later = []
        try:
            this = os.stat(absolute)
            if (this.st_dev, this.st_ino) in self.visited:
                self.leave_out(folder, "a link to a folder that is read already")
                return
            self.visited.add((this.st_dev, this.st_ino))
            with os.scandir(absolute) as entries:
                names = (entry.name for entry in entries if not entry.name.startswith("."))
                for name in natural(names) if self.ordered else names:
                    path = os.path.join(folder, name)
                    status = _status(os.path.join(absolute, name))
                    if status is not None and stat.S_ISDIR(status.st_mode):
                        if self.ordered:
                            yield from self._enter(path, group)
                        else:
                            later.append(path)
                    elif self._is_image(path, status):
                        yield Member(path, group=group, stamp=None if status is None else stamp(status))
        except OSError as error:
            self.leave_out(folder, f"the folder cannot be read: {error.strerror}")
        for path in natural(later):  # If several links lead to a folder, the first in this order counts.
            yield from self._enter(path, group)

    def _enter(self, path: str, group: str | None) -> Iterator[Member]:
        self.note(path)
        if group is None:
            self.classes.append(path)
        return self._visit(path, group or path)

    def _is_image(self, path: str, status: os.stat_result | None) -> bool:
        if os.path.splitext(path)[1].lower() not in SUFFIXES:
            self.ignore(path)
            self.note(path)
        elif status is not None and stat.S_ISREG(status.st_mode):
            self.note_file(path, status)
            return True
        else:
            broken = os.path.islink(self.root / path)
            self.leave_out(path, "a broken link" if broken else "not a regular file")
        return False

    def leave_out(self, path: str, reason: str) -> None:
        """Adds a path that cannot be used to the problems, and to the fingerprint, as it is found without reading."""
        super().leave_out(path, reason)
        self.note(path, reason)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def natural(names: Iterable[str]) -> Iterator[str]:
    """Sorts names with the numbers in them compared by value, 2 before 10; ties, such as 1 and 01, go by the name.

    However many names there are, only some ten thousand of them are in memory at once.
    """
    names = iter(names)
    run = sorted(sorted(islice(names, RUN)), key=_key)
    runs = []
    while following := list(islice(names, RUN)):
        runs.append(_spilled(run))
        run = sorted(sorted(following), key=_key)
    return merge(*map(_lines, runs), run, key=lambda name: (_key(name), name)) if runs else iter(run)


def _key(name: str) -> str:
    # No name holds a NUL, so that a number sorts before any letter. The length of a number precedes its digits.
    return re.sub("[0-9]+", lambda digits: "\0" + _number(digits[0].lstrip("0")), name)


def _number(digits: str) -> str:
    return chr(len(digits)) + digits


def _spilled(names: Iterable[str]) -> IO[bytes]:
    """Writes names to a temporary file, which the reader closes."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - `_lines` closes it
    file.writelines(os.fsencode(name) + b"\0\n" for name in names)
    file.seek(0)
    return file


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Yields the names in a file and closes it; names may hold line ends, but no NUL."""
    name = b""
    with file:
        for line in file:
            name += line
            if name.endswith(b"\0\n"):
                yield os.fsdecode(name[:-2])
                name = b""
