"""The Gaussian algebra of the forward and reverse trajectories; the one place where a mean or a variance of a
transition is written.

With SNR_t = α_t²/σ_t², s < t and r = SNR_t/SNR_s < 1 (Kingma et al. 2021, arXiv 2107.00630, appendix A; Ho et al. 2020,
eq. 6-7):

    q(x_t|x)      = N(α_t x, σ_t²)
    q(x_t|x_s)    = N((α_t/α_s) x_s, σ_t² (1 - r))
    q(x_s|x_t, x) = N(α_s (1 - r) x + r (α_s/α_t) x_t, σ_s² (1 - r))
    p(x_s|x_t)    = the same with x̂(x_t) for x, and a variance between σ_s² (1 - r) and σ_t² (1 - r)

1 - r is computed as -expm1(λ_t - λ_s), so neighboring times do not cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedules import Schedule, expand


@dataclass(frozen=True)
class Gaussian:
    """N(mean, variance) with independent coordinates. `mean` is (B, *); `variance` broadcasts against it."""

    mean: Tensor
    variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + sqrt(variance) noise, (B, *)."""
        return self.mean + self.variance.sqrt() * noise

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) of each example in nats: (B,). Exactly 0 between equal Gaussians of positive variance."""
        ratio = self.variance / other.variance
        distance = (self.mean - other.mean).square() / other.variance
        # ratio - 1 - log(ratio) loses its digits near ratio = 1, but equal variances are the common case and exact.
        return (distance + ratio - 1 - ratio.log()).flatten(1).sum(1) / 2

    def entropy(self) -> Tensor:
        """-E log N of each example in nats, Σ ½ log(2πe variance): (B,)."""
        variance = self.variance.expand_as(self.mean)
        return (variance.log() + math.log(2 * math.pi * math.e)).flatten(1).sum(1) / 2

    def nll(self, x: Tensor) -> Tensor:
        """-log N(x; mean, variance) of each example in nats: (B, *) -> (B,)."""
        variance = self.variance.expand_as(x)
        return ((x - self.mean).square() / variance + variance.log() + math.log(2 * math.pi)).flatten(1).sum(1) / 2


def marginal(schedule: Schedule, x: Tensor, t: Tensor) -> Gaussian:
    """q(x_t|x). x: (B, *); t: () or (B,)."""
    alpha_t, sigma_t = (expand(v, x) for v in schedule(t))
    return Gaussian(alpha_t * x, sigma_t.square())


def transition(schedule: Schedule, x_s: Tensor, s: Tensor, t: Tensor) -> Gaussian:
    """q(x_t|x_s) for s < t. x_s: (B, *); s, t: () or (B,)."""
    (alpha_s, _), (alpha_t, sigma_t) = schedule(s), schedule(t)
    variance = sigma_t.square() * snr_drop(schedule, s, t)
    return Gaussian(expand(alpha_t / alpha_s, x_s) * x_s, expand(variance, x_s))


def posterior(
    schedule: Schedule, x: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, eta: float | Tensor = 1.0
) -> Gaussian:
    """q_η(x_s|x_t, x) for s < t; η = 1 is the forward process's own posterior, η = 0 moves along a deterministic path.

    For any η the marginal of x_s is q(x_s|x) (Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 7). x, x_t: (B, *); t, s:
    () or (B,).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    variance = eta**2 * sigma_s.square() * snr_drop(schedule, s, t)
    keep = (sigma_s.square() - variance).clamp_min(0).sqrt() / sigma_t
    mean = expand(alpha_s - keep * alpha_t, x) * x + expand(keep, x) * x_t
    return Gaussian(mean, expand(variance, x))


def distillation_target(schedule: Schedule, x_s: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The x for which the deterministic step from x_t, `posterior` with η = 0, lands on x_s: (B, *).

    Salimans and Ho (2022, arXiv 2202.00512, appendix G). x_s, x_t: (B, *); t, s: () or (B,), s < t.
    """
    (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    keep = sigma_s / sigma_t
    # α_s - keep α_t = α_s (1 - √(SNR_t/SNR_s)), without cancellation between neighboring times.
    gain = alpha_s * -torch.expm1((schedule.log_snr(t) - schedule.log_snr(s)) / 2)
    return (x_s - expand(keep, x_s) * x_t) / expand(gain, x_s)


def reverse(
    schedule: Schedule, mean: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, variance_interp: Tensor | float = 0.0
) -> Gaussian:
    """p(x_s|x_t): the posterior at the estimate x̂ = `mean`, with a variance interpolated in the logarithm.

    `variance_interp` 0 gives the lower variance σ_s² (1 - r), right for data without spread, 1 the upper σ_t² (1 - r),
    right for white data; a learned one is (B, *) in [0, 1] (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 15). mean,
    x_t: (B, *); t, s: () or (B,).
    """
    small = posterior(schedule, mean, x_t, t, s)
    (_, sigma_t), (_, sigma_s) = schedule(t), schedule(s)
    # As a power of large / small, so that fraction 0 gives the posterior's variance to the last bit: their KL then does
    # not cancel.
    return Gaussian(small.mean, small.variance * expand((sigma_t / sigma_s).square(), mean) ** variance_interp)


def step_kl(
    schedule: Schedule,
    x: Tensor,
    mean: Tensor,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    variance_interp: Tensor | float = 0.0,
) -> Tensor:
    """KL(q(x_s|x_t, x) || p(x_s|x_t)) with the estimate x̂ = `mean`: (B,) nats. Arguments as for `reverse`."""
    return posterior(schedule, x, x_t, t, s).kl(reverse(schedule, mean, x_t, t, s, variance_interp=variance_interp))


def snr_drop(schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
    """1 - SNR_t/SNR_s: the share of the signal at s that is lost at t, in [0, 1]."""
    return -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
