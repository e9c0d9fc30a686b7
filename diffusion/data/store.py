"""One entry of the cache on disk: `values.npy` and `manifest.json` in a folder that is complete or not there.

An entry is written into a temporary folder beside it, forced to disk, and renamed. Reading verifies a
hash of all it holds, so that what a crash or a failing disk has damaged is not there either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from diffusion.data.decoding import Pixels
from diffusion.files import sync

VALUES, MANIFEST = "values.npy", "manifest.json"
UNFINISHED = ".unfinished-"
DAY = 86_400


@dataclass(frozen=True)
class Stored:
    """The rows of an entry, read-only and on disk, and why others failed, by their number among all."""

    values: Pixels
    failed: dict[int, str]


def file_digest(path: Path) -> str:
    """A hash of a file's bytes, as hexadecimal text.

    Raises OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def read(entry: Path) -> Stored | None:
    """The entry at a path, or None when it is missing or damaged."""
    try:
        manifest = json.loads((entry / MANIFEST).read_text())
        failed = {int(row): reason for row, reason in manifest["failed"].items()}
        if manifest["seal"] != _seal(entry / VALUES, failed):
            return None
        return Stored(np.load(entry / VALUES, mmap_mode="r", allow_pickle=False), failed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(entry: Path, rows: Iterable[Pixels | str], shape: tuple[int, ...]) -> Stored:
    """Store the rows of a shape, one after the other, where a text in place of a row says why it failed.

    A damaged entry is replaced. Without a single good row nothing is stored.

    Raises OSError when the entry cannot be written, as on a full disk.
    """
    _sweep(entry.parent)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=entry.parent))
    try:
        count, failed = _write_values(unfinished / VALUES, rows, shape)
        if count == 0:
            return Stored(np.empty((0, *shape), np.uint8), failed)
        _write_manifest(unfinished / MANIFEST, {"failed": failed, "seal": _seal(unfinished / VALUES, failed)})
        _publish(unfinished, entry)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    stored = read(entry)
    if stored is None:
        raise OSError(f"{entry} does not hold what was just written to it")
    return stored


def _seal(values: Path, failed: dict[int, str]) -> str:
    """A hash of all that an entry holds."""
    text = json.dumps([file_digest(values), sorted(failed.items())])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _write_values(path: Path, rows: Iterable[Pixels | str], shape: tuple[int, ...]) -> tuple[int, dict[int, str]]:
    failed: dict[int, str] = {}
    count = 0
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (0, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for number, row in enumerate(rows):
            if isinstance(row, str):
                failed[number] = row
            else:
                file.write(row.tobytes())
                count += 1
        # NumPy pads the header so that the first axis may grow: the final one is as long as the first.
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *shape)})
        file.flush()
        os.fsync(file.fileno())
    return count, failed


def _write_manifest(path: Path, manifest: dict[str, object]) -> None:
    with path.open("w") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())


def _publish(unfinished: Path, entry: Path) -> None:
    sync(unfinished)
    try:
        os.rename(unfinished, entry)
    except OSError:
        if read(entry) is not None:  # another process stored the same entry meanwhile
            return
        shutil.rmtree(entry)
        os.rename(unfinished, entry)
    sync(entry.parent)


def _sweep(cache: Path) -> None:
    """Remove what processes killed more than a day ago left behind."""
    for folder in cache.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > DAY:
                shutil.rmtree(folder)
