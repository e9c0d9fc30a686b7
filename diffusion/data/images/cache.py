"""The cache of decoded images: the pixels of a container at one size, in one memory-mapped file outside of it.

An entry of the cache is named by a hash of the settings and of the names and bytes of all files, so that a changed file
or setting leads to another entry, and a copied folder to the same one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import content_hash
from diffusion.data.images import store
from diffusion.data.images.container import Container, LeftOut
from diffusion.data.images.decoding import ImageError, PixelFormat, Pixels, decode_at, printable
from diffusion.data.images.formats import READERS
from diffusion.data.images.index import Entry
from diffusion.data.images.parallel import in_order
from diffusion.data.images.scan import FolderError, Scan, cache_folder, unwritable
from diffusion.data.names import select

# The version of the cache. It is to be raised when the code changes such that the same files and settings give other
# pixels or another layout.
LAYOUT = 3
VALUES, CONTENTS = "values.npy", "contents.npy"


@dataclass(frozen=True)
class Packed:
    """The decoded images of a container without the files that could not be decoded.

    `values` is (N, C, h, w), read-only and on disk. `labels` is (N,), or None without classes. `names` are the paths
    within the container as printable text. `contents` (N,) are the hashes by which images are held out. `problems` are
    those of the scan, followed by the files that could not be decoded. `copies` is the number of files that repeat the
    bytes of another.
    """

    values: Pixels
    labels: npt.NDArray[np.int64] | None
    names: Sequence[str]
    contents: npt.NDArray[np.uint64]
    problems: tuple[LeftOut, ...]
    copies: int


@dataclass(frozen=True)
class _Settings:
    """The settings that decide the pixels, besides the files."""

    size: tuple[int, int]
    pixel_format: PixelFormat

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pixel_format.channels, *self.size


def pack(
    scan: Scan,
    *,
    size: tuple[int, int],
    pixel_format: PixelFormat,
    cache: Path | None = None,
    progress: bool = True,
) -> Packed:
    """Decodes every image of a scan at the size (h, w), or reads them from the cache if they were packed before.

    The cache is in the folder that `cache_folder` finds for `cache`.

    Raises FolderError when the cache lies within the folder of images, cannot be written or has too little space, and
    when no image can be decoded; ImageError when a file disappears in the meantime.
    """
    settings = _Settings(size, pixel_format)
    entry = cache_folder(cache, scan.container.root) / _key(scan, settings)
    content = store.read(entry) or _build(entry, scan, settings, progress)
    failed = {int(row): reason for row, reason in content["failed"].items()}
    left_out = (LeftOut(scan.entries[row].path, reason) for row, reason in failed.items())
    names: Sequence[str] = scan.entries.names
    labels = scan.entries.rows["group"]
    if failed:
        kept = np.delete(np.arange(len(names)), [*failed])
        names, labels = select(names, kept), labels[kept]
    return Packed(
        values=store.array(entry / VALUES),
        labels=labels if scan.classes else None,
        names=names,
        contents=store.array(entry / CONTENTS),
        problems=(*scan.problems, *left_out),
        copies=scan.entries.content["copies"],
    )


def _key(scan: Scan, settings: _Settings) -> str:
    # The versions of the decoders count as settings because another one may give other pixels.
    facts = [LAYOUT, READERS, *astuple(settings), scan.entries.content["identity"]]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _build(entry: Path, scan: Scan, settings: _Settings, progress: bool) -> store.Manifest:
    cache, entries = entry.parent, scan.entries
    decoding = partial(_image, scan.container, settings)
    rows = in_order(decoding, entries, len(entries), title="decoding images", progress=progress)
    try:
        with store.unfinished(cache) as folder:
            _check_space(cache, len(entries) * math.prod(settings.shape) * settings.pixel_format.dtype.itemsize)
            failed = _write(folder, rows, settings)
            if len(failed) == len(entries):
                row, reason = failed.popitem()
                problem = LeftOut(entries[row].path, reason)
                raise FolderError(f"data.path: no image in {scan.container.name} can be decoded; {problem}")
            store.publish(folder, entry, {"failed": failed})
    except OSError as error:
        raise unwritable(cache, error) from error
    content = store.read(entry)
    if content is None:
        raise FolderError(f"cache: {printable(entry)} does not hold what was just written to it; is the disk failing?")
    return content


def _check_space(cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise FolderError(
            f"cache: {needed / 1e9:.1f} GB are needed in {printable(cache)}, {free / 1e9:.1f} GB are "
            "free; set DIFFUSION_CACHE to a folder on another disk, or make data.size smaller"
        )


def _write(folder: Path, rows: Iterable[Pixels | str], settings: _Settings) -> dict[int, str]:
    """Writes images as they arrive; returns the reasons of those that failed, by their numbers among all."""
    failed = {}
    values = store.growing(folder / VALUES, settings.pixel_format.dtype, settings.shape)
    contents = store.growing(folder / CONTENTS, np.uint64)
    with values as add_image, contents as add_content:
        for number, row in enumerate(rows):
            if isinstance(row, str):
                failed[number] = row
            else:
                add_image(row[None])
                add_content(np.array([content_hash(row)], np.uint64))
    return failed


def _image(container: Container, settings: _Settings, entry: Entry) -> Pixels | str:
    """Returns an image as (C, h, w), or the reason why it cannot be decoded."""
    path = os.path.join(container.name, entry.path)
    try:
        with container.open(entry.path, entry.offset, entry.size) as file:
            image = decode_at(path, settings.pixel_format, settings.size, file)
    except ImageError as error:
        if error.transient:
            raise
        return error.reason
    return image.transpose(2, 0, 1)
