"""Restoration by a network that takes a noise level for every pixel (`diffusion.levels`): the posterior is a state of
the forward process, and drawing from it is the rest of a trajectory.

With y = x + N(0, σ_y²) where x was observed, α(t_y) y is x at the time t_y whose log-SNR is -2 log σ_y. While the
trajectory is noisier than that, at t > t_y, the pixel waits at t_y and the network is told so:

    x̂^i = E[x^i | x_t where nothing was observed, α(t_y) y elsewhere]

When the trajectory comes by, the pixel moves with it. Nothing is approximated but E itself, which is learned: there is
no guidance, no Jacobian, and one evaluation per step.

Where y has noise, the trajectory has to be that of the reverse process, which draws x_s from p(x_s|x_t): what it makes
of α(t_y) y is then a draw of the posterior. The probability-flow ODE would make one and the same image of it. Without
noise any sampler will do, as nothing observed moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.guidance import LastEstimate
from diffusion.samplers import RandN, Sampler, State
from diffusion.schedules import Schedule, expand
from diffusion.transfers import to_device

# The time at which pixels wait of which nothing was observed: the trajectory begins with them.
NEVER = 2.0


@dataclass(frozen=True)
class Observed:
    """The denoiser E[x | x_t, y], where y (B or 1, C, *) is x at the times `waits` (B or 1, 1, *), in units of x.

    Pixels of which nothing was observed have the time `NEVER`. For points both are (B or 1, D). The times are on the
    CPU, where nothing waits for them.
    """

    denoiser: AnyDenoiser
    y: Tensor
    waits: Tensor

    @classmethod
    def of(cls, denoiser: AnyDenoiser, y: Tensor, known: Tensor, noise: float | Tensor) -> Observed:
        """The denoiser given y where `known`, in noise of a standard deviation that may be a map; 0 is none.

        y and known: (B or 1, C, *). Channels of a pixel share its level: it is known where all of its channels are, and
        its noise is a number or, as a map, (B or 1, 1, *).
        """
        log_snr = -2 * torch.as_tensor(noise, dtype=torch.float64, device="cpu").log()
        pixels = (known if known.ndim == 2 else known.all(1, keepdim=True)).cpu()
        # What is seen in more noise than the trajectory begins with is as good as unseen.
        pixels = pixels & (log_snr > denoiser.schedule.log_snr_min)
        return cls(denoiser, y, torch.where(pixels, denoiser.schedule.time(log_snr), NEVER))

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def times(self, t: Tensor) -> Tensor:
        """The times of the pixels while the trajectory is at t, () or (B,): (B or 1, 1, *)."""
        return torch.minimum(self.waits, expand(t.double().cpu(), self.waits))

    def placed(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t (B, C, *) with the pixels that wait at t, () or (B,), where they wait."""
        times = self.times(t)
        waiting = to_device(self.waits == times, x_t.device)
        return torch.where(waiting, expand(self.schedule(times)[0], x_t) * self.y.to(x_t), x_t)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x | x_t, y]; pixels known exactly are y. x_t: (B, C, *); t: () or (B,); label: (B,)."""
        mean, variance_interp = self.denoiser(self.placed(x_t, t), self.times(t), label)
        exact = to_device(self.waits == 0, mean.device)
        return Prediction(torch.where(exact, self.y.to(mean), mean), variance_interp)

    def moved(self, mean: Tensor, s: Tensor, noise: Tensor) -> Tensor:
        """The pixels that waited until now, at s: drawn from q(x_s|x_t, x̂) with x̂ = `mean` (B, C, *) and t the time at
        which they waited (`gaussian.posterior`). s: (); noise: (B, C, *).
        """
        schedule, y = self.schedule, self.y.to(mean).expand_as(mean)
        alpha, _ = schedule(self.times(torch.ones_like(s)))
        return gaussian.posterior(schedule, mean, expand(alpha, y) * y, self.waits.clamp(max=1), self.times(s)).sample(
            noise
        )


@dataclass(frozen=True)
class ObservedStep(Sampler):
    """A wrapped `sampler` that brings the pixels along that the trajectory comes by within a step.

    A pixel does so once, by a step of first order. So the order of a sampler is at most two where something was
    observed in noise, and its own where nothing was.
    """

    sampler: Sampler
    observed: Observed

    @property
    def nfe_per_step(self) -> int:
        """The evaluations of the wrapped sampler."""
        return self.sampler.nfe_per_step

    @property
    def ancestral(self) -> bool:
        """That of the wrapped sampler."""
        return self.sampler.ancestral

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Takes a step of the wrapped sampler, whose state is passed on."""
        passing = (self.observed.waits <= float(t)) & (self.observed.waits > float(s))
        estimating = LastEstimate(denoiser)
        x_s, state = self.sampler.step(estimating, x_t, t, s, state, randn)
        if passing.any():
            moved = self.observed.moved(estimating.mean, s, randn(x_t))
            x_s = torch.where(to_device(passing, x_s.device), moved, x_s)
        return x_s, state


def begins(times: Tensor, waits: Tensor) -> Tensor:
    """The grid `times` (T,), decreasing, from the time on at which the first pixel moves.

    Where every pixel was observed, nothing moves before the noisiest of them does.
    """
    first = float(waits.max())
    if not first < float(times[0]):
        return times
    return torch.cat([torch.tensor([first], dtype=times.dtype), times[times < first]])
