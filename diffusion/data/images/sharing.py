"""Decoded images that entries of the cache already hold, found by the bytes of their files, so that none is decoded
twice.

Entries of one family were decoded by the same settings. Equal bytes then give equal pixels, whatever the file is called
and whichever folder it lies in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffusion.data.images import store, uses
from diffusion.data.images.pixel_format import Pixels

VALUES, CONTENTS, DIGESTS, SEEN = "values.npy", "contents.npy", "digests.npy", "seen.npy"
# The number of images that are copied at once.
CHUNK = 256

Digests = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Entry:
    """An entry of N images: hashes of their files, `digests` (N,), and those of them that could be decoded.

    `failed` has the reasons of the others by their numbers. `values` (M, C, h, w) and `contents` (M,) are those of the
    M = N - len(failed) images that could be, whose row is `rows[number]`, (N,). `seen` (M, 1, h, w) is 0 at pixels that
    nobody has seen; None where all were.
    """

    values: Pixels
    contents: npt.NDArray[np.uint64]
    digests: Digests
    failed: dict[int, str]
    rows: npt.NDArray[np.int64]
    seen: Pixels | None = None


def read(folder: Path) -> Entry | None:
    """Returns an entry that is whole, else None."""
    content = store.read(folder)
    if content is None:
        return None
    try:
        values, contents, digests = (store.array(folder / name) for name in (VALUES, CONTENTS, DIGESTS))
        seen = store.array(folder / SEEN) if content.get("masks") else None
    except FileNotFoundError:  # Another process has removed it in the meantime.
        return None
    failed = {int(number): str(reason) for number, reason in content["failed"].items()}
    decoded = np.ones(len(digests), dtype=bool)
    decoded[[*failed]] = False
    return Entry(values, contents, digests, failed, np.cumsum(decoded) - 1, seen)


@dataclass(frozen=True)
class Run:
    """Consecutive images `start`, ..., `stop` - 1 that lie in one entry at its `numbers`, or in none of them."""

    start: int
    stop: int
    entry: Entry | None
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return self.stop - self.start

    def failed(self) -> dict[int, str]:
        """The reasons of the images that could not be decoded, by their numbers among all."""
        if self.entry is None:
            return {}
        reasons = self.entry.failed
        return {self.start + i: reasons[n] for i, n in enumerate(self.numbers.tolist()) if n in reasons}

    def copies(self) -> Iterator[tuple[Pixels, npt.NDArray[np.uint64], Pixels | None]]:
        """Yields values (B, C, h, w), content hashes (B,) and what was seen (B, 1, h, w) of the images that could be
        decoded, in their order; None where all was seen.
        """
        if self.entry is None:
            return
        missing = np.isin(self.numbers, [*self.entry.failed])
        rows = self.entry.rows[self.numbers[~missing]]
        for start in range(0, len(rows), CHUNK):
            chosen = rows[start : start + CHUNK]
            seen = None if self.entry.seen is None else self.entry.seen[chosen]
            yield self.entry.values[chosen], self.entry.contents[chosen], seen


@dataclass
class Shared:
    """N images, the entries that hold some of them, and for each image the number of its entry (-1 for none) and its
    number in that entry, (N,) each.
    """

    entries: list[Entry] = field(default_factory=list)
    owner: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    number: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def missing(self) -> npt.NDArray[np.int64]:
        """The numbers of the images that no entry holds."""
        return np.flatnonzero(self.owner < 0)

    def runs(self) -> Iterator[Run]:
        """Yields all images in their order, as runs of images of one entry or of none."""
        ends = [0, *(np.flatnonzero(np.diff(self.owner)) + 1).tolist(), len(self.owner)]
        for start, stop in pairwise(ends):
            if start < stop:
                owner = int(self.owner[start])
                yield Run(start, stop, self.entries[owner] if owner >= 0 else None, self.number[start:stop])


def find(cache: Path, family: str, digests: Digests) -> Shared:
    """Finds the images with the given hashes of their files, (N,), in the entries of a family, the last used first."""
    shared = Shared([], np.full(len(digests), -1), np.zeros(len(digests), np.int64))
    for folder in sorted(cache.glob(f"{family}-*"), key=_last_use, reverse=True):
        missing = shared.missing
        if not len(missing):
            break
        # Its hashes are read first, as verifying the whole of an entry that shares nothing may take long.
        try:
            overlaps = np.isin(digests[missing], np.load(folder / DIGESTS, allow_pickle=False)).any()
        except (OSError, ValueError, EOFError):
            continue
        if overlaps and (entry := read(folder)):
            place = store.places(digests[missing], entry.digests)
            shared.owner[missing[place >= 0]] = len(shared.entries)
            shared.number[missing[place >= 0]] = place[place >= 0]
            shared.entries.append(entry)
    return shared


def _last_use(folder: Path) -> float:
    return max(uses.of(folder).values(), default=0.0)
