"""Files of `torch.save` as archives: what lies in them, and where, checked before anything of it is read.

Since torch 1.6 such a file is a zip archive of entries that are stored as they are, without compression:

    NAME/data.pkl     a pickle that says which tensors there are
    NAME/data/KEY     the bytes of a storage, on which tensors lie
    NAME/byteorder    "little" or "big"

Here the archive is opened, its list of entries is read, and the bytes of entries. Nothing is unpickled.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion.errors import InputError, require

# Bytes that are read at once where the archive says how many: a list of about 200,000 entries, or a pickle.
MOST_AT_ONCE = 1 << 24
ENCRYPTED = 0x1
# The header in front of the bytes of an entry: its length, and where it has the lengths of the parts that follow it.
HEADER, HEADER_MARK, LENGTHS = 30, b"PK\x03\x04", 26
ERRORS = (OSError, EOFError, RuntimeError, ValueError, OverflowError, zipfile.BadZipFile, struct.error)
RECIPE = "python -c \"import torch; torch.save(torch.load('FILE', map_location='cpu', weights_only=True), 'NEW')\""
OLD = (
    f"not in the format of torch.save since torch 1.6, and reading others may run what is in them; convert it: {RECIPE}"
)


@dataclass(frozen=True)
class Entry:
    """An entry of an archive: where its header begins, the bytes that it has, and their checksum, 0 for none."""

    start: int
    size: int
    checksum: int


class TorchArchive:
    """The entries of a file of `torch.save` by their names, without the name of the archive in front of them."""

    def __init__(self, path: Path, file: io.BufferedReader, entries: dict[str, Entry]) -> None:
        self.path, self.entries, self._file = path, entries, file

    def read(self, name: str) -> Tensor:
        """Returns the bytes of an entry, uint8, read once from the file into memory of their own.

        Raises InputError for an entry that is missing, cut short, or has not the checksum that it was written with.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise InputError(f"{self.path}: has no entry {name}: the file is damaged, or was not written by torch.save")
        try:
            self._file.seek(entry.start)
            header = self._file.read(HEADER)
            skipped = sum(struct.unpack_from("<HH", header, LENGTHS))
            found = torch.empty(entry.size, dtype=torch.uint8)
            self._file.seek(skipped, io.SEEK_CUR)
            whole = self._file.readinto(found.numpy().data) == entry.size
        except ERRORS as error:
            raise InputError(f"{self.path}: {name} cannot be read ({error})") from None
        if not whole or not header.startswith(HEADER_MARK):
            raise InputError(f"{self.path}: {name} is cut short or lies elsewhere: the file is damaged; get it again")
        # torch leaves the checksum at zero where it was told not to compute any.
        if entry.checksum and zlib.crc32(found.numpy().data) != entry.checksum:
            raise InputError(f"{self.path}: {name} does not have its checksum: the file is damaged; get it again")
        return found


@contextmanager
def opened(path: Path) -> Iterator[TorchArchive]:
    """Opens a file of `torch.save` for reading.

    Raises InputError for a file in any other format, with what it likely is and what to do, and for an archive with
    compressed, encrypted or repeated entries, with more bytes than the file has, or of another byte order.
    """
    try:
        file = _Careful(io.FileIO(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    with file:
        if reason := _other_format(file):
            raise InputError(f"{path}: {reason}")
        archive = TorchArchive(path, file, _entries(path, file))
        if "byteorder" in archive.entries:
            require(archive.entries["byteorder"].size < 16, f"{path}: byteorder", "little or big", "a longer text")
            order = bytes(archive.read("byteorder").tolist()).decode("latin-1")
            require(order == sys.byteorder, f"{path}: byteorder", f"{sys.byteorder}, as on this machine", repr(order))
        yield archive


class _Careful(io.BufferedReader):
    """A file of which no more is read at once than MOST_AT_ONCE: the list of an archive may claim any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_AT_ONCE:
            raise InputError(f"{self.name}: claims a list of {size:,} bytes, too long for a file of torch.save")
        return super().read(size)


def _other_format(file: io.BufferedReader) -> str:
    """What is said of a file that is no zip archive, empty for one."""
    begins = file.read(512)
    if begins.startswith(HEADER_MARK):
        return ""
    if begins.startswith(b"\x80") or begins[257:262] == b"ustar":
        return OLD
    if begins.startswith(b"version https://git-lfs"):
        return "is a note of Git LFS in place of a file; fetch the file itself: git lfs pull"
    if begins.lstrip()[:1] == b"<":
        return "is a web page, perhaps one that asks to confirm a download; get the file itself"
    if begins[8:9] == b"{":
        return "looks like safetensors; give it a name that ends in .safetensors"
    return "is empty" if not begins else "is no file of torch.save, or damaged; get it again"


def _entries(path: Path, file: io.BufferedReader) -> dict[str, Entry]:
    """The entries of an archive by their names without its own."""
    length = file.seek(0, io.SEEK_END)
    try:
        listed = zipfile.ZipFile(file).infolist()
    except InputError:
        raise
    except (*ERRORS, NotImplementedError) as error:
        raise InputError(f"{path}: has no list of its entries ({error}): it is cut short; get it again") from None
    names = {info.filename for info in listed}
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in names:
        raise InputError(f"{path}: is a zip archive, but of no tensors of torch.save (TorchScript is not read)")
    for info in listed:
        name = repr(info.filename[:80])
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise InputError(f"{path}: {name} is compressed, as torch.save never does; convert it: {RECIPE}")
        if info.flag_bits & ENCRYPTED:
            raise InputError(f"{path}: {name} is encrypted; unpack the archive with its password")
    if len(names) < len(listed):
        raise InputError(f"{path}: has several entries of the same name, as torch.save never writes; do not use it")
    claimed = sum(info.file_size for info in listed)
    require(claimed <= length, f"{path}: entries", f"of at most the {length:,} bytes of the file", f"{claimed:,} bytes")
    return {
        info.filename.removeprefix(roots[0]): Entry(info.header_offset, info.file_size, info.CRC)
        for info in listed
        if info.filename.startswith(roots[0])
    }
