"""Entries of the cache on disk: folders of array files and a manifest, each of which is complete or does not exist.

An entry is written into a temporary folder beside it, forced to disk, and renamed, so that a crash leaves no incomplete
entry. Reading verifies a hash of every file. A file found intact is remembered by its stamp, and hashed again only if
its stamp has changed. Opening a large entry therefore reads none of it, but does not find damage that leaves the times
of a file unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.files import sync, write_text

MANIFEST, STAMPS = "manifest.json", "stamps.json"
UNFINISHED = ".unfinished-"
DAY = 86_400
# The coarsest clock of file systems in use: a file that changes twice within this time may show the same time for both.
CLOCK_NS = 2_000_000_000

Manifest: TypeAlias = dict[str, Any]
Append: TypeAlias = Callable[[npt.NDArray[Any]], None]


def digest(file: BufferedReader | BytesIO) -> bytes:
    """Returns a hash, 16 bytes long, of all bytes of an open file, whose position is at its beginning.

    Raises OSError when the file cannot be read.
    """
    return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).digest()


def file_digest(path: Path) -> bytes:
    """Returns the hash of the file at a path.

    Raises OSError when it cannot be read.
    """
    with path.open("rb") as file:
        return digest(file)


def stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    """Returns inode, size, time of modification and time of change of a file; no program can set the last of them."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def settled(changed_ns: int, since_ns: int) -> bool:
    """Returns whether a file that last changed at `changed_ns` would show another time if it changed at `since_ns`."""
    return since_ns - changed_ns > CLOCK_NS


def read(entry: Path) -> Manifest | None:
    """Returns the content of the manifest of an entry, or None when the entry is missing or damaged."""
    try:
        manifest = json.loads((entry / MANIFEST).read_text())
        whole = manifest["seal"] == _seal(manifest["files"], manifest["content"])
        return manifest["content"] if whole and _verified(entry, manifest["files"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def array(path: Path) -> npt.NDArray[Any]:
    """Maps an array file into memory, read-only."""
    values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return values


def places(digests: npt.NDArray[np.bytes_], among: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Returns the first place of each hash (N,) among others (M,), -1 for those that are not among them: (N,)."""
    if not len(among):
        return np.full(len(digests), -1)
    order = np.argsort(among, kind="stable")
    place = order[np.searchsorted(among, digests, sorter=order).clip(max=len(order) - 1)]
    return np.where(among[place] == digests, place, -1)


@contextlib.contextmanager
def unfinished(parent: Path) -> Iterator[Path]:
    """Yields a temporary folder in `parent` to write an entry in, which is removed at the end unless it was published.

    Arrays that were mapped from it before stay readable.
    """
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def growing(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...] = ()) -> Iterator[Append]:
    """Yields a function that appends rows (n, *shape) to a new array file, which is complete and on disk at the end."""
    count = 0
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    with path.open("wb") as file:

        def append(rows: npt.NDArray[Any]) -> None:
            nonlocal count
            file.write(rows.tobytes())
            count += len(rows)

        np.lib.format.write_array_header_1_0(file, header | {"shape": (0, *shape)})
        yield append
        # NumPy pads the header so that the first axis may grow: the final header is as long as the first one.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *shape)})
        file.flush()
        os.fsync(file.fileno())


def publish(folder: Path, entry: Path, content: Manifest) -> None:
    """Makes an entry of an unfinished folder, with `content` in its manifest; a damaged entry is replaced.

    Raises OSError when the entry cannot be written, as on a full disk.
    """
    files = {path.name: file_digest(path).hex() for path in sorted(folder.iterdir())}
    manifest = {"files": files, "content": content, "seal": _seal(files, content)}
    write_text(folder / MANIFEST, json.dumps(manifest))
    sync(folder)
    try:
        os.rename(folder, entry)
    except OSError:
        if read(entry) is not None:  # Another process has stored the same entry in the meantime.
            return
        shutil.rmtree(entry)
        os.rename(folder, entry)
    sync(entry.parent)


def _seal(files: dict[str, str], content: Manifest) -> str:
    """Returns a hash of the hashes of all files of an entry and of the content of its manifest."""
    return hashlib.blake2b(json.dumps([files, content]).encode(), digest_size=16).hexdigest()


def _verified(entry: Path, files: dict[str, str]) -> bool:
    """Returns whether the files of an entry have the given hashes; only those with a new stamp are read."""
    began = time.time_ns()
    now = {name: stamp(os.stat(entry / name)) for name in files}
    known = _stamps(entry)
    changed = [name for name in files if known.get(name) != list(now[name])]
    if any(file_digest(entry / name).hex() != files[name] for name in changed):
        return False
    if changed and settled(max(last for *_, last in now.values()), began):
        with contextlib.suppress(OSError):  # The cache may belong to another user.
            write_text(entry / STAMPS, json.dumps(now))
    return True


def _stamps(entry: Path) -> dict[str, list[int]]:
    try:
        stamps = json.loads((entry / STAMPS).read_text())
        return stamps if isinstance(stamps, dict) else {}
    except (OSError, ValueError):
        return {}


def _sweep(cache: Path) -> None:
    """Removes the unfinished folders of processes that were killed more than a day ago."""
    for folder in cache.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            # A growing file does not change the time of its folder.
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - newest > DAY:
                shutil.rmtree(folder)
