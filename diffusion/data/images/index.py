"""The images of a container with their headers and hashes: one row and one name each, in files that stay on disk.

The cache keeps an index under the fingerprint of its container, so that one in which nothing changed is listed but not
read. An index is written once, verified like every entry of the cache, and never updated.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from diffusion.data.images import store
from diffusion.data.images.container import Container, Member, Problem, Walk
from diffusion.data.images.decoding import FORMATS, Header, ImageError, read_header
from diffusion.data.images.parallel import in_order
from diffusion.data.names import Lazy, Names

# To be raised when the same files come to give another index.
LAYOUT = 2
ROWS, TEXT = "rows.npy", "text.npy"

# `end` is where the name ends among all names; `mode`, `format` and `group` are numbers in the lists of the manifest.
# The group is the class, or -1; `offset` and `size` are those of the member.
ROW = np.dtype(
    [
        ("end", "<i8"),
        ("group", "<i8"),
        ("offset", "<i8"),
        ("size", "<i8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("frames", "<i4"),
        ("mode", "<i2"),
        ("format", "<i2"),
        ("digest", "S16"),
    ]
)


@dataclass(frozen=True)
class Entry:
    """An image: its path within the container and where its bytes are, and its label, which is -1 without classes."""

    path: Path
    header: Header
    label: int = -1
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, eq=False)
class Index(Lazy[Entry]):
    """The images of a container in its order; `rows` has the fields of ROW.

    `content` says what the modes, formats and groups are called, what was left out and why, which classes there are,
    with images or not, how many images repeat the bytes of another, and a hash of all names and bytes, `identity`.
    """

    rows: npt.NDArray[np.void]
    text: npt.NDArray[np.uint8]
    content: dict[str, Any]
    labeled: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> Entry:
        """An image."""
        row = self.rows[number]
        mode, kind = self.content["modes"][row["mode"]], self.content["formats"][row["format"]]
        header = Header(int(row["width"]), int(row["height"]), mode, kind, int(row["frames"]))
        path = Path(os.fsdecode(self.names.encoded(number)))
        label = int(row["group"]) if self.labeled else -1
        return Entry(path, header, label, int(row["offset"]), int(row["size"]))

    @cached_property
    def names(self) -> Names:
        """The path of every image within the container, as text that can be printed."""
        return Names(self.text, self.rows["end"])

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was left out, and why."""
        return tuple(Problem(Path(path), reason) for path, reason in self.content["problems"])


def open_index(container: Container, cache: Path | None, *, progress: bool) -> Index:
    """The index of a container, from the cache when there is one of the container as it is now.

    Without a cache, when a file was changed this very moment, and when the system refused to read one, it is not kept:
    it is then a temporary file, which vanishes with the process.

    Raises OSError when it cannot be written.
    """
    fingerprint, count = container.glance()
    if cache is not None and (known := _open(cache / _name(container.root, fingerprint))):
        return known
    with store.unfinished(cache or Path(tempfile.gettempdir())) as folder:
        began = time.time_ns()
        walk = container.walk(reading=True)
        results = in_order(partial(_read, container), walk, count, title="reading files", progress=progress)
        names, problems, lasting = _write(folder, results, walk)
        rows = store.array(folder / ROWS)
        content = names | {
            "copies": len(rows) - len(np.unique(rows["digest"])),
            "classes": walk.classes,
            "others": dict(walk.others.most_common()),
            "problems": [*((str(p.path), p.reason) for p in walk.problems), *problems],
        }
        fresh = Index(rows, store.array(folder / TEXT), content)
        if cache is None or not lasting or not store.settled(walk.newest, began):
            return fresh
        entry = cache / _name(container.root, walk.fingerprint)
        store.publish(folder, entry, content)
        return _open(entry) or fresh


def _name(root: Path, fingerprint: int) -> str:
    # The place is part of it: two mounted images may hold other files of equal names, numbers, sizes and times.
    reader = json.dumps([LAYOUT, PIL.__version__, FORMATS, fingerprint])
    key = hashlib.blake2b(reader.encode() + os.fsencode(root.resolve()), digest_size=16)
    return f"index-{key.hexdigest()}"


def _open(entry: Path) -> Index | None:
    content = store.read(entry)
    return None if content is None else Index(store.array(entry / ROWS), store.array(entry / TEXT), content)


@dataclass(frozen=True)
class _Unread:
    path: str
    reason: str
    passing: bool


def _read(container: Container, member: Member) -> tuple[Member, Header, bytes] | _Unread:
    """A member with the header and a hash of its bytes, or why there is none."""
    try:
        with container.open(member.path, member.offset, member.size) as file:
            header = read_header(member.path, file)
            file.seek(0)
            return member, header, store.digest(file)
    except ImageError as error:
        return _Unread(member.path, error.reason, error.passing)
    except OSError as error:
        return _Unread(member.path, error.strerror or str(error), passing=True)


def _write(
    folder: Path, results: Iterable[tuple[Member, Header, bytes] | _Unread], walk: Walk
) -> tuple[dict[str, Any], list[tuple[str, str]], bool]:
    """Writes the rows as they come; returns the numbered names of modes, formats and groups with the identity, the
    problems, and whether all of it would be the same another time.
    """
    modes, formats, groups = _Codes(), _Codes(), _Codes()
    problems, lasting, end = [], True, 0
    identity = hashlib.blake2b(digest_size=16)
    with store.growing(folder / ROWS, ROW) as add_row, store.growing(folder / TEXT, np.uint8) as add_text:
        for result in results:
            if isinstance(result, _Unread):
                problems.append((result.path, result.reason))
                lasting &= not result.passing
                continue
            member, header, digest = result
            name = os.fsencode(member.path)
            identity.update(name + b"\0" + digest)
            end += len(name)
            group = -1 if member.group is None else groups[member.group]
            size = header.width, header.height, header.frames
            kind = modes[header.mode], formats[header.format]
            add_row(np.array([(end, group, member.offset, member.size, *size, *kind, digest)], ROW))
            add_text(np.frombuffer(name, np.uint8))
    used = [name for name in walk.classes if name in groups]
    if used != [*groups]:
        _renumber(folder / ROWS, [groups[name] for name in used])
    names = {"modes": [*modes], "formats": [*formats], "groups": used, "identity": identity.hexdigest()}
    return names, problems, lasting and walk.lasting


def _renumber(path: Path, order: list[int]) -> None:
    """Gives the groups, which were numbered as they came, their numbers in another order."""
    rank = np.append(np.argsort(order), -1)
    rows = np.load(path, mmap_mode="r+", allow_pickle=False)
    rows["group"] = rank[rows["group"]]
    rows.flush()


class _Codes(dict[str, int]):
    """Numbers 0, 1, ... for texts in the order in which they are first asked for."""

    def __missing__(self, text: str) -> int:
        return self.setdefault(text, len(self))
