"""Images that repeat another: byte for byte, by the hashes of the index, or nearly, by what they look like.

Two images are near duplicates when their difference hashes, 64 comparisons of neighbors among 9 x 8 gray averages,
differ in at most NEAR places, and the means of their channels in at most SHADE levels. That finds copies that were
resized, compressed again or slightly retouched; not those that were mirrored or cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffusion.data.images.container import Problem
from diffusion.data.images.decoding import ImageError, Pixels, decode
from diffusion.data.images.index import Entry
from diffusion.data.images.parallel import in_order
from diffusion.data.images.scan import Scan

# Of 400 photographs 99.5 % of those halved in size, and all pressed again, are found; of 4.5 million other pairs, 5.
NEAR, SHADE = 5, 8
# Hashes compared with each other at once.
CHUNK = 1024

Hashes = npt.NDArray[np.uint64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Look:
    """What decoding all images of a scan shows: those that are damaged behind their header, and the pairs (earlier,
    later) of near duplicates, one for each later image.
    """

    damaged: tuple[Problem, ...]
    near: tuple[Pair, ...]


def copies(scan: Scan) -> list[Pair]:
    """Pairs (first, later) of images with the same bytes, one for each later one."""
    _, first, which = np.unique(scan.entries.rows["digest"], return_index=True, return_inverse=True)
    later = np.flatnonzero(first[which] != np.arange(len(which)))
    return [(int(first[which[i]]), int(i)) for i in later]


def look(scan: Scan, *, progress: bool = True) -> Look:
    """Decodes every image of a scan, a few at a time; of each only 11 bytes are kept."""
    hashes = np.zeros(len(scan.entries), np.uint64)
    means = np.zeros((len(scan.entries), 3), np.uint8)
    usable = np.ones(len(scan.entries), bool)
    damaged = []
    results = in_order(
        partial(_signature, scan), scan.entries, len(scan.entries), title="decoding images", progress=progress
    )
    for number, result in enumerate(results):
        if isinstance(result, str):
            usable[number] = False
            damaged.append(Problem(scan.entries[number].path, result))
        else:
            hashes[number], means[number] = result
    usable[[later for _, later in copies(scan)]] = False
    numbers = np.flatnonzero(usable)
    pairs = near(hashes[numbers], means[numbers])
    return Look(tuple(damaged), tuple((int(numbers[a]), int(numbers[b])) for a, b in pairs))


def _signature(scan: Scan, entry: Entry) -> tuple[np.uint64, Pixels] | str:
    try:
        with scan.container.open(entry.path, entry.offset, entry.size) as file:
            image = decode(entry.path, file, channels=3, background=(255, 255, 255))
    except ImageError as error:
        return error.reason
    return difference_hash(image), image.mean((0, 1)).round().astype(np.uint8)


def difference_hash(image: Pixels) -> np.uint64:
    """Whether each of 8 x 8 gray averages of an image (H, W, 3) is brighter than its right neighbor: 64 bits."""
    gray = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(gray, np.int16)
    return np.uint64(int.from_bytes(np.packbits(values[:, :-1] > values[:, 1:]).tobytes()))


def near(hashes: Hashes, means: npt.NDArray[np.uint8]) -> list[Pair]:
    """Pairs of near duplicates (earlier, later), one for each later one, by hashes (N,) and means (N, 3).

    Cut into one word more than they may differ in bits, two near hashes agree in one of the words, so that only those
    that share a word are compared.
    """
    found: dict[int, int] = {}
    for first, end in pairwise(np.linspace(0, 64, NEAR + 2).astype(np.uint64)):
        shared = (hashes >> first) & ((np.uint64(1) << (end - first)) - np.uint64(1))
        order = np.argsort(shared, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(shared[order])) + 1):
            for earlier, later in _compared(group, hashes, means):
                found[later] = min(earlier, found.get(later, earlier))
    return [(found[later], later) for later in sorted(found)]


def _compared(group: npt.NDArray[np.intp], hashes: Hashes, means: npt.NDArray[np.uint8]) -> Iterator[Pair]:
    """The pairs within a group of images in increasing order."""
    for start in range(0, len(group) if len(group) > 1 else 0, CHUNK):
        later = group[start : start + CHUNK]
        taken = np.zeros(len(later), bool)
        for first in range(0, start + 1, CHUNK):
            earlier = group[first : first + CHUNK]
            bits = np.bitwise_count(hashes[later, None] ^ hashes[earlier])
            shade = np.abs(means[later, None].astype(np.int16) - means[earlier]).max(2)
            alike = (bits <= NEAR) & (shade <= SHADE) & (earlier < later[:, None])
            for row in np.flatnonzero(alike.any(1) & ~taken):
                taken[row] = True
                yield int(earlier[alike[row].argmax()]), int(later[row])


def pair_lines(scan: Scan, pairs: Iterable[Pair], relation: str) -> Iterator[str]:
    """Pairs by their names, the later first, and what it does to the earlier."""
    names = scan.entries.names
    return (f"{names[later]} {relation} {names[earlier]}" for earlier, later in pairs)
