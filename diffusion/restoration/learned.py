"""Restoration by a network that takes a noise level for every pixel (`diffusion.levels`): the posterior is a state of
the forward process, and drawing from it is sampling.

Let y^i = x^i + N(0, 1/s^i) at every pixel: s = 1/σ_y² where x was observed in noise, infinite where it is known and 0
where nothing was observed. The state x_t of a trajectory is another such observation, x_t/α_t = x + N(0, 1/SNR_t). All
that both say of x^i is in their mean, weighted by precision,

    z^i = (SNR_t x_t^i/α_t + s^i y^i) / (SNR_t + s^i) = x^i + N(0, 1/(SNR_t + s^i))

so that α z is x at a map of times t_z, with SNR(t_z^i) = SNR_t + s^i and α = α(t_z^i), and

    E[x | x_t, y] = x̂(α z, t_z)

is the network itself. Nothing is approximated but E, which is learned: there is no guidance and no Jacobian, any
sampler will do, and a step takes as many evaluations as that of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.schedules import Schedule
from diffusion.transfers import to_device


@dataclass(frozen=True)
class Observed:
    """The denoiser E[x | x_t, y] for y (B or 1, C, *) of the precisions s, in units of x.

    `precisions` (K,) float64 are the different ones, and `index` (B or 1, 1, *) says which of them each pixel has; for
    points, (B or 1, D), each coordinate. Both are on the CPU, where nothing waits for what is made of them.
    """

    denoiser: AnyDenoiser
    y: Tensor
    precisions: Tensor
    index: Tensor

    @classmethod
    def of(cls, denoiser: AnyDenoiser, y: Tensor, known: Tensor, noise: float | Tensor) -> Observed:
        """The denoiser given y where `known`, in noise of a standard deviation that may be a map; 0 is none.

        y and known: (B or 1, C, *). Channels of a pixel share its level: it is known where all of its channels are, and
        its noise is a number or, as a map, (B or 1, 1, *).
        """
        precision = torch.as_tensor(noise, dtype=torch.float64, device="cpu").square().reciprocal()
        pixels = (known if known.ndim == 2 else known.all(1, keepdim=True)).cpu()
        precisions, index = torch.where(pixels, precision, 0.0).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        return cls(denoiser, y, precisions, index)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def joined(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The state α z (B, C, *) and its map of times (B or 1, 1, *), for x_t (B, C, *) at t, () or (B,)."""
        schedule, time = self.schedule, t.double().cpu()[..., None]
        alpha, _ = schedule(time)
        own = schedule.log_snr(time).exp()
        total = own + self.precisions
        times = schedule.time(total.log())
        scale, _ = schedule(times)
        # Of what is known exactly nothing is taken from x_t.
        share = own / total
        from_x, from_y, map_of_times = (
            self._by_pixel(values) for values in (scale * share / alpha, scale * (1 - share), times)
        )
        moved = (to_device(values.to(x_t.dtype), x_t.device) for values in (from_x, from_y))
        return next(moved) * x_t + next(moved) * self.y.to(x_t), map_of_times

    def _by_pixel(self, values: Tensor) -> Tensor:
        """The entries of values (K,), or of (B, K) for each example, at every pixel: (B or 1, 1, *)."""
        if values.ndim == 1:
            return values[self.index]
        index = self.index.expand(len(values), *self.index.shape[1:])
        return values.gather(1, index.flatten(1)).reshape(index.shape)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x | x_t, y]; pixels known exactly are y. x_t: (B, C, *); t: () or (B,); label: (B,)."""
        mean, variance_interp = self.denoiser(*self.joined(x_t, t), label)
        exact = to_device(self._exact, mean.device)
        return Prediction(torch.where(exact, self.y.to(mean), mean), variance_interp)

    @cached_property
    def _exact(self) -> Tensor:
        """Which pixels are known exactly."""
        return self.precisions.isinf()[self.index]
