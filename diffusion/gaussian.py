"""The Gaussian algebra of the forward and the reverse trajectory.

No other file writes the mean or the variance of a transition. With SNR_t = α_t²/σ_t², s < t and r = SNR_t/SNR_s < 1
(Kingma et al. 2021, arXiv 2107.00630, appendix A; Ho et al. 2020, eq. 6-7):

    q(x_t|x)      = N(α_t x, σ_t²)
    q(x_t|x_s)    = N((α_t/α_s) x_s, σ_t² (1 - r))
    q(x_s|x_t, x) = N(α_s (1 - r) x + r (α_s/α_t) x_t, σ_s² (1 - r))
    p(x_s|x_t)    = N(α_s (1 - r) x̂ + r (α_s/α_t) x_t, v),  x̂ = x̂(x_t),  σ_s² (1 - r) <= v <= σ_t² (1 - r)

1 - r is computed as -expm1(λ_t - λ_s), which does not cancel for neighboring times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedules import Schedule, expand, expand_all


@dataclass(frozen=True)
class Gaussian:
    """N(mean, variance) with independent coordinates. `mean` is (B, *); `variance` broadcasts against it."""

    mean: Tensor
    variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + sqrt(variance) noise, (B, *)."""
        return self.mean + self.variance.sqrt() * noise

    def kl(self, other: Gaussian, counted: Tensor | None = None) -> Tensor:
        """KL(self || other) of each example in nats, of all coordinates or those `counted`: (B,).

        It is exactly 0 for equal Gaussians of positive variance.
        """
        ratio = self.variance / other.variance
        distance = (self.mean - other.mean).square() / other.variance
        # ratio - 1 - log(ratio) cancels near ratio = 1. In the common case, equal variances, it is exactly 0.
        return total(distance + ratio - 1 - ratio.log(), counted) / 2

    def entropy(self) -> Tensor:
        """-E log N of each example in nats, Σ ½ log(2πe variance): (B,)."""
        each = self.variance.log() + math.log(2 * math.pi * math.e)
        return (each + torch.zeros_like(self.mean)).flatten(1).sum(1) / 2

    def nll(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """-log N(x; mean, variance) of each example in nats, of all coordinates or those `counted`: (B, *) -> (B,)."""
        each = self.variance.log() + math.log(2 * math.pi)
        return total((x - self.mean).square() / self.variance + each, counted) / 2


def total(each: Tensor, counted: Tensor | None = None) -> Tensor:
    """The sum of numbers (B, *) over the coordinates of each example, or over those `counted`: (B,).

    `counted` is bool and broadcasts against the numbers. Those of other coordinates may be anything, NaN included.
    """
    kept = each if counted is None else torch.where(counted, each, 0.0)
    return kept.flatten(1).sum(1)


def marginal(schedule: Schedule, x: Tensor, t: Tensor) -> Gaussian:
    """q(x_t|x). x: (B, *); t: () or (B,), or a map of times in [0, 1] (`levels`)."""
    alpha_t, sigma_t = expand_all(schedule(t), x)
    return Gaussian(alpha_t * x, sigma_t.square())


def transition(schedule: Schedule, x_s: Tensor, s: Tensor, t: Tensor) -> Gaussian:
    """q(x_t|x_s) for s < t. x_s: (B, *); s, t: () or (B,)."""
    (alpha_s, _), (alpha_t, sigma_t) = schedule(s), schedule(t)
    variance = sigma_t.square() * snr_drop(schedule, s, t)
    scale, variance = expand_all((alpha_t / alpha_s, variance), x_s)
    return Gaussian(scale * x_s, variance)


def posterior(
    schedule: Schedule, x: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, eta: float | Tensor = 1.0
) -> Gaussian:
    """q_η(x_s|x_t, x) for s < t. η = 1 is the posterior of the forward process, η = 0 is deterministic (DDIM).

    For any η the marginal of x_s is q(x_s|x) (Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 7). x, x_t: (B, *); t, s:
    () or (B,).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    variance = eta**2 * sigma_s.square() * snr_drop(schedule, s, t)
    keep = (sigma_s.square() - variance).clamp_min(0).sqrt() / sigma_t
    gain, keep, variance = expand_all((alpha_s - keep * alpha_t, keep, variance), x)
    return Gaussian(gain * x + keep * x_t, variance)


def distillation_target(schedule: Schedule, x_s: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The target x̃ of a student: the x̂ whose DDIM step (`posterior` with η = 0) from x_t at t gives x_s at s.

    x̃ = (x_s - (σ_s/σ_t) x_t) / (α_s - (σ_s/σ_t) α_t) (Salimans and Ho 2022, arXiv 2202.00512, appendix G): (B, *).
    x_s, x_t: (B, *); t, s: () or (B,), s < t.
    """
    (_, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    keep = sigma_s / sigma_t
    # α_s - keep α_t = α_s (1 - √(SNR_t/SNR_s)), without cancellation between neighboring times.
    gain = alpha_s * -torch.expm1((schedule.log_snr(t) - schedule.log_snr(s)) / 2)
    keep, gain = expand_all((keep, gain), x_s)
    return (x_s - keep * x_t) / gain


def reverse(
    schedule: Schedule, mean: Tensor, x_t: Tensor, t: Tensor, s: Tensor, *, variance_interp: Tensor | float = 0.0
) -> Gaussian:
    """p(x_s|x_t): the mean of the posterior at x̂ = `mean`, and a reverse variance between two fixed ones.

    `variance_interp` = v interpolates the logarithm of the variance, σ_s^(2(1-v)) σ_t^(2v) (1 - r) (Nichol and Dhariwal
    2021, arXiv 2102.09672, eq. 15). 0 gives the lower limit σ_s² (1 - r), which is exact for data at a single point; 1
    gives the upper limit σ_t² (1 - r), which is exact for white data of unit variance. A learned one is (B, *) in [0,
    1]. mean, x_t: (B, *); t, s: () or (B,).
    """
    lower = posterior(schedule, mean, x_t, t, s)
    (_, sigma_t), (_, sigma_s) = schedule(t), schedule(s)
    # A power of upper / lower gives the variance of the posterior to the last bit at variance_interp 0, so that their
    # KL does not cancel.
    return Gaussian(lower.mean, lower.variance * expand((sigma_t / sigma_s).square(), mean) ** variance_interp)


def step_kl(
    schedule: Schedule,
    x: Tensor,
    mean: Tensor,
    x_t: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    variance_interp: Tensor | float = 0.0,
    counted: Tensor | None = None,
) -> Tensor:
    """KL(q(x_s|x_t, x) || p(x_s|x_t)) with x̂ = `mean`, of all coordinates or those `counted`: (B,) nats.

    The other arguments are those of `reverse`.
    """
    model = reverse(schedule, mean, x_t, t, s, variance_interp=variance_interp)
    return posterior(schedule, x, x_t, t, s).kl(model, counted)


def snr_drop(schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
    """1 - SNR_t/SNR_s for s < t, in [0, 1], with the shape of s and t: the share of the SNR at s that is lost by t."""
    return -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
