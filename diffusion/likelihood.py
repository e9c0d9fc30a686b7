"""The trajectory bound on the log-likelihood, by named terms (Sohl-Dickstein et al. 2015, arXiv 1503.03585, eq. 9-14).

For a grid of times from noise to clean, and one example x,

    -log p(x) <= KL(q(x_T|x) || p(x_T))                             prior
               + Σ_t E_q KL(q(x_s|x_t, x) || p(x_s|x_t))            diffusion
               - E_q log p(x|x_0)                                   decoder

in the form of Kingma et al. (2021, arXiv 2107.00630, eq. 11). For images of 256 levels the decoder is the discrete law
that the noise at the clean end leaves open, p(x|x_0) ∝ q(x_0|x) for every pixel, so the bound is one on the probability
of the 8-bit image itself and needs no dequantization. For continuous data it is the density N(x; x_0/α_0, σ_0²/α_0²).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import process
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.grids import decreasing
from diffusion.objectives import low_discrepancy
from diffusion.samplers import RandN
from diffusion.schedules import Schedule, expand


@dataclass(frozen=True)
class Levels:
    """The values that quantized data take: `count` of them, evenly spaced from `low` to `high`."""

    count: int = 256
    low: float = -1.0
    high: float = 1.0

    @property
    def spacing(self) -> float:
        """The distance between neighbors."""
        return (self.high - self.low) / (self.count - 1)


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p(x) in nats for each example, (B,), as the sum of three terms."""

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """prior + diffusion + decoder: (B,) nats."""
        return self.prior + self.diffusion + self.decoder


def bits_per_dim(nats: Tensor, dim: int) -> Tensor:
    """Nats per example as bits per scalar; for 8-bit images a uniform guess has 8."""
    return nats / (dim * math.log(2))


@torch.no_grad()
def bound(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    *,
    levels: Levels | None = None,
    draws: int | None = None,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
    offset: float = 0.5,
) -> Bound:
    """Estimates the bound for x (B, C, *) on the grid `times`, decreasing, from one noise draw per step: nats, (B,)
    float64.

    `levels` are the values of quantized data, None for continuous data. With `draws`, only that many steps of the grid
    are evaluated for each example, spread evenly and together over the batch from `offset` in [0, 1), and scaled up:
    the estimate stays unbiased when the offset is uniform. The algebra is in float64, the denoiser runs in the dtype of
    x.

    Raises ValueError unless `times` decreases strictly and 1 <= draws.
    """
    times = times.double().cpu()
    decreasing(times)
    require(draws is None or draws >= 1, "draws", "at least 1", draws)
    schedule, clean, steps = denoiser.schedule, x.double(), len(times) - 1
    visits = steps if draws is None else draws
    diffusion = clean.new_zeros(len(x))
    for visit in range(visits):
        if draws is None:
            index = torch.full((len(x),), visit)
        else:
            positions = torch.arange(len(x)) + visit * len(x)
            index = (low_discrepancy(torch.tensor(offset), positions, len(x) * draws) * steps).long()
        diffusion += step_kl(denoiser, clean, times[index], times[index + 1], label, randn, x.dtype)
    return Bound(
        prior_kl(schedule, clean, times[0]),
        diffusion * steps / visits,
        decoder(schedule, clean, times[-1], levels, randn),
    )


def step_kl(
    denoiser: AnyDenoiser, x: Tensor, t: Tensor, s: Tensor, label: Tensor | None, randn: RandN, dtype: torch.dtype
) -> Tensor:
    """KL(q(x_s|x_t, x) || p(x_s|x_t)) at one draw of x_t. x: (B, C, *) float64; t, s: (B,). Returns (B,) nats."""
    schedule = denoiser.schedule
    x_t = process.marginal(schedule, x, t).sample(randn(x))
    mean, fraction = denoiser(x_t.to(dtype), t, label)
    learned = 0.0 if fraction is None else fraction.double()
    model = process.reverse(schedule, mean.double(), x_t, t, s, fraction=learned)
    return process.posterior(schedule, x, x_t, t, s).kl(model)


def prior_kl(schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """KL(q(x_t|x) || N(0, σ_t²)), where samplers start: (B,) nats."""
    marginal = process.marginal(schedule, x, t)
    return marginal.kl(process.Gaussian(torch.zeros_like(x), marginal.variance))


def decoder(schedule: Schedule, x: Tensor, t: Tensor, levels: Levels | None, randn: RandN) -> Tensor:
    """-log p(x|x_t) at one draw of x_t: (B,) nats. With `levels`, x holds such values."""
    marginal = process.marginal(schedule, x, t)
    alpha = expand(schedule(t)[0], x)
    estimate = process.Gaussian(marginal.sample(randn(x)) / alpha, marginal.variance / alpha.square())
    if levels is None:
        return estimate.nll(x)
    std = float(estimate.variance.max().sqrt())
    reach = min(levels.count - 1, math.ceil(12 * std / levels.spacing) + 1)
    # Only values within 12 standard deviations of x can matter; the others weigh less than float64 resolves.
    log_weights = []
    for offset in range(-reach, reach + 1):
        value = x + offset * levels.spacing
        log_weight = -(estimate.mean - value).square() / (2 * estimate.variance)
        outside = (value < levels.low - levels.spacing / 2) | (value > levels.high + levels.spacing / 2)
        log_weights.append(log_weight.masked_fill(outside, -math.inf))
    return (torch.stack(log_weights).logsumexp(0) - log_weights[reach]).flatten(1).sum(1)
