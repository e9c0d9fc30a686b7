"""The identity of examples: hashes of their values and classes, by which data are known wherever they lie."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffusion.data.dataset import Dataset, Rows
from diffusion.data.generated import Generated
from diffusion.data.hashing import hashed
from diffusion.errors import InputError
from diffusion.files import expanded

Hashes = npt.NDArray[np.uint64]
# Examples that are made as they are indexed are known by this many of them, evenly spaced.
MADE = 256
# The number of examples whose values are read at once.
CHUNK = 256


def hashes_of(dataset: Dataset) -> Hashes:
    """Returns a hash of the values, the mask and the class of each example, in the order of the dataset: (N,).

    Of examples that are generated, as crops of a texture are, there are at most MADE, evenly spaced ones.
    """
    array = dataset.values.array if isinstance(dataset.values, Rows) else dataset.values
    made = isinstance(array, Generated)
    chosen = dataset.evenly(MADE) if made else dataset
    contents = None if made else chosen.contents
    hashes = np.array(_read(chosen), np.uint64) if contents is None else np.asarray(contents, np.uint64)
    if chosen.labels is None:
        return hashes
    return hashed(hashes ^ np.array([_text_hash(name) for name in chosen.spec.classes], np.uint64)[chosen.labels])


def _read(dataset: Dataset) -> list[int]:
    starts = range(0, len(dataset), CHUNK)
    return [one for start in starts for one in dataset.hashed(np.arange(start, min(start + CHUNK, len(dataset))))]


def _text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def digest(hashes: Hashes) -> str:
    """Returns a hash of all examples whose hashes are given, in any order: 32 hexadecimal digits."""
    return hashlib.blake2b(np.sort(hashes).astype("<u8").tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Change:
    """The change from one set of examples to another: how many came, how many went, and how many are in both.

    `reordered` says that those of both sets follow each other in another order, so that training takes other batches.
    """

    added: int
    removed: int
    common: int
    reordered: bool

    @property
    def same(self) -> bool:
        """Whether both sets hold the same examples."""
        return self.added == self.removed == 0

    @property
    def grown(self) -> bool:
        """Whether the second set holds all of the first one."""
        return self.removed == 0

    def __str__(self) -> str:
        return f"{self.added:,} more and {self.removed:,} fewer"


def change(old: Hashes, new: Hashes) -> Change:
    """Compares two sets of examples by their hashes, (N,) and (M,); copies count as often as they occur."""
    distinct, place = np.unique(np.concatenate([old, new]), return_inverse=True)
    before, after = (np.bincount(part, minlength=len(distinct)) for part in (place[: len(old)], place[len(old) :]))
    added, removed = (int(np.maximum(surplus, 0).sum()) for surplus in (after - before, before - after))
    both = (before > 0) & (after > 0)
    kept_old, kept_new = (part[both[part]] for part in (place[: len(old)], place[len(old) :]))
    reordered = not np.array_equal(_first(kept_old), _first(kept_new))
    return Change(added, removed, len(old) - removed, reordered)


def _first(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns distinct numbers in the order in which they first occur."""
    distinct, first = np.unique(numbers, return_index=True)
    return distinct[np.argsort(first)]


def same_place(old: str, new: str) -> bool:
    """Returns whether two spellings of a path name one place: ~, ./, a slash at the end and links do not matter."""
    return old == new or place(old) == place(new)


def place(path: str) -> str:
    """Returns the one spelling of a path that all others of the same place have; an address, hf://..., is its own."""
    if not path or "://" in path:
        return path
    try:
        return os.path.realpath(expanded(path))
    except InputError:  # A variable that is not set on this machine.
        return path
