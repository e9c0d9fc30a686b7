"""Bounds on the log-likelihood, as named terms, from the KL between the forward and the reverse trajectory.

For one example x and a grid of times from noise (T) to the clean end (0), in the form of Kingma et al. (2021, arXiv
2107.00630, eq. 11):

    -log p(x) <= KL(q(x_T|x) || p(x_T))                             prior
               + Σ_t E_q KL(q(x_s|x_t, x) || p(x_s|x_t))            diffusion
               - E_q log p(x|x_0)                                   decoder

For images of 256 gray levels the decoder is the discrete distribution p(x|x_0) ∝ q(x_0|x) over the values of each
pixel. The bound is then on the probability of the 8-bit image itself and needs no dequantization. For continuous data
the decoder is the density N(x; x_0/α_0, σ_0²/α_0²).

The bound of Sohl-Dickstein et al. (2015, arXiv 1503.03585, eq. 9-14) is on the density of data of unit variance. With
their x^1, ..., x^T at the times of the grid, x^0 = x, and in units where α² + σ² = 1,

    log p(x) >= K = -Σ_t E_q KL(q(x^{t-1}|x^t, x^0) || p(x^{t-1}|x^t)) + H_q(X^T|X^0) - H_q(X^1|X^0) - H_p(X^T)

where the first step is fixed, p(x^0|x^1) = q(x^1|x^0) π(x^0)/π(x^1), and p(x^T) = π = N(0, I).

Conditional likelihood. A denoiser that takes a noise level for every pixel (`levels`) estimates E[x | known, x_t
elsewhere]. With what is known held at the clean end, the same sum over the other coordinates bounds

    -log p(hidden | known),

as x̂ is then that of a model of the hidden coordinates. With the hidden ones at the noisy end, the sum over the known
coordinates bounds -log p(known). The chain rule, log p(x) = log p(known) + log p(hidden | known), holds for the limits
of the bounds where the denoiser is exact.

With infinitely many steps the sum of KLs is ½ ∫ SNR E‖x - x̂‖² dλ in both bounds, for any reverse variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.grids import check_decreasing
from diffusion.likelihood.given import levels_of
from diffusion.likelihood.kl import KLSamples, estimate_diffusion_loss
from diffusion.samplers import RandN
from diffusion.schedules import Schedule, VariancePreserving, expand


@dataclass(frozen=True)
class Quantization:
    """The `count` values that quantized data take, evenly spaced from `low` to `high`."""

    count: int = 256
    low: float = -1.0
    high: float = 1.0

    @property
    def spacing(self) -> float:
        """The distance between neighboring values."""
        return (self.high - self.low) / (self.count - 1)


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p(x) in nats for each example, as the sum of three terms, (B,) each.

    `kl_samples` are the estimates at single timesteps whose mean is `diffusion`. `counted` has the number of scalars of
    each example that the terms are of, (B,), or is None where they are of all.
    """

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor
    kl_samples: KLSamples | None = None
    counted: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """prior + diffusion + decoder: (B,) nats."""
        return self.prior + self.diffusion + self.decoder


@dataclass(frozen=True)
class Bound2015:
    """K, the lower bound of 2015 on log p(x) in nats for each example, as the terms of its equation 14, (B,) each.

    `kl` is the sum of KLs; `end`, `start` and `prior` are the entropies H_q(X^T|X^0), H_q(X^1|X^0) and H_p(X^T). The
    equation leaves out `moment` = ½ (d - ‖x‖²)(1 - ᾱ_1 + ᾱ_T), which is zero on average over data of unit second moment
    (appendix B.2 of the paper). With this term the bound holds for every example and for data of any scale.
    `kl_samples` are the estimates at single timesteps whose mean is `kl`.
    """

    kl: Tensor
    end: Tensor
    start: Tensor
    prior: Tensor
    moment: Tensor
    kl_samples: KLSamples

    @property
    def equation_14(self) -> Tensor:
        """-kl + end - start - prior: (B,) nats, a lower bound on average over data of unit second moment."""
        return -self.kl + self.end - self.start - self.prior

    @property
    def total(self) -> Tensor:
        """K = equation_14 + moment: (B,) nats, a lower bound on log p of each example."""
        return self.equation_14 + self.moment


@torch.no_grad()
def bound(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    *,
    quantization: Quantization | None = None,
    draws: int | None = None,
    continuous: bool = False,
    variance_interp: float = 0.0,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
    offset: float | Tensor = 0.5,
    known: Tensor | None = None,
    seen: Tensor | None = None,
) -> Bound:
    """Estimates the bound for x (B, C, *) on the timestep grid `times` (T,), decreasing: (B,) float64, in nats.

    `quantization` gives the values of quantized data and is None for continuous data. `estimate_diffusion_loss`
    describes the other arguments.

    `known` and `seen` are bool, (B or 1, 1, *), or (B or 1, D) for points. With `known` the bound is that on
    -log p(hidden | known), of the coordinates that are not known. With `seen` it is that of the coordinates that have
    been seen, whatever the others are; x has no influence there. The denoiser has to take a map of times for either.

    Raises InputError unless `times` decreases strictly, 1 <= draws, and x where it is seen is finite and with
    `quantization` holds its values alone; and as `given.levels_of` does.
    """
    relative = levels_of(x, known, seen)
    x = x if seen is None else torch.where(seen, x, 0.0)
    times = checked_times(x, times, quantization, seen)
    schedule, clean = denoiser.schedule, x.double()
    kl_samples = estimate_diffusion_loss(
        denoiser, x, times, draws, offset, continuous, variance_interp, label, randn, relative
    )
    counted = None if relative is None else relative == 1
    return Bound(
        prior_kl(schedule, clean, times[0], counted),
        kl_samples.total,
        decoder(schedule, clean, times[-1], quantization, randn, counted),
        kl_samples,
        None if counted is None else gaussian.total(torch.ones_like(clean), counted),
    )


@torch.no_grad()
def bound_2015(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    *,
    draws: int | None = None,
    continuous: bool = False,
    variance_interp: float = 0.0,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
    offset: float | Tensor = 0.5,
) -> Bound2015:
    """Estimates K for continuous x (B, C, *), with x^T at times[0], x^1 at times[-1] and x^0 = x: (B,) float64.

    `estimate_diffusion_loss` describes the other arguments. Raises InputError as `bound` does.
    """
    times = checked_times(x, times, None)
    clean, vp = x.double(), VariancePreserving(denoiser.schedule)
    kl_samples = estimate_diffusion_loss(denoiser, x, times, draws, offset, continuous, variance_interp, label, randn)
    end, start = (gaussian.marginal(vp, clean, t) for t in (times[0], times[-1]))
    prior = gaussian.Gaussian(torch.zeros_like(clean), torch.ones_like(clean))
    excess = (1 - clean.square()).flatten(1).sum(1) / 2
    moment = excess * (start.variance.flatten()[0] + 1 - end.variance.flatten()[0])
    return Bound2015(kl_samples.total, end.entropy(), start.entropy(), prior.entropy(), moment, kl_samples)


def entropy_bounds(schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper limit of H_q(X_s|X_t) for s < t, in nats, in units where α² + σ² = 1: (B,), (B,).

    H_q(X_t|X_s) + H_q(X_s|X) - H_q(X_t|X) <= H_q(X_s|X_t) <= H_q(X_t|X_s) (Sohl-Dickstein et al. 2015, eq. 24). The
    upper limit holds if the forward process does not lower the entropy of x_t, as for data of unit variance. x: (B, *).
    """
    vp, x = VariancePreserving(schedule), x.double()
    upper = gaussian.transition(vp, x, s, t).entropy()
    return upper + gaussian.marginal(vp, x, s).entropy() - gaussian.marginal(vp, x, t).entropy(), upper


def prior_kl(schedule: Schedule, x: Tensor, t: Tensor, counted: Tensor | None = None) -> Tensor:
    """KL(q(x_t|x) || N(0, σ_t²)), the divergence from the distribution that samplers start from: (B,) nats.

    It is that of all coordinates or those `counted`, bool (B or 1, 1, *).
    """
    marginal = gaussian.marginal(schedule, x, t)
    return marginal.kl(gaussian.Gaussian(torch.zeros_like(x), marginal.variance), counted)


def decoder(
    schedule: Schedule,
    x: Tensor,
    t: Tensor,
    quantization: Quantization | None,
    randn: RandN,
    counted: Tensor | None = None,
) -> Tensor:
    """-log p(x|x_t) at one draw of x_t ~ q(x_t|x): (B,) nats. The other arguments are those of `reconstruction`."""
    return reconstruction(schedule, x, gaussian.marginal(schedule, x, t).sample(randn(x)), t, quantization, counted)


def reconstruction(
    schedule: Schedule,
    x: Tensor,
    x_t: Tensor,
    t: Tensor,
    quantization: Quantization | None,
    counted: Tensor | None = None,
) -> Tensor:
    """-log p(x|x_t), the decoder, of all coordinates or those `counted`: (B,) nats.

    With `quantization`, x holds its values where it counts.
    """
    alpha = expand(schedule(t)[0], x)
    density = gaussian.Gaussian(x_t / alpha, gaussian.marginal(schedule, x, t).variance / alpha.square())
    if quantization is None:
        return density.nll(x, counted)
    std = float(density.variance.max().sqrt())
    # Only values within 12 standard deviations of x can matter; the others weigh less than float64 resolves.
    reach = min(quantization.count - 1, math.ceil(12 * std / quantization.spacing) + 1)
    log_weights = []
    for offset in range(-reach, reach + 1):
        value = x + offset * quantization.spacing
        log_weight = -(density.mean - value).square() / (2 * density.variance)
        outside = (value < quantization.low - quantization.spacing / 2) | (
            value > quantization.high + quantization.spacing / 2
        )
        log_weights.append(log_weight.masked_fill(outside, -math.inf))
    return gaussian.total(torch.stack(log_weights).logsumexp(0) - log_weights[reach], counted)


def checked_times(x: Tensor, times: Tensor, quantization: Quantization | None, seen: Tensor | None = None) -> Tensor:
    """Returns the times (T,) in float64 on the CPU.

    Raises InputError unless there are at least two, they decrease strictly, and x is finite and holds the values of
    `quantization` alone, if that is given. Where x is not `seen` its values may be others.
    """
    times = times.double().cpu()
    check_decreasing(times)
    require(len(times) >= 2, "times", "at least two", times.tolist())
    check_finite(x)
    if quantization is not None:
        index = (x.double() - quantization.low) / quantization.spacing
        off = ((index - index.round()).abs() > 0.01) | (index.round() < 0) | (index.round() > quantization.count - 1)
        off = off if seen is None else off & seen
        if off.any():
            raise InputError(
                f"x: must hold the {quantization.count} values from {quantization.low:g} to {quantization.high:g} "
                f"alone, got {float(x[off][0]):g} in example {int(off.flatten(1).any(1).nonzero()[0])}"
            )
    return times


def check_finite(x: Tensor, name: str = "x", *, numbered: bool = True) -> None:
    """Raises InputError if a value of x (B, *), called `name`, is not finite.

    The error names the first such example if they are `numbered`.
    """
    bad = ~x.isfinite().flatten(1).all(1)
    if bad.any():
        number = int(bad.nonzero()[0])
        value = x[number][~x[number].isfinite()][0]
        whose = f" in example {number}" if numbered else ""
        raise InputError(f"{name}: must be finite, got {float(value)}{whose}")
