"""The files in a zip archive, read in place: stored ones and compressed ones, each verified by its checksum."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from diffusion.data.images.folder import path_key
from diffusion.data.images.store import stamp

ZIP = re.compile(r"\.zip$", re.IGNORECASE)
# A file of more bytes is no image that is read.
MAX_BYTES = 1 << 31
ENCRYPTED, UTF8 = 0x1, 0x800
# Errors of reading archives that are damaged, encrypted, or compressed in a way that is not read.
ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError)


@dataclass(frozen=True)
class Part:
    """A file in an archive: its path there, where it begins, its size there, and a function that reads its start."""

    name: str
    offset: int
    size: int
    read: Callable[[int], bytes]


def zip_parts(path: Path, leave_out: Callable[[str, str], None]) -> Iterator[Part]:
    """Yields the files in a zip archive, in the natural order of a folder that it would be unpacked to.

    `leave_out` is called with the path in the archive and the reason for a file that cannot be read, and with an empty
    path for the archive itself. Of several files of one name the last is meant.
    """
    try:
        archive = _opened(os.fspath(path), stamp(path.stat()))
    except ERRORS as error:
        leave_out("", _reason(path, error))
        return
    # Python takes a folder that ends with the separator of Windows for a file.
    files = (info for info in archive.by_offset.values() if not info.filename.endswith(("/", "\\")))
    parts = {_name(info): info for info in files}
    if not parts:
        leave_out("", "the archive is empty")
    for name in sorted(parts, key=path_key):
        info = parts[name]
        if info.flag_bits & ENCRYPTED:
            leave_out(name, "encrypted; unpack the archive with its password")
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            leave_out(name, f"compressed by method {info.compress_type}, which is not read; unpack the archive")
        else:
            yield Part(name, info.header_offset, info.compress_size, partial(_start, archive, info))


def read_zipped(path: Path, offset: int) -> BytesIO:
    """Returns the bytes of the file that begins at an offset in a zip archive.

    Raises OSError when the system refuses to read, an error of ERRORS when the file is damaged.
    """
    archive = _opened(os.fspath(path), stamp(path.stat()))
    info = archive.by_offset[offset]
    if info.file_size > MAX_BYTES:
        raise ValueError(f"{info.file_size:,} bytes, too many for an image")
    return BytesIO(archive.file.read(info))


def zipped_text(path: Path, name: str) -> bytes | None:
    """Returns the bytes of the file of this name in a zip archive; None where there is none."""
    try:
        archive = _opened(os.fspath(path), stamp(path.stat()))
        found = [info for info in archive.by_offset.values() if _name(info) == name]
        return archive.file.read(found[-1]) if found else None
    except ERRORS:
        return None


def plain_path(name: str) -> str:
    """Returns the path of a file in an archive from its root on, without ./ and doubled slashes."""
    return str(PurePosixPath(name.lstrip("/")))


@dataclass(frozen=True)
class _Archive:
    file: zipfile.ZipFile
    by_offset: dict[int, zipfile.ZipInfo]


# The list of files is at the end of an archive and is read once. A changed archive has another stamp.
@lru_cache(maxsize=16)
def _opened(path: str, _: tuple[int, ...]) -> _Archive:
    file = zipfile.ZipFile(path)
    return _Archive(file, {info.header_offset: info for info in file.infolist()})


def _start(archive: _Archive, info: zipfile.ZipInfo, count: int) -> bytes:
    try:
        with archive.file.open(info) as file:
            return file.read(count)
    except ERRORS:
        return b""


def _name(info: zipfile.ZipInfo) -> str:
    """Returns the path of a file in an archive, as the program that packed it meant it."""
    name = info.filename
    if not info.flag_bits & UTF8:
        # The format says cp437; many programs write UTF-8 without saying so.
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            name = info.filename
    if "/" not in name:  # Some programs of Windows write its separator.
        name = name.replace("\\", "/")
    return plain_path(name)


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        begins = file.read(2) == b"PK"
    if begins and isinstance(error, zipfile.BadZipFile):
        return "no list of its files at its end; it may be cut short, or the first part of several"
    return f"not a zip archive, or damaged: {error}"
