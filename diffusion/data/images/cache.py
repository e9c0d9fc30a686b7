"""The cache of decoded images: the pixels of a container at one size, in one memory-mapped file outside of it.

An entry of the cache is named by a hash of the settings and one of the names and bytes of all files, so that a changed
file or setting leads to another entry, and a copied folder to the same one. A new entry copies the images that others
of the same settings hold already (sharing.py), and replaces the one of an earlier state of the folder (uses.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import content_hash
from diffusion.data.images import sharing, store, uses
from diffusion.data.images.container import Container, LeftOut
from diffusion.data.images.decoding import ImageError, PixelFormat, Pixels, decode_frames_at, printable
from diffusion.data.images.formats import READERS
from diffusion.data.images.index import Entry
from diffusion.data.images.pages import by_file, runs
from diffusion.data.images.parallel import in_order
from diffusion.data.images.scan import FolderError, Scan, cache_folder, unwritable
from diffusion.data.names import select

# The version of the cache. It is to be raised when the code changes such that the same files and settings give other
# pixels or another layout.
LAYOUT = 5
# The first part of the names of entries of packed images.
PIXELS = "pixels"


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
    place = (
        cache_folder(cache, scan.container.root) / f"{family(size, pixel_format)}-{scan.entries.content['identity']}"
    )
    entry = sharing.read(place) or _build(place, scan, settings, progress)
    uses.note(place, scan.container.root)
    failed = entry.failed
    left_out = (LeftOut(scan.entries.located(number), reason) for number, reason in failed.items())
    names: Sequence[str] = scan.entries.names
    labels = scan.entries.rows["group"]
    kept = np.delete(np.arange(len(names)), [*failed])
    if failed:
        names, labels = select(names, kept), labels[kept]
    return Packed(
        values=entry.values,
        labels=labels if scan.classes else None,
        names=names,
        contents=by_file(scan.entries, kept, entry.contents),
        problems=(*scan.problems, *left_out),
        copies=scan.entries.content["copies"],
    )


def family(size: tuple[int, int], pixel_format: PixelFormat) -> str:
    """Returns the first part of the names of entries of one size and format, as this version writes them."""
    # The versions of the decoders count as settings because another one may give other pixels.
    facts = [LAYOUT, READERS, *astuple(_Settings(size, pixel_format))]
    return f"{PIXELS}-{hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()}"


def _build(place: Path, scan: Scan, settings: _Settings, progress: bool) -> sharing.Entry:
    cache, entries = place.parent, scan.entries
    shared = sharing.find(cache, family(settings.size, settings.pixel_format), entries.rows["digest"])
    try:
        with store.unfinished(cache) as folder:
            _check_space(cache, len(entries) * math.prod(settings.shape) * settings.pixel_format.dtype.itemsize)
            failed = _write(folder, scan, shared, settings, progress)
            if len(failed) == len(entries):
                row, reason = failed.popitem()
                problem = LeftOut(entries.located(row), reason)
                raise FolderError(f"data.path: no image in {scan.container.name} can be decoded; {problem}")
            store.publish(folder, place, {"failed": failed, "images": len(entries) - len(failed)} | asdict(settings))
    except OSError as error:
        raise unwritable(cache, error) from error
    entry = sharing.read(place)
    if entry is None:
        raise FolderError(f"cache: {printable(place)} does not hold what was just written to it; is the disk failing?")
    return entry


def _check_space(cache: Path, needed: int) -> None:
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise FolderError(
            f"cache: {needed / 1e9:.1f} GB are needed in {printable(cache)}, {free / 1e9:.1f} GB are "
            "free; set DIFFUSION_CACHE to a folder on another disk, or make data.size smaller"
        )


def _write(folder: Path, scan: Scan, shared: sharing.Shared, settings: _Settings, progress: bool) -> dict[int, str]:
    """Writes all images, copied from other entries or decoded as they arrive.

    Returns the reasons of those that failed, by their numbers among all.
    """
    failed: dict[int, str] = {}
    entries, missing = scan.entries, shared.missing.tolist()
    decoding = partial(_images, scan.container, settings)
    waiting = runs((entries[number] for number in missing), math.prod(settings.shape))
    total, shown = None if entries.held is not None else len(missing), progress and bool(missing)
    decoded = chain.from_iterable(in_order(decoding, waiting, total, title="decoding images", progress=shown))
    with store.growing(folder / sharing.DIGESTS, "S16") as add_digest:
        add_digest(np.ascontiguousarray(entries.rows["digest"]))
    values = store.growing(folder / sharing.VALUES, settings.pixel_format.dtype, settings.shape)
    contents = store.growing(folder / sharing.CONTENTS, np.uint64)
    with values as add_images, contents as add_contents:
        for run in shared.runs():
            failed |= run.failed()
            for images, hashes in run.copies():
                add_images(images)
                add_contents(hashes)
            new = 0 if run.entry else len(run)
            for number, row in enumerate(islice(decoded, new), run.start):
                if isinstance(row, str):
                    failed[number] = row
                else:
                    add_images(row[None])
                    add_contents(np.array([content_hash(row)], np.uint64))
    return failed


def _images(container: Container, settings: _Settings, pages: list[Entry]) -> list[Pixels | str]:
    """Returns images of one file, pages or the only one, each as (C, h, w) or the reason why it cannot be decoded."""
    first = pages[0]
    path = os.path.join(container.name, first.path)
    frames = (page.frame for page in pages)
    try:
        with container.open(first.path, first.offset, first.size) as file:
            found = [*decode_frames_at(path, settings.pixel_format, settings.size, file, frames)]
    except ImageError as error:
        found = [error] * len(pages)
    return [_row(each) for each in found]


def _row(decoded: Pixels | ImageError) -> Pixels | str:
    if not isinstance(decoded, ImageError):
        return decoded.transpose(2, 0, 1)
    if decoded.transient:
        raise decoded
    return decoded.reason
