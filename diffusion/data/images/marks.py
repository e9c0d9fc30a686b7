"""The color in which the unknown part of an image is drawn into it, with the rim where it is mixed with the image.

An anti-aliased edge, a thin stroke and a lossy compression mix the color c with what is beside it, b, to
p = b + a (c - b). The estimate of b is the median of what surrounds a pixel, without the pixels of the color. A pixel
then has a share a = (p - b)(c - b) / |c - b|^2 of the color, and misses a mixture by p - b - a (c - b). Where b is near
to the color itself, as in a petal of it, no pixel counts for its share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from diffusion.data.images.decoding import Pixels
from diffusion.errors import InputError, require

Known = npt.NDArray[np.bool_]
Distance = npt.NDArray[np.uint8]

THRESHOLD, JPEG_THRESHOLD = 0.1, 0.35
# What surrounds a pixel must differ from the color by at least this, in [0, 1], for its share to tell anything, and a
# pixel of more than a part of the color by at most this.
APART, MIXED = 0.5, 0.6
# The least share of a pixel of the rim, and the share of exact pixels below which an image was compressed with loss.
SLIGHT, EXACT = 0.1, 0.1
# The side of the blocks that have one median, and the number of them that are taken at a time.
BLOCK, CHUNK = 8, 512
# The side of the tiles that are looked at one after the other, and what is seen of their neighbors: as far as a rim and
# the blocks around it reach.
TILE, FRAME = 512, 64


@dataclass(frozen=True)
class Rim:
    """What belongs to a color beside the pixels that are it.

    Pixels that differ by at most `certain` are the color. A stroke goes on for up to `steps` pixels of a `share` of the
    color that miss a mixture by at most `error`. Its rim reaches `reach` pixels further, and a `margin` beyond the rim
    cannot be told from what is beside it. Within `around` pixels of the color all that is similar counts.
    """

    certain: float
    steps: int
    share: float
    error: float
    reach: int
    margin: int
    around: int


# Measured on photographs of flowers with texts and lines in three colors: tests/data/images/test_marks.py.
# Compression halves colors and spreads them within blocks of 8 and 16 pixels.
LOSSLESS, LOSSY = Rim(THRESHOLD, 32, 0.4, 0.09, 1, 1, 0), Rim(0.2, 4, 0.3, 0.4, 4, 2, 16)


@dataclass(frozen=True)
class Marked:
    """The color in which unknown pixels are drawn: each of their channels differs from it by at most `threshold`, in
    [0, 1]. By default that is 0.1, and up to 0.35 in images compressed with loss, and in what stands out.

    Raises InputError for a threshold out of its range, and for a color that is none.
    """

    color: str
    threshold: float | None = None

    def __post_init__(self) -> None:
        require(self.threshold is None or 0 <= self.threshold <= 1, "--threshold", "in [0, 1]", self.threshold)
        try:
            ImageColor.getrgb(self.color)
        except ValueError as error:
            raise InputError(f"--unknown-color: must be a color such as #ff00ff, got {self.color!r}") from error

    def hidden(self, pixels: Pixels, *, jpeg: bool, rim: bool = True) -> Known:
        """Whether each of the pixels (H, W, 3) is drawn in the color: (H, W, 1).

        With `rim` all counts too that is near and mixed with it. A `jpeg` blurs colors; other images may come from one,
        which is told by how few of their pixels have the very color.
        """
        difference = self._difference(pixels)
        lossy = jpeg or (difference == 0).sum() <= EXACT * (difference <= 255 * THRESHOLD).sum()
        threshold = (JPEG_THRESHOLD if jpeg else THRESHOLD) if self.threshold is None else self.threshold
        if not rim:
            return np.asarray(difference <= 255 * threshold)
        found = np.zeros(difference.shape, dtype=bool)
        similar = difference <= 255 * max(JPEG_THRESHOLD, threshold)
        rim_of = LOSSY if lossy else LOSSLESS
        faint = not (difference <= 255 * rim_of.certain).any()
        for outer, inner in _tiles(*pixels.shape[:2]):
            if similar[outer].any():
                hidden = self._with_rim(pixels[outer], difference[outer], rim_of, faint=faint)
                found[outer][inner] = hidden[inner]
        return found

    def _with_rim(self, pixels: Pixels, difference: Distance, rim: Rim, *, faint: bool) -> Known:
        """The hidden pixels (h, w, 1) of a tile of an image; `faint` says that nothing in the image is certain."""
        similar = difference <= 255 * JPEG_THRESHOLD
        hidden = difference <= 255 * (rim.certain if self.threshold is None else self.threshold)
        own = grown(difference <= 255 * rim.certain, rim.reach)
        share, error = self._mixture(pixels, own, hidden | similar)
        if self.threshold is None:
            stands_out = similar & (share > 0)
            if rim.around:
                near = stands_out if faint else grown(hidden, rim.around)
                hidden = hidden | similar & near
            else:
                hidden = hidden | stands_out & (error <= rim.error)
        stroke = (share >= rim.share) & (error <= rim.error) & (difference <= 255 * MIXED)
        hidden = _spread(hidden, stroke, rim.steps)
        hidden = _spread(hidden, (share >= SLIGHT) | similar, rim.reach)
        return grown(hidden, rim.margin)

    def _mixture(
        self, pixels: Pixels, own: Known, near: Known
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The share (h, w, 1) of the color in each pixel that is near to it, and how far it is from a mixture.

        `own` pixels are left out of what surrounds others. Where that has the color itself, the share is 0.
        """
        color = self._rgb.astype(np.float32)
        share, error = np.zeros((*near.shape[:2], 1), np.float32), np.ones((*near.shape[:2], 1), np.float32)
        for rows, columns, beside in _surrounding(pixels, own, near):
            towards = color - beside
            offset = pixels[rows, columns] - beside
            square = (towards**2).sum(-1, keepdims=True)
            part = (offset * towards).sum(-1, keepdims=True) / np.maximum(square, 1)
            apart = np.abs(towards).max(-1, keepdims=True) >= 255 * APART
            share[rows, columns] = np.where(apart, part, 0)
            error[rows, columns] = np.abs(offset - part * towards).max(-1, keepdims=True) / 255
        return share, error

    @property
    def _rgb(self) -> npt.NDArray[np.int16]:
        return np.array(ImageColor.getrgb(self.color)[:3], dtype=np.int16)

    def _difference(self, pixels: Pixels) -> Distance:
        """The largest difference of a channel from the color, (H, W, 1)."""
        largest = np.zeros((*pixels.shape[:2], 1), np.uint8)
        for channel, value in enumerate(self._rgb):
            difference = np.abs(pixels[:, :, channel : channel + 1].astype(np.int16) - value)
            np.maximum(largest, difference.astype(np.uint8), out=largest)
        return largest


def _tiles(height: int, width: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """The tiles of an image with a frame from which a rim may reach into them, and their places within that frame."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            up, back = max(top - FRAME, 0), max(left - FRAME, 0)
            outer = slice(up, top + TILE + FRAME), slice(back, left + TILE + FRAME)
            yield outer, (slice(top - up, top - up + TILE), slice(left - back, left - back + TILE))


def _surrounding(
    pixels: Pixels, own: Known, near: Known
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Rows and columns (K,) of the pixels in blocks by `near` ones, with the medians (K, 3) of what is around them.

    A median is that of a block and its eight neighbors, without the color's `own` pixels.
    """
    height, width = near.shape[:2]
    tall, wide = -(-height // BLOCK), -(-width // BLOCK)
    framed = np.full(((tall + 2) * BLOCK, (wide + 2) * BLOCK, 3), np.nan, np.float32)
    framed[BLOCK : BLOCK + height, BLOCK : BLOCK + width] = np.where(own, np.nan, pixels)
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3 * BLOCK, 3 * BLOCK), (0, 1))[::BLOCK, ::BLOCK]
    blocks = np.pad(near, ((0, tall * BLOCK - height), (0, wide * BLOCK - width), (0, 0)))
    blocks = np.asarray(blocks.reshape(tall, BLOCK, wide, BLOCK, 1).any((1, 3)))
    tops, lefts = grown(blocks, 1)[:, :, 0].nonzero()
    for start in range(0, len(tops), CHUNK):
        top, left = tops[start : start + CHUNK], lefts[start : start + CHUNK]
        values = np.sort(windows[top, left].reshape(len(top), 3, -1), 2)  # Those of the color come last.
        middle = np.count_nonzero(~np.isnan(values), axis=2, keepdims=True) // 2
        median = np.take_along_axis(values, np.minimum(middle, values.shape[2] - 1), 2)[:, :, 0]
        rows = (top[:, None, None] * BLOCK + np.arange(BLOCK)[:, None] + np.zeros(BLOCK, int)).reshape(len(top), -1)
        columns = (left[:, None, None] * BLOCK + np.arange(BLOCK) + np.zeros((BLOCK, 1), int)).reshape(len(top), -1)
        inside = (rows < height) & (columns < width) & ~np.isnan(median).any(1)[:, None]
        yield rows[inside], columns[inside], np.repeat(median[:, None], BLOCK * BLOCK, 1)[inside]


def _spread(hidden: Known, into: Known, steps: int) -> Known:
    """Hidden pixels, and those of others that are reached from them in so many steps of one pixel."""
    for _ in range(steps):
        more = grown(hidden, 1) & into | hidden
        if np.array_equal(more, hidden):
            break
        hidden = more
    return hidden


def grown(hidden: Known, reach: int) -> Known:
    """Returns hidden pixels (H, W, C) and all within `reach` rows and columns of one. The cost does not depend on
    `reach`.
    """
    if reach == 0:
        return hidden
    return _down(_down(hidden, reach).transpose(1, 0, 2), reach).transpose(1, 0, 2)


def _down(hidden: Known, reach: int) -> Known:
    ends = np.cumsum(np.pad(hidden, ((reach + 1, reach), (0, 0), (0, 0))), 0, dtype=np.int32)
    return np.asarray(ends[2 * reach + 1 :] > ends[: len(hidden)])
