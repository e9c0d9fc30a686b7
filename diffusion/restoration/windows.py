"""Images of any size by a denoiser of one size: windows that overlap and agree at every step of sampling.

    x̂(x_t) = Σ_k m_k x̂(x_t in window k),        Σ_k m_k = 1 at every pixel

averages them as Bar-Tal et al. (2023, arXiv 2302.08113) do, with weights m_k = sin² along each side, which fade towards
the borders of a window. All windows see the same x_t, and their estimates are blended before the step is taken. So no
two of them can decide differently about a pixel that they share.

This is an approximation: a window estimates E[x|x_t in the window], not E[x|x_t]. That is the best estimate of a pixel
from that window, and the squared error of the blend is at most the mean of the windows' errors, but nothing beyond a
window is taken into account. For data whose correlations end within half a window next to nothing is lost. No denoiser
of windows knows a structure larger than a window, such as sky above and ground below.

An image smaller than a window is the middle of a larger image of which nothing else is known (`fit`). In a large image
with a small hole only the windows that see the hole are evaluated (`region_to_solve`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import require
from diffusion.operators import Crop, Identity, Mask, Operator, compose
from diffusion.restoration.problem import Place, Problem
from diffusion.schedules import Schedule

# (H, W); () for points, which have no windows.
Sides = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """A denoiser of images of `size` (h, w) as a denoiser of images at least as large.

    Neighboring windows begin at most `stride` apart, half their size by default. They are spaced evenly, the first and
    the last flush with the image. The network sees `batch` windows at once. If there are more windows and a
    gradient is needed, the network is evaluated again for each backward pass instead of keeping its activations.
    """

    denoiser: AnyDenoiser
    size: Sides
    stride: Sides | None = None
    batch: int = 32

    def __post_init__(self) -> None:
        fits = all(1 <= step <= side for step, side in zip(self.strides, self.size, strict=True))
        require(fits, "windows.stride", f"between 1 and the size {self.size}", self.strides)
        require(self.batch >= 1, "windows.batch", "at least 1", self.batch)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    @property
    def strides(self) -> Sides:
        """The strides down and to the right."""
        return self.stride or tuple(max(1, side // 2) for side in self.size)

    def segments(self, size: Sides) -> tuple[Segments, Segments]:
        """The segments that the windows have in an image of `size`, down and to the right."""
        down, right = (Segments.of(*sides) for sides in zip(size, self.size, self.strides, strict=True))
        return down, right

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Blends the estimates of all windows. x_t: (B, C, H, W); t: () or (B,); label: (B,).

        Raises InputError for an image smaller than a window.
        """
        large = x_t.shape[-2] >= self.size[0] and x_t.shape[-1] >= self.size[1]
        require(large, "image", f"at least {self.size[0]}x{self.size[1]}, the size of a window", tuple(x_t.shape[-2:]))
        down, right = self.segments(tuple(x_t.shape[-2:]))
        windows = right.cut(down.cut(x_t, 2), 4).movedim(4, 3)
        # (B, C, K, L, h, w) to (B K L, C, h, w): the windows of an example follow one another.
        stacked = windows.movedim(1, 3).flatten(0, 2)
        count = len(stacked) // len(x_t)
        predicted = self._predict(stacked, repeat_each(t, count), None if label is None else repeat_each(label, count))

        def blended(parts: Tensor) -> Tensor:
            whole = parts.reshape(len(x_t), down.count, right.count, *parts.shape[1:]).movedim(3, 1)
            return down.blend(right.blend(whole.movedim(3, 4), 4), 2)

        mean, variance_interp = predicted
        return Prediction(blended(mean), None if variance_interp is None else blended(variance_interp))

    def _predict(self, windows: Tensor, t: Tensor, label: Tensor | None) -> Prediction:
        parts = [slice(start, start + self.batch) for start in range(0, len(windows), self.batch)]
        again = len(parts) > 1 and windows.requires_grad

        def evaluate(part: slice) -> Prediction:
            arguments = windows[part], t[part] if t.ndim else t, None if label is None else label[part]
            if again:
                return checkpoint(self.denoiser, *arguments, use_reentrant=False, preserve_rng_state=False)
            return self.denoiser(*arguments)

        means, interps = zip(*map(evaluate, parts), strict=True)
        return Prediction(torch.cat(means), None if interps[0] is None else torch.cat(interps))


def repeat_each(values: Tensor, count: int) -> Tensor:
    """Repeats the value of each example for its `count` windows: (B,) -> (B count,); () stays ()."""
    return values.repeat_interleave(count) if values.ndim else values


@dataclass(frozen=True)
class Segments:
    """Segments along one side of an image: the `indices` (K, h) of their pixels, and `weights` (K, h), which sum to 1
    at every pixel.
    """

    length: int
    indices: Tensor
    weights: Tensor

    @classmethod
    def of(cls, length: int, side: int, stride: int) -> Segments:
        """The fewest segments of `side` pixels that begin at most `stride` apart, spread evenly over `length` pixels,
        weighted by sin² where they overlap.
        """
        count = math.ceil((length - side) / stride) + 1
        starts = torch.linspace(0, length - side, count, dtype=torch.float64).round().long()
        indices = starts[:, None] + torch.arange(side)
        hill = torch.sin(math.pi * (torch.arange(side, dtype=torch.float64) + 0.5) / side).square().expand(count, -1)
        total = torch.zeros(length, dtype=torch.float64).index_add(0, indices.flatten(), hill.flatten())
        return cls(length, indices, hill / total[indices])

    @property
    def count(self) -> int:
        """The number of segments."""
        return len(self.indices)

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """The segments of x along a dimension: (*, length, *) -> (*, K, h, *)."""
        segments = x.index_select(dim, self.indices.flatten().to(x.device))
        return segments.reshape(*x.shape[:dim], *self.indices.shape, *x.shape[dim + 1 :])

    def blend(self, parts: Tensor, dim: int) -> Tensor:
        """The weighted sum of segments where they overlap: (*, K, h, *) -> (*, length, *)."""
        weights = self.weights.to(parts).reshape(*self.weights.shape, *[1] * (parts.ndim - dim - 2))
        weighted = (parts * weights).flatten(dim, dim + 1)
        shape = (*weighted.shape[:dim], self.length, *weighted.shape[dim + 1 :])
        return weighted.new_zeros(shape).index_add(dim, self.indices.flatten().to(parts.device), weighted)


class Fit(NamedTuple):
    """A denoiser and a problem that fit each other, for images as large as `problem.shape` says.

    `crop` cuts the image that was asked for out of a solution; `windows` is the number of windows that cover it.
    """

    denoiser: AnyDenoiser
    problem: Problem
    crop: Operator
    windows: int


def fit(denoiser: AnyDenoiser, window: Sides, problem: Problem, *, batch: int = 32) -> Fit:
    """Fits a denoiser of images of the size `window` to a problem for an image of any size.

    Where the image is longer than the window, windows overlap. Where it is shorter, the solution is as long as the
    window: around the image it has a margin, about which y says nothing, and which `Fit.crop` cuts off.
    """
    size = sides(problem)
    whole = tuple(max(pair) for pair in zip(size, window, strict=True))
    count = 1
    if whole != window:
        denoiser = Windows(denoiser, window, batch=batch)
        count = math.prod(segments.count for segments in denoiser.segments(whole))
    if whole == size:
        return Fit(denoiser, problem, Identity(), count)
    crop, shape = Crop(*size), (problem.x_shape[0], *whole)
    if not isinstance(problem.operator, Mask):
        stated = problem.stated or problem.operator
        within = replace(problem, operator=compose(problem.operator, crop), shape=shape, stated=stated)
        return Fit(denoiser, within, crop, count)
    # A mask stays a mask, which replacement asks for.
    margins = crop.margins(whole)
    known = F.pad(problem.operator.known.broadcast_to(problem.y.shape)[0], margins)
    return Fit(denoiser, Problem(Mask(known), F.pad(problem.y, margins), problem.noise, shape), crop, count)


class Region(NamedTuple):
    """A part of an image, at `place` in it, and the problem that is left there."""

    place: Place
    problem: Problem


def region_to_solve(problem: Problem, window: Sides) -> Region:
    """The part of an image that its restoration depends on, and the problem there.

    A mask without noise leaves nothing to restore where it shows the image. Windows that hold a hidden pixel reach one
    window's length around it, and no window sees a pixel beyond. In all other cases the region is the whole image.
    """
    if not isinstance(problem.operator, Mask) or problem.noise or sides(problem) == window:
        return Region((...,), problem)
    known = problem.operator.known.broadcast_to(problem.y.shape)[0]
    hidden = ~known.all(0)
    place = ..., _around(hidden.any(1), window[0]), _around(hidden.any(0), window[1])
    y = problem.y[place]
    return Region(place, Problem(Mask(known[place]), y, shape=tuple(y.shape[1:])))


def sides(problem: Problem) -> Sides:
    """The size (H, W) of the image that a problem asks for; () for points."""
    return problem.x_shape[1:]


def _around(hidden: Tensor, side: int) -> slice:
    """The rows that a window of `side` pixels with a hidden row can reach, of all rows (L,); at least one window."""
    rows = hidden.nonzero().flatten().tolist() or [0]
    return slice(max(0, rows[0] - side + 1), min(len(hidden), rows[-1] + side))
