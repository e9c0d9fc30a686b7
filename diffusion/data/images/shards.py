"""Images in tar files, read in place by the offset and size of their bytes, without unpacking.

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
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path, PurePosixPath

from diffusion.data.images.container import Container, Member, Walk
from diffusion.data.images.decoding import SUFFIXES, BinaryFile, printable
from diffusion.data.images.folder import natural
from diffusion.data.images.store import stamp

SHARD = re.compile(r"\.(tar(\.\w+)?|t[bglxz]z\w*)$", re.IGNORECASE)
# The number of files of one example that are in memory at once. If an example has more, its .cls file applies only to
# the files that are read with it.
LIMIT = 1000
# A .cls file with more bytes is a mistake rather than the name of a class.
MAX_CLASS_BYTES = 1000


@dataclass(frozen=True)
class Shards(Container):
    """The container of the images in one tar file, or in all tar files of a folder.

    `files` are the names of the files in `folder`.
    """

    kind = "shards"
    labeling = "the label is in the .cls file of an example, or the first folder on its path in the shard; add one"

    folder: Path
    files: tuple[str, ...]

    def walk(self, *, reading: bool) -> ShardWalk:
        """Starts a pass over all shards in natural order, and over the members of each in their order."""
        return ShardWalk(self.folder, self.files, reading)

    def _open(self, path: str, offset: int, size: int) -> BinaryFile:
        with (self.folder / path.partition("/")[0]).open("rb") as shard:
            shard.seek(offset)
            return BytesIO(shard.read(size))


def find_shards(path: Path) -> Shards | None:
    """Returns the shards that a path names: a tar file, or a folder of tar files without images and subfolders.

    Returns None when the path names something else.
    """
    if path.is_file() and SHARD.search(path.name):
        return Shards(path, path.parent, (path.name,))
    names = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    if entry.is_dir() or os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        return None
                    names.append(entry.name)
    except OSError:
        return None
    return Shards(path, path, tuple(natural(names))) if any(map(SHARD.search, names)) else None


@dataclass
class ShardWalk(Walk):
    """A walk through the tar files among the `files` of a folder, whose members are named SHARD/PATH.

    It yields nothing unless it is `reading`: the names and times of the shards suffice for the fingerprint. Names that
    start with a dot are skipped. `seen` are the classes found so far, `stamp` is that of the shard being read.
    """

    folder: Path
    files: tuple[str, ...]
    reading: bool
    seen: set[str] = field(default_factory=set)
    stamp: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Member]:
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
            self.ignore(name)
        elif not stat.S_ISREG(status.st_mode):
            self.leave_out(name, "not a regular file")
        elif not name.lower().endswith(".tar"):
            self.leave_out(name, "a compressed archive cannot be read at an offset; decompress it to a plain .tar")
        elif self.reading:
            yield from self._shard(name, status.st_size)

    def _shard(self, name: str, size: int) -> Iterator[Member]:
        try:
            with tarfile.open(self.folder / name, "r:") as tar:
                for _, example in groupby(self._whole(tar, name, size), key=_example):
                    while files := list(islice(example, LIMIT)):
                        yield from self._images(tar, name, files)
        except (tarfile.TarError, ValueError) as error:
            self.leave_out(name, f"not a plain tar archive, or damaged: {error}")

    def _whole(self, tar: tarfile.TarFile, name: str, size: int) -> Iterator[tarfile.TarInfo]:
        """Yields the files of an archive up to its end or its first damage, each under its path in the archive."""
        count = 0
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else tarfile would keep all of them in memory
            count += 1
            member.name = str(PurePosixPath(member.name.lstrip("/")))
            if member.isdir() or any(part.startswith(".") for part in member.name.split("/")):
                continue
            if not member.isreg() or member.issparse():
                if _is_image(member):
                    self.leave_out(f"{name}/{member.name}", "not a regular file")
            elif member.offset_data + member.size > size:
                self.leave_out(f"{name}/{member.name}", "the shard ends before it does")
                return
            else:
                yield member
        with (self.folder / name).open("rb") as file:
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
        if end != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end.
            at = f"damaged at byte {tar.offset:,}; what follows is not read"
            self.leave_out(name, at if len(end) == tarfile.BLOCKSIZE else "no mark of its end; it may be cut short")
        elif not count:
            self.leave_out(name, "the archive is empty")

    def _images(self, tar: tarfile.TarFile, name: str, files: list[tarfile.TarInfo]) -> Iterator[Member]:
        """Yields the images of an example, each with its class."""
        label = None
        for file in files:
            if file.name == f"{_example(file)}.cls":
                label = self._class(tar, name, file) or label
        for file in files:
            if _is_image(file):
                folder, _, rest = file.name.partition("/")
                group = label or (folder if rest else None)
                if group:
                    self.seen.add(group)
                yield Member(f"{name}/{file.name}", file.offset_data, file.size, group, self.stamp)
            elif not file.name.endswith(".cls"):
                self.ignore(file.name)

    def _class(self, tar: tarfile.TarFile, name: str, file: tarfile.TarInfo) -> str:
        """Returns the class that a .cls file names, or an empty text if it names none."""
        content = tar.extractfile(file)
        assert content is not None
        text = content.read(MAX_CLASS_BYTES + 1)
        if 0 < len(text) <= MAX_CLASS_BYTES:
            return printable(os.fsdecode(text)).strip()
        self.leave_out(f"{name}/{file.name}", f"not the name of a class: {file.size:,} bytes")
        return ""


def _example(file: tarfile.TarInfo) -> str:
    """Returns the path of a file up to the first dot of its last part."""
    folder, slash, last = file.name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _is_image(file: tarfile.TarInfo) -> bool:
    return os.path.splitext(file.name)[1].lower() in SUFFIXES
