"""Tilings: windows of one size over pixels, how they overlap, and the pixels that they cover.

Windows lie on a grid whose lines begin at most a stride apart. They are weighted by hills sin² along each side, which
fade towards their borders, divided by the sum of all hills at each pixel, so that the weights sum to 1 everywhere.

A tiling need not have all windows of its grid, nor all pixels of the rectangle that the grid covers. Around something
small or thin it has the windows that touch it, and the pixels of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffusion.errors import require

# (H, W); () for points, which have no windows.
Sides = tuple[int, ...]

# Windows whose hills are summed at a time.
SUMMED = 1024


@dataclass(frozen=True)
class Tiling:
    """K windows of `size` (h, w) over P pixels, which are some or all of those of a rectangle, in row-major order.

    Window k begins at `corners[k]`, a row-major place in the rectangle, which is `width` pixels wide. `numbers` has the
    number, 0 to P - 1, of each pixel of the rectangle that has one; None stands for all of them in order. `total` (P,)
    is the sum of all hills at each pixel.
    """

    size: Sides
    width: int
    corners: Tensor
    numbers: Tensor | None
    total: Tensor

    @classmethod
    def whole(cls, size: Sides, window: Sides, stride: Sides | None = None, *, multiple: int = 1) -> Tiling:
        """All windows of an image of `size` (H, W), the first and the last flush with it.

        They begin at most `stride` apart, half their size by default, and at multiples of `multiple` pixels as far as
        that goes, for which they may be farther apart. Raises InputError for an image smaller than a
        window, and for a stride that is not between 1 and the size of a window.
        """
        return _whole(tuple(size), tuple(window), stride, multiple)

    @classmethod
    def around(cls, hidden: Tensor, window: Sides, stride: Sides | None = None) -> tuple[Tiling, Tensor]:
        """Those windows of a rectangle that touch a hidden pixel, `hidden` (H, W) bool, and the places (P,) of their
        pixels in it.
        """
        size = tuple(hidden.shape)
        corners = grid(size, window, stride)
        corners = corners[_count_within(hidden, corners, window) > 0]
        sums = _summed(corners, size, window)
        covered = sums > 0
        numbers = covered.cumsum(0, dtype=torch.int32) - 1
        return cls(tuple(window), size[1], corners, numbers, sums[covered]), covered.nonzero().flatten()

    @property
    def count(self) -> int:
        """The number of windows."""
        return len(self.corners)

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return len(self.total)


@lru_cache(maxsize=4)
def _whole(size: Sides, window: Sides, stride: Sides | None, multiple: int) -> Tiling:
    corners = grid(size, window, stride, multiple)
    return Tiling(window, size[1], corners, None, _summed(corners, size, window))


def starts(length: int, side: int, stride: int, multiple: int = 1) -> Tensor:
    """Where the fewest windows of `side` pixels begin that are at most `stride` apart, spread evenly over `length`
    pixels: (K,) int64.

    All but the last, which is flush with the end, are moved to multiples of `multiple`, if that is not more than half
    of a window.
    """
    count = math.ceil((length - side) / stride) + 1
    even = torch.linspace(0, length - side, count, dtype=torch.float64)
    if 1 < multiple <= side // 2:
        even[:-1] = (even[:-1] / multiple).floor() * multiple
    return even.round().long()


def grid(size: Sides, window: Sides, stride: Sides | None = None, multiple: int = 1) -> Tensor:
    """The corners of all windows of a rectangle (H, W), as row-major places in it, row by row: (K,) int64."""
    large = all(side >= own for side, own in zip(size, window, strict=True))
    require(large, "image", f"at least {window[0]}x{window[1]}, the size of a window", size)
    strides = stride or tuple(max(1, side // 2) for side in window)
    fits = all(1 <= step <= side for step, side in zip(strides, window, strict=True))
    require(fits, "windows.stride", f"between 1 and the size {window}", strides)
    down, right = (starts(*sides, multiple) for sides in zip(size, window, strides, strict=True))
    return (down[:, None] * size[1] + right).flatten()


def hill(window: Sides) -> Tensor:
    """The weight of each pixel of a window before normalization, sin² along each side: (h w,) float64."""
    down, right = (
        torch.sin(math.pi * (torch.arange(side, dtype=torch.float64) + 0.5) / side).square() for side in window
    )
    return (down[:, None] * right).flatten()


def offsets(window: Sides, width: Tensor) -> Tensor:
    """The places of the pixels of windows after their corners, in rectangles of a `width` (K,): (K, h w)."""
    down, right = (torch.arange(side, device=width.device) for side in window)
    return (down[:, None] * width[:, None, None] + right).flatten(1)


def _summed(corners: Tensor, size: Sides, window: Sides) -> Tensor:
    """The sum of the hills of windows at each pixel of a rectangle (H, W): (H W,) float64."""
    sums = torch.zeros(math.prod(size), dtype=torch.float64)
    place, weights = offsets(window, torch.tensor([size[1]])), hill(window)
    for some in torch.split(corners, SUMMED):
        sums.index_add_(0, (some[:, None] + place).flatten(), weights.repeat(len(some)))
    return sums


def _count_within(hidden: Tensor, corners: Tensor, window: Sides) -> Tensor:
    """The number of hidden pixels, of (H, W) bool, in the window at each of the corners (K,)."""
    height, width = hidden.shape
    # The number above and to the left of each place, which a row and a column of zeros precede.
    before = torch.zeros(height + 1, width + 1, dtype=torch.int32)
    before[1:, 1:] = hidden.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    top, left = corners // width, corners % width
    bottom, right = top + window[0], left + window[1]
    return before[bottom, right] - before[top, right] - before[bottom, left] + before[top, left]
