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
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion.data.images import store, uses
from diffusion.data.images.container import Container, LeftOut, Member, Walk
from diffusion.data.images.decoding import Header
from diffusion.data.images.formats import FORMATS, READERS
from diffusion.data.images.parallel import in_order
from diffusion.data.images.reading import Failed, Images, Read, read
from diffusion.data.names import Lazy, Names

# The version of the index. It is to be raised when the code changes such that the same files give another one.
LAYOUT = 6
ROWS, TEXT = "rows.npy", "text.npy"
# The first part of the names of entries that are an index.
INDEX = "index"

# `start` and `end` are those of the name in the concatenation of all names. `frame` is the number of the page that an
# image is, or -1 where it is its whole file, whose `frames` are counted. `mode`, `format` and `group` are numbers in
# the lists of the manifest, and `notices` one in its lists of notices of a header. The group is the class, or -1
# without one.
# `offset` and `size` are those of the member. `state` is a hash of where it lies and of the stamp of its file.
ROW = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("group", "<i8"),
        ("offset", "<i8"),
        ("size", "<i8"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("frames", "<i4"),
        ("frame", "<i4"),
        ("mode", "<i2"),
        ("format", "<i2"),
        ("notices", "<i2"),
        ("digest", "S16"),
        ("state", "S16"),
    ]
)


@dataclass(frozen=True)
class Entry:
    """An image: its path within the container, its header, its label (-1 without classes), and where its bytes lie.

    `offset` and `size` are those of its `Member`. `frame` is the number of its page in the file.
    """

    path: Path
    header: Header
    label: int = -1
    offset: int = 0
    size: int = 0
    frame: int = 0


@dataclass(frozen=True, eq=False)
class Index(Lazy[Entry]):
    """The images of a container in its order: `rows` (N,) with the fields of ROW, and `text`, their concatenated names.

    `content` is the manifest. It holds the names of the modes, formats and groups (the classes with images), the
    problems, all classes with or without images, the number of images that repeat the bytes of another (`copies`), the
    counts of other files, a hash of all names and bytes (`identity`), the lists of notices that headers have, and of
    each notice the number of images that it is about, and the first of them. Of image files that are not read it holds
    the same by suffix (`unread`). It further holds what a `Walk` has of `skipped` files, `folders` and `tables`, and
    whether all images are results of this package (`only_results`). Entries have labels only if `labeled`.

    Where files with several pages are an image for each, `held` (N,) has a hash of the file.
    """

    rows: npt.NDArray[np.void]
    text: npt.NDArray[np.uint8]
    content: dict[str, Any]
    labeled: bool = False
    held: npt.NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> Entry:
        """Returns the image at a number."""
        row = self.rows[number]
        mode, kind = self.content["modes"][row["mode"]], self.content["formats"][row["format"]]
        notices = tuple(self.content["lists"][row["notices"]])
        header = Header(int(row["width"]), int(row["height"]), mode, kind, int(row["frames"]), notices)
        path = Path(os.fsdecode(self.names.encoded(number)))
        label = int(row["group"]) if self.labeled else -1
        return Entry(path, header, label, int(row["offset"]), int(row["size"]), max(0, int(row["frame"])))

    def located(self, number: int) -> Path:
        """Returns the path of the image at a number within the container, with its page if it is one."""
        name, frame = os.fsdecode(self.names.encoded(number)), int(self.rows["frame"][number])
        return Path(name if frame < 0 else f"{name}#{frame + 1}")

    @cached_property
    def names(self) -> Names:
        """The path of every image within the container, as printable text."""
        return Names(self.text, self.rows["end"], self.rows["start"], self.rows["frame"])

    @property
    def modes(self) -> Counter[str]:
        """The number of images by the mode of their header."""
        return counted(self.rows["mode"], self.content["modes"])

    @property
    def formats(self) -> Counter[str]:
        """The number of images by format."""
        return counted(self.rows["format"], self.content["formats"])

    @property
    def problems(self) -> tuple[LeftOut, ...]:
        """The files that were left out, and the reasons."""
        return tuple(LeftOut(Path(path), reason) for path, reason in self.content["problems"])


def counted(numbers: npt.NDArray[Any], names: Sequence[str]) -> Counter[str]:
    """Counts how often each number occurs, by its name, in the order of the numbers; -1 stands for none."""
    counts = np.bincount(numbers[numbers >= 0], minlength=len(names))
    return Counter({name: int(count) for name, count in zip(names, counts, strict=True)})


def open_index(container: Container, cache: Path | None, *, progress: bool) -> Index:
    """Returns the index of a container, from the cache if it holds one of the container in its present state.

    A new index takes what the cache knows of files that have not changed since the last one, and replaces that. It is
    kept in the cache, unless there is none, a file was changed within the last moments, or the system refused to read a
    file. It is then a temporary file, which vanishes with the process.

    Raises OSError when the index cannot be written.
    """
    fingerprint, count = container.glance()
    name = _name(container.root, fingerprint)
    if cache is not None and (known := _open(cache / name)):
        uses.note(cache / name, container.root)
        return known
    before = None if cache is None else _last(cache, container.root)
    with store.unfinished(cache or Path(tempfile.gettempdir())) as folder:
        began = time.time_ns()
        walk = container.walk(reading=True)
        results = in_order(partial(read, container, before), walk, count, title="reading files", progress=progress)
        names, problems, lasting = _write(folder, results, walk)
        rows = store.array(folder / ROWS)
        content = names | {
            "copies": len(rows) - len(np.unique(rows["digest"])),
            "classes": walk.classes,
            "others": dict(walk.others.most_common()),
            "problems": [*((str(p.path), p.reason) for p in walk.problems), *problems],
            "unread": {suffix: [found.count, found.example] for suffix, found in walk.unread.items()},
            "skipped": dict((+walk.skipped).most_common()),
            "folders": dict(walk.folders),
            "tables": walk.tables,
        }
        fresh = Index(rows, store.array(folder / TEXT), content)
        if cache is None or not lasting or not store.settled(walk.newest, began):
            return fresh
        entry = cache / _name(container.root, walk.fingerprint)
        store.publish(folder, entry, content)
        uses.note(entry, container.root)
        return _open(entry) or fresh


def _name(root: Path, fingerprint: int) -> str:
    # The path is part of the key: two mounted disk images may hold different files of equal names, inodes, sizes and
    # times.
    return f"{family(root)}-{fingerprint:032x}"


def family(root: Path) -> str:
    """Returns the first part of the names of the indices of a container, as this version writes them."""
    reader = json.dumps([LAYOUT, READERS, FORMATS])
    key = hashlib.blake2b(reader.encode() + os.fsencode(root.resolve()), digest_size=16)
    return f"{INDEX}-{key.hexdigest()}"


def _open(entry: Path) -> Index | None:
    content = store.read(entry)
    return None if content is None else Index(store.array(entry / ROWS), store.array(entry / TEXT), content)


@dataclass(frozen=True)
class _Known:
    """An earlier index of a container, whose rows are found by their state."""

    index: Index
    order: npt.NDArray[np.int64]

    def __call__(self, member: Member) -> tuple[Header, bytes] | None:
        """Returns header and hash of a member that has not changed since, else None."""
        if member.stamp is None:
            return None
        # NumPy drops zeros at the end of bytes.
        states, state = self.index.rows["state"], _state(member).rstrip(b"\0")
        place = int(np.searchsorted(states, state, sorter=self.order))
        if place == len(states) or states[number := int(self.order[place])] != state:
            return None
        return self.index[number].header, self.index.rows["digest"][number].ljust(16, b"\0")


def _last(cache: Path, root: Path) -> _Known | None:
    """Returns the index of an earlier state of the container at a root, if the cache has one."""
    for entry in cache.glob(f"{family(root)}-*"):
        if (index := _open(entry)) and not index.content["only_results"]:
            return _Known(index, np.argsort(index.rows["state"], kind="stable"))
    return None


def _state(member: Member) -> bytes:
    """Returns a hash of where a member lies and of the stamp of its file; empty where there is no stamp."""
    if member.stamp is None:
        return b""
    facts = "\0".join((member.path, *map(str, (member.offset, member.size, *member.stamp))))
    return hashlib.blake2b(os.fsencode(facts), digest_size=16).digest()


def _write(
    folder: Path, results: Iterable[Read | Failed], walk: Walk
) -> tuple[dict[str, Any], list[tuple[str, str]], bool]:
    """Writes rows and names as they arrive.

    Returns a part of the manifest (the names of modes, formats and groups, and the identity), the problems, and whether
    another pass over the same files would give the same.
    """
    modes, formats, groups, lists = _Codes(), _Codes(), _Codes(), _Codes()
    images, end = Images(results, walk), 0
    notices: dict[str, list[Any]] = {}
    identity = hashlib.blake2b(digest_size=16)
    with store.growing(folder / ROWS, ROW) as add_row, store.growing(folder / TEXT, np.uint8) as add_text:
        for each in images:
            member, header, digest = each.member, each.header, each.digest
            name = os.fsencode(member.path)
            for notice in header.notices:
                notices.setdefault(notice, [0, member.path])[0] += 1
            identity.update(name + b"\0" + digest)
            start, end = end, end + len(name)
            group = -1 if member.group is None else groups[member.group]
            size = header.width, header.height, header.frames, -1
            said = json.dumps(header.notices) if header.notices else "[]"
            kind = modes[header.mode], formats[header.format], lists[said]
            place = start, end, group, member.offset, member.size
            add_row(np.array([(*place, *size, *kind, digest, _state(member))], ROW))
            add_text(np.frombuffer(name, np.uint8))
    used = [name for name in walk.classes if name in groups]
    if used != [*groups]:
        _renumber(folder / ROWS, [groups[name] for name in used])
    names = {
        "modes": [*modes],
        "formats": [*formats],
        "groups": used,
        "identity": identity.hexdigest(),
        "lists": [json.loads(text) for text in lists],
        "notices": notices,
        "only_results": images.only_results,
    }
    return names, images.problems, images.lasting and walk.lasting


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
