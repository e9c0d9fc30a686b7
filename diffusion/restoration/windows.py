"""Images of any size by a denoiser of one size: windows that overlap and agree at every step of sampling.

    x̂(x_t) = Σ_k m_k x̂(x_t in window k),        Σ_k m_k = 1 at every pixel

averages them as Bar-Tal et al. (2023, arXiv 2302.08113) do, with weights m_k = sin² along each side, which fade towards
the borders of a window (`tiling.py`). All windows see the same x_t, and their estimates are blended before the step is
taken. So no two of them can decide differently about a pixel that they share.

This is an approximation: a window estimates E[x|x_t in the window], not E[x|x_t]. That is the best estimate of a pixel
from that window, and the squared error of the blend is at most the mean of the windows' errors, but nothing beyond a
window is taken into account. For data whose correlations end within half a window next to nothing is lost. No denoiser
of windows knows a structure larger than a window, such as sky above and ground below.

An image smaller than a window is the middle of a larger image of which nothing else is known (`fitting.py`). In a large
image with small holes only the windows that see a hole are evaluated (`parts.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from diffusion import levels
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import require
from diffusion.guidance import informed
from diffusion.restoration.tiling import Sides, Tiling, hill, offsets
from diffusion.schedules import Schedule
from diffusion.transfers import to_device


@dataclass(frozen=True)
class Windows:
    """A denoiser of images of one size as a denoiser of the pixels that windows of this size cover.

    It estimates (B, C, H, W) or (B, C, P), whose pixels in row-major order are those of a tiling. With G `tilings` the
    examples are those of each tiling in turn, B/G each, and an example with fewer pixels than P has zeros at the end,
    which are estimated as 0.

    `channels` (1, K, H, W) or (1, K, P) are what the network is told of the image (`conditioning`), of which it is told
    in each window its part.

    The network sees `batch` windows at once. If there are more windows and a gradient is needed, the network is
    evaluated again for each backward pass instead of keeping its activations, and the gradient is that of the mean
    alone. After each batch of several, `watch` is called with the share of the windows that it was.
    """

    denoiser: AnyDenoiser
    tilings: tuple[Tiling, ...]
    batch: int = 32
    watch: Callable[[float], None] = lambda share: None
    channels: Tensor | None = None

    def __post_init__(self) -> None:
        require(self.batch >= 1, "windows.batch", "at least 1", self.batch)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    @property
    def size(self) -> Sides:
        """The size (h, w) of a window."""
        return self.tilings[0].size

    @property
    def count(self) -> int:
        """The number of windows of one example of each tiling."""
        return sum(tiling.count for tiling in self.tilings)

    @cached_property
    def pixels(self) -> int:
        """P, the number of pixels of an example."""
        return max(tiling.pixels for tiling in self.tilings)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Blends the estimates of all windows. x_t: (B, C, *); t: () or (B,) or a map; label: (B,).

        Raises InputError for examples of another number of pixels.
        """
        flat = x_t.flatten(2)
        require(flat.shape[2] == self.pixels, "windows", f"given {self.pixels} pixels", tuple(x_t.shape[2:]))
        if levels.is_map(t, x_t):
            t = to_device(t, x_t.device).expand(len(x_t), 1, *x_t.shape[2:]).flatten(2)
        call = _Call(self, t, label, *self._rows(len(x_t), x_t.device))
        if len(call.parts) > 1 and x_t.requires_grad and torch.is_grad_enabled():
            mean, variance_interp = _Again.apply(flat, call)
        else:
            mean, variance_interp = call.forward(flat)
        return Prediction(
            mean.reshape(x_t.shape), None if variance_interp is None else variance_interp.reshape(x_t.shape)
        )

    def _rows(self, examples: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Every window of every example, the windows of an example one after the other: the number of the window among
        those of all tilings, and the number of the example, (W,) each. They are kept for the next evaluation.
        """
        if (examples, device) not in self._kept:
            self._kept[examples, device] = self._numbered(examples, device)
        return self._kept[examples, device]

    @cached_property
    def _kept(self) -> dict[tuple[int, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def _numbered(self, examples: int, device: torch.device) -> tuple[Tensor, Tensor]:
        each, rows, windows, first = examples // len(self.tilings), [], [], 0
        for number, tiling in enumerate(self.tilings):
            rows.append(torch.arange(number * each, (number + 1) * each).repeat_interleave(tiling.count))
            windows.append(torch.arange(first, first + tiling.count).repeat(each))
            first += tiling.count
        return to_device(torch.cat(windows), device), to_device(torch.cat(rows), device)

    @cached_property
    def _joined(self) -> _Joined:
        """All tilings as one, on the device where it was last needed."""
        numbers = [
            torch.arange(tiling.pixels, dtype=torch.int32) if tiling.numbers is None else tiling.numbers
            for tiling in self.tilings
        ]
        first = [0, *itertools.accumulate(map(len, numbers))]
        total = [F.pad(tiling.total, (0, self.pixels - tiling.pixels), value=1.0) for tiling in self.tilings]
        return _Joined(
            torch.cat([tiling.corners + start for tiling, start in zip(self.tilings, first, strict=False)]),
            torch.cat([torch.full_like(tiling.corners, tiling.width) for tiling in self.tilings]),
            torch.cat([torch.full_like(tiling.corners, g * self.pixels) for g, tiling in enumerate(self.tilings)]),
            torch.cat(numbers),
            torch.cat(total),
            hill(self.size),
        )

    def places(self, windows: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the pixels of windows (W,) of the examples `rows` (W,) among all pixels (B P), and their
        weights: (W, h w) each.
        """
        joined = self._joined
        if joined.total.device != windows.device:
            joined = _Joined(*(to_device(tensor, windows.device) for tensor in joined))
            self.__dict__["_joined"] = joined
        corners, widths, before, numbers, total, weight = joined
        place = numbers[corners[windows, None] + offsets(self.size, widths[windows])].long()
        weights = weight / total[place + before[windows, None]]
        return place + rows[:, None] * self.pixels, weights


class _Joined(NamedTuple):
    """The windows of several tilings as of one: their corners, the widths of their rectangles, and the number of pixels
    in `total` before those of their tiling, (K,) each; the numbers of the pixels of all rectangles, and the sums of
    hills at P pixels of each tiling, both one tiling after the other; and the hill, (h w,).
    """

    corners: Tensor
    widths: Tensor
    before: Tensor
    numbers: Tensor
    total: Tensor
    hill: Tensor


@dataclass(frozen=True)
class _Call:
    """One evaluation of `owner` at time t, () or (B,) or a map (B, 1, P): all windows and the examples that they belong
    to (W,).
    """

    owner: Windows
    t: Tensor
    label: Tensor | None
    windows: Tensor
    rows: Tensor

    @property
    def parts(self) -> range:
        """Where the batches of windows begin."""
        return range(0, len(self.windows), self.owner.batch)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The blends of the mean and of the interpolation of the variance, for x (B, C, P)."""
        shape, flat = x.shape, _by_channel(x)
        mean, variance_interp = torch.zeros_like(flat), None
        for start in self.parts:
            place, weights, windows, arguments = self._part(flat, start)
            found = self._denoiser(start)(windows, *arguments)
            _add(mean, place, found.mean * weights)
            if found.variance_interp is not None:
                variance_interp = torch.zeros_like(flat) if variance_interp is None else variance_interp
                _add(variance_interp, place, found.variance_interp * weights)
            self._watch(len(windows))
        return _by_example(mean, shape), None if variance_interp is None else _by_example(variance_interp, shape)

    def backward(self, x: Tensor, v: Tensor) -> Tensor:
        """(∂ mean/∂x)ᵀ v, for x and v (B, C, P), evaluating the network again."""
        shape, flat, upper = x.shape, _by_channel(x), _by_channel(v)
        gradient = torch.zeros_like(flat)
        for start in self.parts:
            place, weights, windows, arguments = self._part(flat, start)
            with torch.enable_grad():
                leaf = windows.detach().requires_grad_()
                mean = self._denoiser(start)(leaf, *arguments).mean
            _add(gradient, place, torch.autograd.grad(mean, leaf, self._cut(upper, place) * weights)[0])
            self._watch(len(windows))
        return _by_example(gradient, shape)

    def _part(self, flat: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor | None]]:
        """A batch of windows: their places (W, h w), weights (W, 1, h, w), values (W, C, h, w), times and labels."""
        some = slice(start, start + self.owner.batch)
        rows = self.rows[some]
        place, weights = self.owner.places(self.windows[some], rows)
        if self.t.ndim == 3:
            t = self._cut(_by_channel(self.t), place)
        else:
            t = self.t[rows.to(self.t.device)] if self.t.ndim else self.t
        label = None if self.label is None else self.label[rows]
        return place, weights.to(flat).reshape(-1, 1, *self.owner.size), self._cut(flat, place), (t, label)

    def _denoiser(self, start: int) -> AnyDenoiser:
        """The denoiser of a batch of windows, which is told the part of the channels in each of them."""
        owner = self.owner
        if owner.channels is None:
            return owner.denoiser
        some = slice(start, start + owner.batch)
        # The examples share the channels, those of the first.
        place, _ = owner.places(self.windows[some], torch.zeros_like(self.rows[some]))
        channels = to_device(owner.channels, self.rows.device).flatten(2)[0]
        return informed(owner.denoiser, self._cut(channels, place))

    def _cut(self, flat: Tensor, place: Tensor) -> Tensor:
        """The values of x (C, B P) in windows: (W, C, h, w)."""
        values = flat.index_select(1, place.flatten()).reshape(len(flat), *place.shape)
        return values.movedim(0, 1).reshape(len(place), len(flat), *self.owner.size)

    def _watch(self, count: int) -> None:
        if len(self.parts) > 1:
            self.owner.watch(count / len(self.windows))


class _Again(torch.autograd.Function):
    """The mean and the interpolation of the variance of a `_Call`, which backward passes evaluate again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: _Call) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401
        """Evaluates the call at x (B, C, P) without keeping activations."""
        ctx.call = call
        ctx.save_for_backward(x)
        mean, variance_interp = call.forward(x)
        if variance_interp is not None:
            ctx.mark_non_differentiable(variance_interp)
        return mean, variance_interp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, _: Tensor | None) -> tuple[Tensor, None]:  # noqa: ANN401
        """The gradient for x, given that for the mean."""
        return ctx.call.backward(*ctx.saved_tensors, v), None


def _by_channel(x: Tensor) -> Tensor:
    """(B, C, P) -> (C, B P)."""
    return x.movedim(1, 0).flatten(1)


def _by_example(x: Tensor, shape: torch.Size) -> Tensor:
    """(C, B P) -> (B, C, P)."""
    return x.reshape(shape[1], shape[0], shape[2]).movedim(0, 1)


def _add(total: Tensor, place: Tensor, values: Tensor) -> None:
    """Adds values (W, C, h, w) at places (W, h w) of total (C, B P), in place, which no gradient minds: none needs the
    sum itself.
    """
    total.index_add_(1, place.flatten(), values.movedim(1, 0).flatten(1))
