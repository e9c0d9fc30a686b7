"""How much of damaged images was seen, where, and which places were never seen together in one image.

What a model learns of two places is how their values depend on each other, which only images show that saw both. A grid
of single pixels stands for all: the share of its pairs estimates that of all pairs of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from diffusion.data.images.decoding import ImageError, made_of_frames
from diffusion.data.images.holes import SEEN, Seen, shares
from diffusion.data.images.index import Entry
from diffusion.data.images.parallel import in_order
from diffusion.data.images.scan import Scan
from diffusion.data.images.source import Source

# The side of the grid of places.
GRID = 8


@dataclass(frozen=True)
class Coverage:
    """What was seen of N images at one size: the share of each (N,), and their names.

    `places` (g, g) is the share of the images that saw each part of a grid, by area. `together` (g², g²) says of each
    two pixels in the middle of parts, row by row, whether an image saw both.
    """

    shares: npt.NDArray[np.float64]
    names: tuple[str, ...]
    places: npt.NDArray[np.float64]
    together: Seen

    @property
    def never(self) -> float:
        """The share of the pairs of different places that no image saw both of."""
        apart = ~np.eye(len(self.together), dtype=bool)
        return float((~self.together[apart]).mean()) if apart.any() else 0.0

    def lines(self, size: tuple[int, int]) -> list[str]:
        """Says what is missing at a size (h, w), where, and what cannot be learned."""
        if not len(self.shares):
            return ["missing   of no image it could be told what is missing"]
        missing, unseen = 1 - self.shares, int((~self.together.diagonal()).sum())
        worst, count = int(missing.argmax()), len(self.together)
        side = math.isqrt(count)
        lines = [
            f"missing   {missing.mean():.1%} of the pixels at {size[1]}x{size[0]}; of an image "
            f"{np.median(missing):.1%} in the median, {missing[worst]:.1%} at worst: {self.names[worst]}",
            f"places    of a grid of {side} x {side}, seen in so many percent of the images:",
            *(" " * 10 + " ".join(f"{100 * share:3.0f}" for share in row) for row in self.places),
            f"pairs     {self.never:.1%} of the pairs of {count} places were never seen together in any image",
        ]
        if unseen:
            lines[-1] += f", for {unseen} of the places were never seen"
        if self.never:
            lines[-1] += "; how they belong together cannot be learned"
        return lines


def cover(found: Scan, size: tuple[int, int], *, progress: bool = True) -> Coverage:
    """Reads what was seen of all images of a scan that has masks, as images of a size (h, w) are made of them.

    Images that cannot be read, and those of which nothing was seen, are passed over. Of a file with several pages the
    first is read.
    """
    side = min(GRID, *size)
    places, together = np.zeros((side, side)), np.zeros((side**2, side**2), bool)
    middles = np.ix_(*((np.arange(side) * 2 + 1) * n // (2 * side) for n in size))
    known: list[tuple[float, str]] = []
    chosen = np.flatnonzero(found.entries.rows["frame"] <= 0).tolist()
    entries = (found.entries[number] for number in chosen)
    masks = in_order(partial(_seen, found, size), entries, len(chosen), title="reading masks", progress=progress)
    for number, seen in zip(chosen, masks, strict=True):
        if seen is None or not seen.any():
            continue
        known.append((float(seen.mean()), found.entries.names[number]))
        places += _pooled(seen, side)
        points = seen[middles].ravel()
        together |= points[:, None] & points
    return Coverage(
        np.array([share for share, _ in known]),
        tuple(name for _, name in known),
        places / max(1, len(known)),
        together,
    )


def _pooled(seen: Seen, side: int) -> npt.NDArray[np.float64]:
    """The share of each part of a grid that was seen of an image (h, w)."""
    rows, columns = (np.arange(n) * side // n for n in seen.shape)
    sums = np.zeros((side, side))
    np.add.at(sums, np.ix_(rows, columns), seen)
    return sums / np.multiply.outer(np.bincount(rows), np.bincount(columns))


def _seen(found: Scan, size: tuple[int, int], entry: Entry) -> Seen | None:
    """Which pixels of an image (h, w) at a size were seen; None for one that cannot be read."""
    masking, path, whole = found.masking, str(entry.path), (entry.header.height, entry.header.width)
    if masking is None:
        return np.ones(size, bool)

    def at_size(source: Source, frame: int) -> Seen:
        seen = masking.seen(source, frame, path, whole)
        return np.ones(size, bool) if seen is None else shares(seen, size)[:, :, 0] >= SEEN

    try:
        with found.container.open(entry.path, entry.offset, entry.size) as file:
            (seen,) = made_of_frames(entry.path, file, [0], at_size)
    except ImageError:
        return None
    return None if isinstance(seen, ImageError) else seen
