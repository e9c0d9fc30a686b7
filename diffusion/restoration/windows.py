"""Images of any size by a denoiser of one size: windows that overlap and agree at every step of sampling.

    x̂(x_t) = Σ_k m_k x̂(x_t in window k),        Σ_k m_k = 1 at every pixel

as Bar-Tal et al. (2023, arXiv 2302.08113) average them, with weights m_k = sin² along each side that fade towards
the borders of a window. All windows see the same x_t and their estimates are blended before the step is taken, so no
two of them can decide differently about a pixel that they share.

What it approximates: every x̂ of a window is E[x|x_t in the window], not E[x|x_t]. Of all that can be said about a pixel
from that window it is the best, and the squared error of the blend is at most the mean of the windows', but what lies
beyond a window is not heard of. Data whose correlations end within half a window lose next to nothing; where an image
has an order larger than that, as sky above and ground below, no denoiser of windows knows it.

An image smaller than a window is the middle of a larger one of which nothing is known around it (`fitted`). Of a large
one with a small hole, only what the windows of the hole see is looked at (`near`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import require
from diffusion.operators import Crop, Identity, Mask, Operator, compose
from diffusion.restoration.observation import Observation
from diffusion.schedules import Schedule

# (H, W), or () of points, of which there are no windows.
Sides = tuple[int, ...]
# Of the last dimensions of a tensor.
Place = tuple[EllipsisType | slice, ...]


@dataclass(frozen=True)
class Windows:
    """A denoiser of images of `size` (h, w) as one of images at least as large.

    Neighboring windows begin at most `stride` apart, half their size by default; they are spread evenly, the first and
    the last flush with the image. The network sees `batch` of them at once. Where a gradient is asked for and there are
    more, it is run again for each backward pass instead of remembering what it computed.
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
        """That of the denoiser."""
        return self.denoiser.schedule

    @property
    def strides(self) -> Sides:
        """The stride down and to the right."""
        return self.stride or tuple(max(1, side // 2) for side in self.size)

    def lines(self, size: Sides) -> tuple[Line, Line]:
        """The windows down and to the right of an image of that size."""
        down, right = (Line.of(*sides) for sides in zip(size, self.size, self.strides, strict=True))
        return down, right

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """x_t: (B, C, H, W); t: () or (B,); label: (B,).

        Raises InputError for an image smaller than a window.
        """
        large = x_t.shape[-2] >= self.size[0] and x_t.shape[-1] >= self.size[1]
        require(large, "image", f"at least {self.size[0]}x{self.size[1]}, the size of a window", tuple(x_t.shape[-2:]))
        down, right = self.lines(tuple(x_t.shape[-2:]))
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

        def call(part: slice) -> Prediction:
            arguments = windows[part], t[part] if t.ndim else t, None if label is None else label[part]
            if again:
                return checkpoint(self.denoiser, *arguments, use_reentrant=False, preserve_rng_state=False)
            return self.denoiser(*arguments)

        means, fractions = zip(*map(call, parts), strict=True)
        return Prediction(torch.cat(means), None if fractions[0] is None else torch.cat(fractions))


def repeat_each(values: Tensor, count: int) -> Tensor:
    """Values of examples, (B,) or (), for `count` windows of each: (B count,) or ()."""
    return values.repeat_interleave(count) if values.ndim else values


@dataclass(frozen=True)
class Line:
    """Segments along one side of an image: `places` (K, h) of pixels, and their `weights` (K, h), which sum to 1 at
    every pixel.
    """

    length: int
    places: Tensor
    weights: Tensor

    @classmethod
    def of(cls, length: int, side: int, stride: int) -> Line:
        """The fewest segments of `side` pixels that begin at most `stride` apart, spread evenly over `length` pixels,
        weighted by sin² where they overlap.
        """
        count = math.ceil((length - side) / stride) + 1
        starts = torch.linspace(0, length - side, count, dtype=torch.float64).round().long()
        places = starts[:, None] + torch.arange(side)
        hill = torch.sin(math.pi * (torch.arange(side, dtype=torch.float64) + 0.5) / side).square().expand(count, -1)
        total = torch.zeros(length, dtype=torch.float64).index_add(0, places.flatten(), hill.flatten())
        return cls(length, places, hill / total[places])

    @property
    def count(self) -> int:
        """The number of segments."""
        return len(self.places)

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """The segments of x along a dimension: (*, length, *) -> (*, K, h, *)."""
        segments = x.index_select(dim, self.places.flatten().to(x.device))
        return segments.reshape(*x.shape[:dim], *self.places.shape, *x.shape[dim + 1 :])

    def blend(self, parts: Tensor, dim: int) -> Tensor:
        """The weighted sum of segments where they overlap: (*, K, h, *) -> (*, length, *)."""
        weights = self.weights.to(parts).reshape(*self.weights.shape, *[1] * (parts.ndim - dim - 2))
        weighted = (parts * weights).flatten(dim, dim + 1)
        shape = (*weighted.shape[:dim], self.length, *weighted.shape[dim + 1 :])
        return weighted.new_zeros(shape).index_add(dim, self.places.flatten().to(parts.device), weighted)


class Fitted(NamedTuple):
    """What restores an image of any size: a denoiser, the observation of an image of `size`, which both of them take,
    and the `crop` that is the image asked for.
    """

    denoiser: AnyDenoiser
    seen: Observation
    size: Sides
    crop: Operator

    @property
    def windows(self) -> int:
        """How many of them cover an image."""
        covering = self.denoiser
        return math.prod(line.count for line in covering.lines(self.size)) if isinstance(covering, Windows) else 1


def fitted(denoiser: AnyDenoiser, window: Sides, seen: Observation, size: Sides, *, batch: int = 32) -> Fitted:
    """A denoiser of images of the size `window` and an observation of one of another size, made for one another.

    Where the image is longer than the window, windows overlap; where it is shorter, what is restored is as long as the
    window, with a margin that y says nothing of around the image. The margin is to be cut off by `crop`.
    """
    whole = tuple(max(sides) for sides in zip(size, window, strict=True))
    covering = denoiser if whole == window else Windows(denoiser, window, batch=batch)
    if whole == size:
        return Fitted(covering, seen, whole, Identity())
    crop = Crop(*size)
    if not isinstance(seen.operator, Mask):
        within = replace(seen, operator=compose(seen.operator, crop), given=seen.given or seen.operator)
        return Fitted(covering, within, whole, crop)
    # A mask stays a mask, which replacement asks for.
    margins = crop.margins(whole)
    known = F.pad(seen.operator.known.broadcast_to(seen.y.shape)[0], margins)
    return Fitted(covering, Observation(Mask(known), F.pad(seen.y, margins), seen.noise), whole, crop)


class Part(NamedTuple):
    """A part of an image, how large it is, and what was seen of it."""

    place: Place
    size: Sides
    seen: Observation


def near(seen: Observation, window: Sides, size: Sides) -> Part:
    """The part of an image of that size that restoring it looks at, and what was seen of that.

    Of what a mask shows without noise nothing is left to restore. Windows that hold a hidden pixel reach one window's
    length around it, and pixels beyond are seen by none of them. In all other cases the part is the whole.
    """
    if not isinstance(seen.operator, Mask) or seen.noise or size == window:
        return Part((...,), size, seen)
    known = seen.operator.known.broadcast_to(seen.y.shape)[0]
    hidden = ~known.all(0)
    place = ..., _around(hidden.any(1), window[0]), _around(hidden.any(0), window[1])
    part = Observation(Mask(known[place]), seen.y[place])
    return Part(place, tuple(part.y.shape[2:]), part)


def _around(hidden: Tensor, side: int) -> slice:
    """Where a row of pixels (L,) is hidden, and as far around that as a window reaches; a window at least, or all."""
    places = hidden.nonzero().flatten().tolist() or [0]
    return slice(max(0, places[0] - side + 1), min(len(hidden), places[-1] + side))
