"""The index of a container: the header and hash of every image, as one row and one name each, in files on disk.

The cache keeps an index under the fingerprint of its container, so that a container in which nothing changed is listed
but not read. An index is written once, verified like every entry of the cache, and never updated.
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

from diffusion.data.images import store
from diffusion.data.images.container import Container, LeftOut, Member, Walk
from diffusion.data.images.decoding import Header, ImageError, read_header
from diffusion.data.images.formats import FORMATS, READERS
from diffusion.data.images.parallel import in_order
from diffusion.data.names import Lazy, Names

# The version of the index. It is to be raised when the code changes such that the same files give another one.
LAYOUT = 3
ROWS, TEXT = "rows.npy", "text.npy"

# `end` is the end of the name in the concatenation of all names. `mode`, `format` and `group` are numbers in the lists
# of the manifest. The group is the class, or -1 without one. `offset` and `size` are those of the member.
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
    """An image: its path within the container, its header, its label (-1 without classes), and where its bytes lie.

    `offset` and `size` are those of its `Member`.
    """

    path: Path
    header: Header
    label: int = -1
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, eq=False)
class Index(Lazy[Entry]):
    """The images of a container in its order: `rows` (N,) with the fields of ROW, and `text`, their concatenated names.

    `content` is the manifest. It holds the names of the modes, formats and groups (the classes with images), the
    problems, all classes with or without images, the number of images that repeat the bytes of another (`copies`), the
    counts of other files, a hash of all names and bytes (`identity`), and of each notice of the headers the number of
    images that it is about, and the first of them. Entries have labels only if `labeled`.
    """

    rows: npt.NDArray[np.void]
    text: npt.NDArray[np.uint8]
    content: dict[str, Any]
    labeled: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> Entry:
        """Returns the image at a number."""
        row = self.rows[number]
        mode, kind = self.content["modes"][row["mode"]], self.content["formats"][row["format"]]
        header = Header(int(row["width"]), int(row["height"]), mode, kind, int(row["frames"]))
        path = Path(os.fsdecode(self.names.encoded(number)))
        label = int(row["group"]) if self.labeled else -1
        return Entry(path, header, label, int(row["offset"]), int(row["size"]))

    @cached_property
    def names(self) -> Names:
        """The path of every image within the container, as printable text."""
        return Names(self.text, self.rows["end"])

    @property
    def problems(self) -> tuple[LeftOut, ...]:
        """The files that were left out, and the reasons."""
        return tuple(LeftOut(Path(path), reason) for path, reason in self.content["problems"])


def open_index(container: Container, cache: Path | None, *, progress: bool) -> Index:
    """Returns the index of a container, from the cache if it holds one of the container in its present state.

    A new index is kept in the cache, unless there is none, a file was changed within the last moments, or the system
    refused to read a file. It is then a temporary file, which vanishes with the process.

    Raises OSError when the index cannot be written.
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
    # The path is part of the key: two mounted disk images may hold different files of equal names, inodes, sizes and
    # times.
    reader = json.dumps([LAYOUT, READERS, FORMATS, fingerprint])
    key = hashlib.blake2b(reader.encode() + os.fsencode(root.resolve()), digest_size=16)
    return f"index-{key.hexdigest()}"


def _open(entry: Path) -> Index | None:
    content = store.read(entry)
    return None if content is None else Index(store.array(entry / ROWS), store.array(entry / TEXT), content)


@dataclass(frozen=True)
class _Unread:
    """A member that could not be read; `transient` if another pass may be able to read it."""

    path: str
    reason: str
    transient: bool


def _read(container: Container, member: Member) -> tuple[Member, Header, bytes] | _Unread:
    """Returns a member with its header and a hash of its bytes, or the reason why it could not be read."""
    try:
        with container.open(member.path, member.offset, member.size) as file:
            header = read_header(member.path, file)
            file.seek(0)
            return member, header, store.digest(file)
    except ImageError as error:
        return _Unread(member.path, error.reason, error.transient)
    except OSError as error:
        return _Unread(member.path, error.strerror or str(error), transient=True)


def _write(
    folder: Path, results: Iterable[tuple[Member, Header, bytes] | _Unread], walk: Walk
) -> tuple[dict[str, Any], list[tuple[str, str]], bool]:
    """Writes rows and names as they arrive.

    Returns a part of the manifest (the names of modes, formats and groups, and the identity), the problems, and whether
    another pass over the same files would give the same.
    """
    modes, formats, groups = _Codes(), _Codes(), _Codes()
    problems, lasting, end = [], True, 0
    notices: dict[str, list[Any]] = {}
    identity = hashlib.blake2b(digest_size=16)
    with store.growing(folder / ROWS, ROW) as add_row, store.growing(folder / TEXT, np.uint8) as add_text:
        for result in results:
            if isinstance(result, _Unread):
                problems.append((result.path, result.reason))
                lasting &= not result.transient
                continue
            member, header, digest = result
            name = os.fsencode(member.path)
            for notice in header.notices:
                notices.setdefault(notice, [0, member.path])[0] += 1
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
    names = {
        "modes": [*modes],
        "formats": [*formats],
        "groups": used,
        "identity": identity.hexdigest(),
        "notices": notices,
    }
    return names, problems, lasting and walk.lasting


def _renumber(path: Path, order: list[int]) -> None:
    """Renumbers the groups of the rows in a file such that group `order[i]` becomes i."""
    rank = np.append(np.argsort(order), -1)
    rows = np.load(path, mmap_mode="r+", allow_pickle=False)
    rows["group"] = rank[rows["group"]]
    rows.flush()


class _Codes(dict[str, int]):
    """A dict that numbers texts 0, 1, ... in the order in which they are first looked up."""

    def __missing__(self, text: str) -> int:
        return self.setdefault(text, len(self))
