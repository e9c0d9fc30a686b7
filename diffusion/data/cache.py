"""A folder of images decoded once: pixels of one size in one memory-mapped file, outside of that folder.

An entry of the cache is named by a hash of the settings and of every file's name and bytes, so that a changed
file or setting leads to another entry, and a copied folder to the same one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from diffusion.data import store
from diffusion.data.decoding import Color, ImageError, Pixels, decode, fit, shown
from diffusion.data.folders import Entry, FolderError, Problem, Scan
from diffusion.data.parallel import in_order

# To be raised when the same files and settings come to give other pixels or another layout.
LAYOUT = 1


@dataclass(frozen=True)
class Packed:
    """The decoded images of a folder, as (N, C, h, w) on disk and read-only; files that failed are left out.

    `labels` is None without classes. `names` are the paths within the folder, as text that can be printed.
    `problems` are those of the scan, then the files found damaged since. `copies` counts the files whose
    bytes repeat another's.
    """

    values: Pixels
    labels: npt.NDArray[np.int64] | None
    names: tuple[str, ...]
    problems: tuple[Problem, ...]
    copies: int


@dataclass(frozen=True)
class _Settings:
    """What decides the pixels besides the files."""

    size: tuple[int, int]
    channels: int
    background: Color

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, *self.size


def pack(
    scan: Scan,
    *,
    size: tuple[int, int],
    channels: int,
    background: Color,
    cache: Path | None = None,
    progress: bool = True,
) -> Packed:
    """Every image of a scan at the size (h, w), from the cache when the same files were packed before.

    The cache is `cache`, or else $DIFFUSION_CACHE, $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.

    Raises FolderError when the cache lies within the folder of images, cannot be written or has too little
    space, and when not a single image can be decoded; ImageError when a file disappears meanwhile.
    """
    folder = _cache_folder(cache or _default_cache(), scan.root)
    settings = _Settings(size, channels, background)
    hash_file = partial(_digest, scan.root)
    digests = list(in_order(hash_file, scan.entries, title="hashing files", progress=progress))
    hashed = [(e, d) for e, d in zip(scan.entries, digests, strict=True) if isinstance(d, str)]
    unread = [result for result in digests if isinstance(result, Problem)]
    entries = [entry for entry, _ in hashed]
    path = folder / _key(hashed, settings)
    stored = store.read(path) or _build(path, scan.root, entries, settings, progress)
    problems = (*scan.problems, *unread, *(Problem(entries[i].path, why) for i, why in stored.failed.items()))
    if not len(stored.values):
        raise FolderError(f"data.path: no image in {shown(scan.root)} can be decoded; {problems[-1]}")
    kept = [entry for i, entry in enumerate(entries) if i not in stored.failed]
    return Packed(
        values=stored.values,
        labels=np.array([entry.label for entry in kept], np.int64) if scan.classes else None,
        names=tuple(shown(entry.path) for entry in kept),
        problems=problems,
        copies=len(hashed) - len({digest for _, digest in hashed}),
    )


def _default_cache() -> Path:
    if chosen := os.environ.get("DIFFUSION_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "diffusion"


def _cache_folder(cache: Path, root: Path) -> Path:
    folder = cache.expanduser().resolve()
    if folder.is_relative_to(root.resolve()):
        raise FolderError(
            f"data.cache: {shown(folder)} lies within the folder of images {shown(root)}, which is never "
            "written to; set data.cache to a folder outside of it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(folder: Path, error: OSError) -> FolderError:
    where = shown(folder)
    return FolderError(f"data.cache: cannot write to {where} ({error}); set data.cache to another folder")


def _digest(root: Path, entry: Entry) -> str | Problem:
    try:
        return store.file_digest(root / entry.path)
    except OSError as error:
        return Problem(entry.path, error.strerror or str(error))


def _key(hashed: Iterable[tuple[Entry, str]], settings: _Settings) -> str:
    # Pillow is among the settings because another version of a decoder may give other pixels.
    key = hashlib.blake2b(json.dumps([LAYOUT, PIL.__version__, *astuple(settings)]).encode(), digest_size=16)
    for entry, digest in hashed:
        key.update(os.fsencode(entry.path.as_posix()) + b"\0" + digest.encode())
    return key.hexdigest()


def _build(path: Path, root: Path, entries: list[Entry], settings: _Settings, progress: bool) -> store.Stored:
    needed, free = len(entries) * math.prod(settings.shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise FolderError(
            f"data.cache: {needed / 1e9:.1f} GB are needed in {shown(path.parent)}, {free / 1e9:.1f} GB are "
            "free; set data.cache to a folder on another disk, or make data.size smaller"
        )
    rows = in_order(partial(_image, root, settings), entries, title="decoding images", progress=progress)
    try:
        return store.write(path, rows, settings.shape)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _image(root: Path, settings: _Settings, entry: Entry) -> Pixels | str:
    """One image as (C, h, w), or why it cannot be decoded."""
    try:
        image = decode(root / entry.path, channels=settings.channels, background=settings.background)
    except ImageError as error:
        # The bytes were read a moment ago: what the system refuses now is no lasting property of the file.
        if isinstance(error.__cause__, MemoryError) or getattr(error.__cause__, "errno", None) is not None:
            raise
        return error.reason
    return fit(image, settings.size).transpose(2, 0, 1)
