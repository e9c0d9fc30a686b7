"""What lies in a folder and below it, by names alone, and a fingerprint of all of it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path, PurePath
from typing import IO

from diffusion.data.decoding import SUFFIXES, shown
from diffusion.data.store import stamp

# So many names of one folder are sorted in memory, further ones by merging files.
RUN = 1 << 15


@dataclass(frozen=True)
class Problem:
    """A file or folder that is left out, by its path within the scanned folder, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.reason}"


@dataclass
class Walk:
    """A walk through a folder: iterating yields the paths of image files, relative to its root.

    The paths come in natural order if `ordered`, else as the file system lists them, which is faster. Links are
    followed, and a folder is read once however many links lead to it. Names that start with a dot are skipped.

    At the end `fingerprint` is Σ hash(path, stamp) mod 2¹²⁸ over all that was seen, whatever the order: it is the same
    only when no file was added, removed, renamed or written to. `newest` is the time of the last change of an image, in
    ns.
    """

    root: Path
    ordered: bool
    images: int = 0
    fingerprint: int = 0
    newest: int = 0
    problems: list[Problem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    subfolders: list[str] = field(default_factory=list)
    visited: set[tuple[int, int]] = field(default_factory=set)

    def __iter__(self) -> Iterator[str]:
        return self._visit("")

    def _visit(self, folder: str) -> Iterator[str]:
        place = os.path.join(self.root, folder)
        later = []
        try:
            this = os.stat(place)
            if (this.st_dev, this.st_ino) in self.visited:
                self._problem(folder, "a link to a folder that is read already")
                return
            self.visited.add((this.st_dev, this.st_ino))
            with os.scandir(place) as entries:
                names = (entry.name for entry in entries if not entry.name.startswith("."))
                for name in natural(names) if self.ordered else names:
                    path = os.path.join(folder, name)
                    status = _status(os.path.join(place, name))
                    if status is not None and stat.S_ISDIR(status.st_mode):
                        if self.ordered:
                            yield from self._enter(path)
                        else:
                            later.append(path)
                    elif self._is_image(path, status):
                        yield path
        except OSError as error:
            self._problem(folder, f"the folder cannot be read: {error.strerror}")
        for path in natural(later):  # of several links to a folder, the first in this order counts
            yield from self._enter(path)

    def _enter(self, path: str) -> Iterator[str]:
        self._note(path)
        if os.sep not in path:
            self.subfolders.append(path)
        return self._visit(path)

    def _is_image(self, path: str, status: os.stat_result | None) -> bool:
        if os.path.splitext(path)[1].lower() not in SUFFIXES:
            self.others[shown(PurePath(path).suffix.lower()) or "without suffix"] += 1
            self._note(path)
        elif status is not None and stat.S_ISREG(status.st_mode):
            self.images += 1
            self.newest = max(self.newest, status.st_ctime_ns)
            self._note(path, *stamp(status))
            return True
        else:
            broken = os.path.islink(self.root / path)
            self._problem(path, "a broken link" if broken else "not a regular file")
        return False

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append(Problem(Path(path), reason))
        self._note(path, reason)

    def _note(self, path: str, *facts: object) -> None:
        seen = "\0".join((path, *map(str, facts)))
        digest = hashlib.blake2b(os.fsencode(seen), digest_size=16).digest()
        self.fingerprint = (self.fingerprint + int.from_bytes(digest, "little")) % 2**128


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def natural(names: Iterable[str]) -> Iterator[str]:
    """Names sorted with the numbers in them by value, 2 before 10; the name itself breaks ties, as between 1 and 01.

    However many there are, a few thousand are in memory.
    """
    names = iter(names)
    run = sorted(sorted(islice(names, RUN)), key=_key)
    runs = []
    while following := list(islice(names, RUN)):
        runs.append(_spilled(run))
        run = sorted(sorted(following), key=_key)
    return merge(*map(_lines, runs), run, key=lambda name: (_key(name), name)) if runs else iter(run)


def _key(name: str) -> str:
    # No name holds a NUL, so that a number sorts before any letter. The length of a number goes before its digits.
    return re.sub("[0-9]+", lambda digits: "\0" + _number(digits[0].lstrip("0")), name)


def _number(digits: str) -> str:
    return chr(len(digits)) + digits


def _spilled(names: Iterable[str]) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who reads it
    file.writelines(os.fsencode(name) + b"\0\n" for name in names)
    file.seek(0)
    return file


def _lines(file: IO[bytes]) -> Iterator[str]:
    """The names in a file, which may hold line ends but no NUL."""
    name = b""
    with file:
        for line in file:
            name += line
            if name.endswith(b"\0\n"):
                yield os.fsdecode(name[:-2])
                name = b""
