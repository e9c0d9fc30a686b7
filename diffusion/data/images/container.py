"""The interface of containers of encoded images: a container lists its images in one pass, and opens each of them.

Its kinds are a folder of files (folder.py), archives (shards.py) and a Hugging Face dataset (huggingface.py).
Scanning, decoding and packing know this interface only.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import ClassVar

from diffusion.data.images.decoding import SUFFIXES, BinaryFile, ImageError, printable
from diffusion.data.images.formats import UNREAD
from diffusion.data.images.junk import junk
from diffusion.data.images.store import stamp
from diffusion.data.images.unread import NAMELESS, TEXTS, content_suffix

# Folders of images are counted to this depth, and no more of them than this.
DEPTH, FOLDERS = 3, 20_000
# Names of files that usually hold labels, and how many of them are kept.
TABLES = frozenset(
    {
        *("dataset.json", "metadata.jsonl", "metadata.csv", "labels.csv", "labels.tsv", "labels.json", "labels.jsonl"),
        *("label.csv", "classes.csv", "train.csv", "annotations.csv", "data.csv", "labels.txt", "train_labels.csv"),
        *("trainlabels.csv", "metadata.tsv", "metadata.json", "index.csv"),
    }
)
MAX_TABLES = 20


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is left out: its path within its container, and the reason."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}"


@dataclass(frozen=True)
class Member:
    """An image of a container: its path within the container, and its class `group`, if any.

    `offset` and `size` say where its bytes lie in a container whose paths alone do not say it. `stamp` is that of the
    file that holds them: with path, offset, size and stamp unchanged, they are unchanged. None says nothing of that.
    """

    path: str
    offset: int = 0
    size: int = 0
    group: str | None = None
    stamp: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Unread:
    """Image files that are not read: how many there are, and the path of the first."""

    count: int
    example: str


@dataclass(kw_only=True)
class Walk(ABC):
    """A pass over a container: iterating yields its images, and collects facts that are complete at the end.

    `fingerprint` is Σ hash(path, facts) mod 2¹²⁸ over everything that was seen, in any order. It is the same only if
    nothing was added, removed, renamed or written to. `newest` is the time of the last change, in ns. `lasting` is
    false if the system refused to read a part, so that another pass may find more. `problems` are the files that are
    left out. `unread` are the image files of formats that are not read, by suffix. `others` counts the files that are
    not images, by suffix. `skipped` counts the files and folders that nobody means, by name. `folders` counts images by
    folder, DEPTH deep. `tables` are files that may hold the labels of images. `classes` are all classes in
    their order, with or without images.
    """

    fingerprint: int = 0
    newest: int = 0
    lasting: bool = True
    problems: list[LeftOut] = field(default_factory=list)
    unread: dict[str, Unread] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)
    tables: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    @abstractmethod
    def __iter__(self) -> Iterator[Member]:
        """Yields the images."""

    def note(self, path: str, *facts: object) -> None:
        """Adds a path to the fingerprint, with the facts about it that must not change."""
        seen = "\0".join((path, *map(str, facts)))
        digest = hashlib.blake2b(os.fsencode(seen), digest_size=16).digest()
        self.fingerprint = (self.fingerprint + int.from_bytes(digest, "little")) % 2**128

    def note_file(self, path: str, status: os.stat_result) -> None:
        """Adds a file to the fingerprint, with its inode, size and times."""
        self.newest = max(self.newest, status.st_ctime_ns)
        self.note(path, *stamp(status))

    def skips(self, name: str) -> bool:
        """Whether nobody means a file or folder of this name, which is then counted."""
        heading = junk(name)
        if heading is not None:
            self.skipped[printable(heading)] += 1
        return heading is not None

    def count(self, folder: str, images: int = 1, *, depth: int = DEPTH) -> None:
        """Counts images in a folder, a path with slashes, of which the first `depth` parts are kept."""
        place = "/".join(folder.split("/")[:depth])
        if place in self.folders or len(self.folders) < FOLDERS:
            self.folders[place] += images

    def is_image(self, path: str, head: Callable[[], bytes] = bytes) -> bool:
        """Whether a file is to be read by its suffix; other files are counted, as images that are not read if they are.

        `head` returns the first HEAD bytes of the file, which tell where the suffix does not.
        """
        suffix = os.path.splitext(path)[1].lower()
        if suffix in SUFFIXES:
            return True
        if suffix in UNREAD:
            self.not_read(suffix, path)
        elif suffix not in TEXTS and content_suffix(head()):
            self.not_read(printable(suffix) or NAMELESS, path)
        else:
            self.ignore(path)
        return False

    def not_read(self, suffix: str, path: str) -> None:
        """Counts an image file that is not read."""
        before = self.unread.get(suffix) or Unread(0, printable(path))
        self.unread[suffix] = Unread(before.count + 1, before.example)

    def ignore(self, path: str) -> None:
        """Counts a file that is not an image, and keeps its name if it may be a table of labels."""
        if PurePath(path).name.lower() in TABLES and len(self.tables) < MAX_TABLES:
            self.tables.append(printable(path))
        self.others[printable(PurePath(path).suffix.lower()) or "without suffix"] += 1

    def leave_out(self, path: str, reason: str) -> None:
        """Adds a path that cannot be used, and the reason, to the problems."""
        self.problems.append(LeftOut(Path(path), reason))


@dataclass(frozen=True)
class Container(ABC):
    """Encoded images at `root`, a file or folder that is never written to.

    `kind` is its name in tables. `labeling` says how its images get classes: it completes the message "an image has no
    class: ...".
    """

    root: Path
    kind: ClassVar[str]
    labeling: ClassVar[str]

    @property
    def name(self) -> str:
        """Its name in messages."""
        return printable(self.root)

    @abstractmethod
    def walk(self, *, reading: bool) -> Walk:
        """Starts a pass over all images in their order.

        Without `reading`, the pass is for the fingerprint alone: it may yield the images in any order, or none of them.
        """

    def glance(self) -> tuple[int, int | None]:
        """Returns the fingerprint, and the number of images if it can be known without reading, else None."""
        walk = self.walk(reading=False)
        count = sum(1 for _ in walk)
        return walk.fingerprint, count or None

    def text(self, path: str) -> bytes | None:
        """Returns the bytes of a file that lies in the container beside the images; None where there is none."""
        return None

    def inside(self, path: str) -> str:
        """Returns the path of an image as people mean it: within its folder or archive, with slashes."""
        return path.replace(os.sep, "/")

    def open(self, path: str | os.PathLike[str], offset: int, size: int) -> BinaryFile:
        """Opens the encoded bytes of a member.

        Raises ImageError when the system refuses to.
        """
        try:
            return self._open(os.fspath(path), offset, size)
        except OSError as error:
            raise ImageError(os.path.join(self.name, path), error.strerror or str(error)) from error

    @abstractmethod
    def _open(self, path: str, offset: int, size: int) -> BinaryFile: ...
