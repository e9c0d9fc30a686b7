"""Images in tar and zip files, read in place by the offset and size of their bytes, without unpacking.

By the convention of the webdataset format, the files of one example follow each other and share their path up to the
first dot of its last part. The class of 12.jpg is the one that 12.cls names, or else the first folder on its path.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path

from diffusion.data.images.container import DEPTH, Container, Member, Walk
from diffusion.data.images.decoding import SUFFIXES, BinaryFile, ImageError, printable
from diffusion.data.images.folder import natural
from diffusion.data.images.formats import ARRAYS, HEAD, PICTURES
from diffusion.data.images.junk import junk
from diffusion.data.images.store import stamp
from diffusion.data.images.unread import ARCHIVES
from diffusion.data.images.zips import ERRORS, ZIP, Part, plain_path, read_zipped, zip_parts, zipped_text

SHARD = re.compile(r"\.(zip|tar(\.\w+)?|t[bglxz]z\w*)$", re.IGNORECASE)
# The number of files of one example that are in memory at once. If an example has more, its .cls file applies only to
# the files that are read with it.
LIMIT = 1000
# A .cls file with more bytes is a mistake rather than the name of a class.
MAX_CLASS_BYTES = 1000


@dataclass(frozen=True)
class Shards(Container):
    """The container of the images in one tar or zip file, or in all of a folder.

    `files` are the names of the files in `folder`. Only what lies below the folder `within` in them is read, if it is
    not empty, as if it were all.
    """

    kind = "shards"
    labeling = "the label is in the .cls file of an example, or the first folder on its path in the shard; add one"

    folder: Path
    files: tuple[str, ...]
    within: str = ""

    @property
    def name(self) -> str:
        """Its name in messages."""
        return printable(self.root / self.within)

    def walk(self, *, reading: bool) -> ShardWalk:
        """Starts a pass over all shards in natural order, and over the members of each in their order."""
        return ShardWalk(self.folder, self.files, reading, self.within)

    def text(self, path: str) -> bytes | None:
        """Returns the bytes of a file in a shard, SHARD/PATH, or of the first of this path in any; None without one."""
        shard, _, rest = path.partition("/")
        if shard in self.files and SHARD.search(shard):
            return self._text(shard, rest)
        found = (self._text(name, "/".join(filter(None, (self.within, path)))) for name in self.files)
        return next((text for text in found if text is not None), None)

    def inside(self, path: str) -> str:
        """Returns the path of an image within its shard, below the folder that is read."""
        return path.partition("/")[2][len(self.within) + 1 if self.within else 0 :]

    def _text(self, shard: str, path: str) -> bytes | None:
        if ZIP.search(shard):
            return zipped_text(self.folder / shard, path)
        if not shard.lower().endswith(".tar"):
            return None
        try:
            with tarfile.open(self.folder / shard, "r:") as tar:
                for member in tar:
                    if member.isreg() and plain_path(member.name) == path and (file := tar.extractfile(member)):
                        return file.read()
        except tarfile.TarError:
            pass
        return None

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        file = self.folder / path.partition("/")[0]
        if ZIP.search(file.name):
            try:
                return read_zipped(file, offset)
            except (*ERRORS, KeyError) as error:
                raise ImageError(f"{self.name}/{path}", f"damaged in the archive: {error}") from error
        with file.open("rb") as shard:
            shard.seek(offset)
            return BytesIO(shard.read(size))


def find_shards(path: Path) -> Shards | None:
    """Returns the shards that a path names: a tar or zip file, or a folder of them without images and subfolders.

    A path that goes on within such a file or folder names a folder in its archives. Returns None when the path names
    something else.
    """
    for root in (path, *path.parents):
        if root.exists():
            files = _files(root)
            if not files:
                return None
            within = "" if root == path else path.relative_to(root).as_posix()
            return Shards(root, root.parent if root.is_file() else root, files, within)
    return None


def _files(path: Path) -> tuple[str, ...]:
    """Returns the names of the files of shards at a path, none if there are none."""
    if path.is_file():
        return (path.name,) if SHARD.search(path.name) else ()
    names = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if junk(entry.name) is None:
                    if entry.is_dir() or os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        return ()
                    names.append(entry.name)
    except OSError:
        return ()
    return tuple(natural(names)) if any(map(SHARD.search, names)) else ()


@dataclass
class ShardWalk(Walk):
    """A walk through the archives among the `files` of a folder, whose members are named SHARD/PATH.

    It yields nothing unless it is `reading`: the names and times of the shards suffice for the fingerprint. What nobody
    means is skipped, such as names that start with a dot, and so is what does not lie below the folder `within`. `seen`
    are the classes found so far, `stamp` is that of the shard being read.
    """

    folder: Path
    files: tuple[str, ...]
    reading: bool
    within: str = ""
    seen: set[str] = field(default_factory=set)
    stamp: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Member]:
        if self.within:
            self.note("within", self.within)
        for name in self.files:
            try:
                yield from self._file(name)
            except OSError as error:
                self.lasting = False
                self.leave_out(name, error.strerror or str(error))
        self.classes = list(natural(self.seen))

    def _file(self, name: str) -> Iterator[Member]:
        status = (self.folder / name).stat()
        self.note_file(name, status)
        self.stamp = stamp(status)
        if not SHARD.search(name):
            self.is_image(name)
        elif not stat.S_ISREG(status.st_mode):
            self.leave_out(name, "not a regular file")
        elif not name.lower().endswith((".tar", ".zip")):
            self.leave_out(name, "a compressed archive cannot be read at an offset; decompress it to a plain .tar")
        elif self.reading:
            yield from self._shard(name, status.st_size)

    def _shard(self, name: str, size: int) -> Iterator[Member]:
        if ZIP.search(name):
            parts = zip_parts(self.folder / name, lambda path, reason: self._without(name, path, reason))
            yield from self._examples(name, parts)
            return
        try:
            with tarfile.open(self.folder / name, "r:") as tar:
                yield from self._examples(name, self._whole(tar, name, size))
        except (tarfile.TarError, ValueError) as error:
            self.leave_out(name, f"not a plain tar archive, or damaged: {error}")

    def _without(self, shard: str, path: str, reason: str) -> None:
        """Leaves out a shard, or an image in it."""
        if not path:
            self.leave_out(shard, reason)
        elif os.path.splitext(path)[1].lower() in SUFFIXES and not any(map(junk, path.split("/"))):
            self.leave_out(f"{shard}/{path}", reason)

    def _examples(self, name: str, parts: Iterator[Part]) -> Iterator[Member]:
        meant = (part for part in parts if self._is_meant(part.name))
        for _, example in groupby(meant, key=_example):
            while files := list(islice(example, LIMIT)):
                yield from self._images(name, files)

    def _is_meant(self, path: str) -> bool:
        if self.within and not path.startswith(f"{self.within}/"):
            return False
        return not any(map(self.skips, path.split("/")))

    def _whole(self, tar: tarfile.TarFile, name: str, size: int) -> Iterator[Part]:
        """Yields the files of an archive up to its end or its first damage, each under its path in the archive."""
        count = 0
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else tarfile would keep all of them in memory
            count += 1
            path = plain_path(member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                self._without(name, path, "not a regular file")
            elif member.offset_data + member.size > size:
                self.leave_out(f"{name}/{path}", "the shard ends before it does")
                return
            else:
                yield Part(path, member.offset_data, member.size, partial(_start, tar, member.offset_data, member.size))
        with (self.folder / name).open("rb") as file:
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
        if end != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end.
            at = f"damaged at byte {tar.offset:,}; what follows is not read"
            self.leave_out(name, at if len(end) == tarfile.BLOCKSIZE else "no mark of its end; it may be cut short")
        elif not count:
            self.leave_out(name, "the archive is empty")

    def _images(self, name: str, files: list[Part]) -> Iterator[Member]:
        """Yields the images of an example, each with its class."""
        label = None
        for file in files:
            if file.name == f"{_example(file)}.cls":
                label = self._class(name, file) or label
        pictured = any(_suffix(file) in PICTURES for file in files)
        for file in files:
            path = f"{name}/{file.name}"
            if pictured and _suffix(file) in ARRAYS:
                self.ignore(path)
            elif _suffix(file) in ARCHIVES:
                self.leave_out(path, "an archive within an archive is not read; unpack it")
            elif file.name.endswith(".cls"):
                continue
            elif self.is_image(path, partial(file.read, HEAD)):
                folder, _, rest = file.name[len(self.within) + 1 if self.within else 0 :].partition("/")
                group = label or (folder if rest else None)
                if group:
                    self.seen.add(group)
                self.count(path.rpartition("/")[0], depth=DEPTH + 1)
                yield Member(path, file.offset, file.size, group, self.stamp)

    def _class(self, name: str, file: Part) -> str:
        """Returns the class that a .cls file names, or an empty text if it names none."""
        text = file.read(MAX_CLASS_BYTES + 1)
        if 0 < len(text) <= MAX_CLASS_BYTES:
            return printable(os.fsdecode(text)).strip()
        self.leave_out(f"{name}/{file.name}", f"not the name of a class: {file.size:,} bytes")
        return ""


def _suffix(file: Part) -> str:
    return os.path.splitext(file.name)[1].lower()


def _start(tar: tarfile.TarFile, offset: int, size: int, count: int) -> bytes:
    assert tar.fileobj is not None
    tar.fileobj.seek(offset)
    return tar.fileobj.read(min(size, count))


def _example(file: Part) -> str:
    """Returns the path of a file up to the first dot of its last part."""
    folder, slash, last = file.name.rpartition("/")
    return folder + slash + last.partition(".")[0]
