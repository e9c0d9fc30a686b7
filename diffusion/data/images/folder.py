"""A folder of image files, or one file: the names of all images in it and below it, and a fingerprint of them."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import IO

from diffusion.data.images.container import Container, Member, Walk
from diffusion.data.images.decoding import SUFFIXES, BinaryFile
from diffusion.data.images.formats import ARRAYS, HEAD, PICTURES
from diffusion.data.images.junk import OWN, junk, listed_results
from diffusion.data.images.store import stamp

# The number of names of one folder that are sorted in memory; more names are sorted by merging files.
RUN = 1 << 15


@dataclass(frozen=True)
class Folder(Container):
    """The container of the image files in a folder and below it, without those in the folder `apart` in it, if any."""

    kind = "folder"
    labeling = "the label is the name of a subfolder; move them into one"

    apart: str = ""

    def walk(self, *, reading: bool) -> FolderWalk:
        """Starts a pass over all images, in natural order if they are to be read."""
        return FolderWalk(self.root, ordered=reading, apart=self.apart)

    def text(self, path: str) -> bytes | None:
        """Returns the bytes of a file in the folder; None where there is none."""
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        # Joining texts is faster than joining paths.
        return open(os.path.join(os.fspath(self.root), path), "rb")


@dataclass(frozen=True)
class File(Container):
    """The container of one image file."""

    kind = "file"
    labeling = "one file has none"

    def walk(self, *, reading: bool) -> FileWalk:
        """Starts a pass over the file."""
        return FileWalk(self.root)

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        return self.root.open("rb")


@dataclass
class FileWalk(Walk):
    """A walk that yields the file at a path."""

    path: Path

    def __iter__(self) -> Iterator[Member]:
        status = self.path.stat()
        self.note_file(self.path.name, status)
        yield Member(self.path.name, stamp=stamp(status))


@dataclass
class FolderWalk(Walk):
    """A walk through the folder `root`, whose members are named by their paths relative to it.

    They come in natural order if `ordered`, else in the order of the file system, which is faster. Links are followed,
    and a folder is read once however many links lead to it. What nobody means is skipped, such as names that start with
    a dot. The classes are the folders directly in the root. `results` are the recorded results of this package that
    were found so far; they are skipped too, unless `own`. The folder `apart`, a path relative to the root, is none of
    its folders.
    """

    root: Path
    ordered: bool
    own: bool = False
    apart: str = ""
    visited: set[tuple[int, int]] = field(default_factory=set)
    results: set[str] = field(default_factory=set)

    def __iter__(self) -> Iterator[Member]:
        return self._visit("", None)

    def _visit(self, folder: str, group: str | None) -> Iterator[Member]:
        absolute = os.path.join(os.fspath(self.root), folder)
        later, images = [], 0
        try:
            this = os.stat(absolute)
            if (this.st_dev, this.st_ino) in self.visited:
                self.leave_out(folder, "a link to a folder that is read already")
                return
            self.visited.add((this.st_dev, this.st_ino))
            results = listed_results(absolute)
            self.results |= {os.path.normpath(os.path.join(folder, name)) for name in results}
            with os.scandir(absolute) as entries:
                # Most names are not junk: calling `skips` for each would take a tenth of the time of the walk.
                names = (e.name for e in entries if junk(e.name) is None or not self._skips(folder, e.name))
                for name in natural(names) if self.ordered else names:
                    path = os.path.join(folder, name)
                    status = _status(os.path.join(absolute, name))
                    if status is not None and stat.S_ISDIR(status.st_mode):
                        if self.ordered:
                            yield from self._enter(path, group)
                        else:
                            later.append(path)
                    elif self._reads(path, status):
                        images += 1
                        yield Member(path, group=group, stamp=None if status is None else stamp(status))
        except OSError as error:
            self.leave_out(folder, f"the folder cannot be read: {error.strerror}")
        if images:
            self.count(folder.replace(os.sep, "/"), images)
        for path in natural(later):  # If several links lead to a folder, the first in this order counts.
            yield from self._enter(path, group)

    def _enter(self, path: str, group: str | None) -> Iterator[Member]:
        if path == self.apart:
            self.note(path, "apart")
            return iter(())
        self.note(path)
        if group is None:
            self.classes.append(path)
        return self._visit(path, group or path)

    def _skips(self, folder: str, name: str) -> bool:
        if self.skips(name):
            self.note(os.path.join(folder, name))
            return True
        return False

    def _reads(self, path: str, status: os.stat_result | None) -> bool:
        regular = status is not None and stat.S_ISREG(status.st_mode)
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in SUFFIXES:
            self.is_image(path, partial(self._head, path) if regular and self.ordered else bytes)
            self.note(path)
        elif suffix in ARRAYS and self._accompanies(path):
            self.ignore(path)
            self.note(path)
        elif status is not None and regular:
            self.note_file(path, status)
            if self.own or path not in self.results:
                return True
            self.skipped[OWN] += 1
        else:
            broken = os.path.islink(self.root / path)
            self.leave_out(path, "a broken link" if broken else "not a regular file")
        return False

    def _accompanies(self, path: str) -> bool:
        """Whether an array lies beside a picture of the same name."""
        stem = os.path.splitext(self.root / path)[0]
        return any(os.path.exists(stem + form(kind)) for kind in PICTURES for form in (str, str.upper))

    def _head(self, path: str) -> bytes:
        try:
            with open(self.root / path, "rb") as file:
                return file.read(HEAD)
        except OSError:
            return b""

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


def path_key(path: str) -> list[tuple[str, str]]:
    """Returns a key that sorts paths with slashes as a walk through their folders yields them."""
    return [(_key(name), name) for name in path.split("/")]


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
