"""What holds encoded images, as far as the rest need to know: it names its images in one pass, and opens each of them.

A folder of files (walk.py), tar shards (shards.py) and a Hugging Face dataset (huggingface.py) are the kinds of it.
Scanning, decoding, packing and reports know this interface only.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import ClassVar

from diffusion.data.images.decoding import ImageError, Stream, printable
from diffusion.data.images.store import stamp


@dataclass(frozen=True)
class Problem:
    """A file or folder that is left out, by its path within its container, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


@dataclass(frozen=True)
class Member:
    """An image of a container: its path, where its bytes begin and how many they are, if the path alone does not say,
    and the class it is in, if any.
    """

    path: str
    offset: int = 0
    size: int = 0
    group: str | None = None


@dataclass(kw_only=True)
class Walk(ABC):
    """A pass over a container: iterating yields its images.

    At the end `fingerprint` is Σ hash(path, facts) mod 2¹²⁸ over all that was seen, whatever the order: it is the same
    only when nothing was added, removed, renamed or written to. `newest` is the time of the last change, in ns;
    `classes` are all there are in their order, with images or not; `others` counts what is no image by its suffix.
    `lasting` is false when the system refused to read a part, so that another pass may find more.
    """

    fingerprint: int = 0
    newest: int = 0
    lasting: bool = True
    problems: list[Problem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)

    @abstractmethod
    def __iter__(self) -> Iterator[Member]:
        """The images."""

    def note(self, path: str, *facts: object) -> None:
        """Makes a path, and what must stay as it is of it, part of the fingerprint."""
        seen = "\0".join((path, *map(str, facts)))
        digest = hashlib.blake2b(os.fsencode(seen), digest_size=16).digest()
        self.fingerprint = (self.fingerprint + int.from_bytes(digest, "little")) % 2**128

    def note_file(self, path: str, status: os.stat_result) -> None:
        """Makes a file part of the fingerprint."""
        self.newest = max(self.newest, status.st_ctime_ns)
        self.note(path, *stamp(status))

    def ignore(self, path: str) -> None:
        """Counts a file that is not an image."""
        self.others[printable(PurePath(path).suffix.lower()) or "without suffix"] += 1

    def leave_out(self, path: str, reason: str) -> None:
        """Reports what cannot be used."""
        self.problems.append(Problem(Path(path), reason))


@dataclass(frozen=True)
class Container(ABC):
    """Encoded images that lie at `root`, a file or folder that is never written to."""

    root: Path
    kind: ClassVar[str]
    # Completes "an image has no class: ..."
    labeling: ClassVar[str]

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return printable(self.root)

    @abstractmethod
    def walk(self, *, reading: bool) -> Walk:
        """A pass over all images in their order; without `reading` one for the fingerprint alone, which yields them in
        any order, or none of them.
        """

    def glance(self) -> tuple[int, int | None]:
        """The fingerprint, and the number of images where it needs no reading."""
        walk = self.walk(reading=False)
        count = sum(1 for _ in walk)
        return walk.fingerprint, count or None

    def open(self, path: str | os.PathLike[str], offset: int, size: int) -> Stream:
        """The encoded bytes of a member.

        Raises ImageError when the system refuses.
        """
        try:
            return self._open(os.fspath(path), offset, size)
        except OSError as error:
            raise ImageError(os.path.join(self.name, path), error.strerror or str(error)) from error

    @abstractmethod
    def _open(self, path: str, offset: int, size: int) -> Stream: ...
