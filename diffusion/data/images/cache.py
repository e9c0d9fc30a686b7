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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import content_hash
from diffusion.data.images import sharing, store, uses
from diffusion.data.images.container import Container, LeftOut
from diffusion.data.images.decoding import (
    ImageError,
    PixelFormat,
    Pixels,
    decode_frames_at,
    made_of_frames,
    printable,
)
from diffusion.data.images.formats import READERS
from diffusion.data.images.holes import Seen
from diffusion.data.images.index import Entry
from diffusion.data.images.masking import VERSION, Masking
from diffusion.data.images.pages import by_file, runs
from diffusion.data.images.parallel import in_order
from diffusion.data.images.scan import FolderError, Scan, cache_folder, unwritable
from diffusion.data.names import select

# The version of the cache. It is to be raised when the code changes such that the same files and settings give other
# pixels or another layout.
LAYOUT = 5
# The first part of the names of entries of packed images.
PIXELS = "pixels"

Hashes: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Packed:
    """The decoded images of a container without the files that could not be decoded.

    `values` is (N, C, h, w), read-only and on disk. `labels` is (N,), or None without classes. `names` are the paths
    within the container as printable text. `contents` (N,) are the hashes by which images are held out. `problems` are
    those of the scan, followed by the files that could not be decoded. `copies` is the number of files that repeat the
    bytes of another. `seen`, uint8 (N, 1, h, w), is 0 at pixels that nobody has seen, whose values are 0; None without
    masks.
    """

    values: Pixels
    labels: npt.NDArray[np.int64] | None
    names: Sequence[str]
    contents: npt.NDArray[np.uint64]
    problems: tuple[LeftOut, ...]
    copies: int
    seen: Pixels | None = None


@dataclass(frozen=True)
class _Settings:
    """The settings that decide the pixels, besides the files; `masks` is the key of a masking, if there is one."""

    size: tuple[int, int]
    pixel_format: PixelFormat
    masks: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.pixel_format.channels, *self.size

    @property
    def bytes(self) -> int:
        """The size of one image."""
        return math.prod(self.shape) * self.pixel_format.dtype.itemsize + bool(self.masks) * math.prod(self.size)


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
    settings = _Settings(size, pixel_format, scan.masking.key if scan.masking else "")
    name = f"{family(size, pixel_format, settings.masks)}-{scan.entries.content['identity']}"
    place = cache_folder(cache, scan.container.root) / name
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
        seen=entry.seen,
    )


def family(size: tuple[int, int], pixel_format: PixelFormat, masks: str = "") -> str:
    """Returns the first part of the names of entries of one size, format and way of masking, as this version writes
    them.
    """
    # The versions of the decoders count as settings because another one may give other pixels.
    facts = [LAYOUT, READERS, size, astuple(pixel_format), *((masks, VERSION) if masks else ())]
    return f"{PIXELS}-{hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()}"


def _build(place: Path, scan: Scan, settings: _Settings, progress: bool) -> sharing.Entry:
    cache, entries = place.parent, scan.entries
    shared = sharing.find(cache, place.name.rpartition("-")[0], entries.rows["digest"])
    try:
        with store.unfinished(cache) as folder:
            _check_space(cache, len(entries) * settings.bytes)
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
    decoding = partial(_images, scan.container, settings, scan.masking)
    waiting = runs((entries[number] for number in missing), settings.bytes)
    total, shown = None if entries.held is not None else len(missing), progress and bool(missing)
    decoded = chain.from_iterable(in_order(decoding, waiting, total, title="decoding images", progress=shown))
    with store.growing(folder / sharing.DIGESTS, "S16") as add_digest:
        add_digest(np.ascontiguousarray(entries.rows["digest"]))
    with _adding(folder, settings) as add:
        for run in shared.runs():
            failed |= run.failed()
            for images, hashes, seen in run.copies():
                add(images, hashes, seen)
            new = 0 if run.entry else len(run)
            for number, row in enumerate(islice(decoded, new), run.start):
                if isinstance(row, str):
                    failed[number] = row
                else:
                    values, mask = row
                    hashes = np.array([content_hash(values, mask)], np.uint64)
                    add(values[None], hashes, None if mask is None else mask[None])
    return failed


@contextmanager
def _adding(folder: Path, settings: _Settings) -> Iterator[Callable[[Pixels, Hashes, Pixels | None], None]]:
    """Yields a function that appends images, their hashes and what was seen of them to the files of an entry."""
    with ExitStack() as stack:
        add_images = stack.enter_context(
            store.growing(folder / sharing.VALUES, settings.pixel_format.dtype, settings.shape)
        )
        add_contents = stack.enter_context(store.growing(folder / sharing.CONTENTS, np.uint64))
        masks = store.growing(folder / sharing.SEEN, np.uint8, (1, *settings.size)) if settings.masks else None
        add_seen = None if masks is None else stack.enter_context(masks)

        def add(images: Pixels, hashes: Hashes, seen: Pixels | None) -> None:
            add_images(images)
            add_contents(hashes)
            if add_seen is not None:
                assert seen is not None
                add_seen(seen)

        yield add


def _images(
    container: Container, settings: _Settings, masking: Masking | None, pages: list[Entry]
) -> list[tuple[Pixels, Pixels | None] | str]:
    """Returns images of one file, pages or the only one, each as values (C, h, w) with what was seen (1, h, w), None
    without masks, or as the reason why it cannot be decoded.
    """
    first, size = pages[0], settings.size
    path = os.path.join(container.name, first.path)
    frames = (page.frame for page in pages)
    found: Iterable[Pixels | tuple[Pixels, Seen] | ImageError]
    try:
        with container.open(first.path, first.offset, first.size) as file:
            if masking is None:
                found = [*decode_frames_at(path, settings.pixel_format, size, file, frames)]
            else:
                at_size = partial(masking.at_size, path=str(first.path), pixel_format=settings.pixel_format, size=size)
                found = [*made_of_frames(path, file, frames, at_size)]
    except ImageError as error:
        found = [error] * len(pages)
    return [_row(each) for each in found]


def _row(decoded: Pixels | tuple[Pixels, Seen] | ImageError) -> tuple[Pixels, Pixels | None] | str:
    if isinstance(decoded, ImageError):
        if decoded.transient:
            raise decoded
        return decoded.reason
    values, seen = decoded if isinstance(decoded, tuple) else (decoded, None)
    return values.transpose(2, 0, 1), None if seen is None else seen.transpose(2, 0, 1).astype(np.uint8)
