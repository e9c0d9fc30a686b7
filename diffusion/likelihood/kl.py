"""The KL divergence between the forward and the reverse trajectory of an example, Σ_t E_q KL(q(x_s|x_t, x) ||
p(x_s|x_t)), estimated at some noise levels.

In continuous time it is ½ ∫ SNR E‖x - x̂‖² dλ (Kingma et al. 2021, arXiv 2107.00630, eq. 18).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.samplers import RandN


@dataclass(frozen=True)
class KLSamples:
    """Where on the trajectory examples were seen, log-SNRs (B, V), and estimates of the whole sum of KLs from each of
    these visits alone, nats (B, V).
    """

    log_snr: Tensor
    nats: Tensor

    @property
    def total(self) -> Tensor:
        """The mean over visits: (B,) nats."""
        return self.nats.mean(1)


def estimate_diffusion_loss(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    draws: int | None,
    offset: float | Tensor,
    continuous: bool,
    variance_interp: float,
    label: Tensor | None,
    randn: RandN,
) -> KLSamples:
    """Estimates the sum of KLs over the steps of a grid from one noise draw at every step, or at `draws` of them.

    The grid is cut into `draws` equal parts, and an example is seen at the same place in all of them, its `offset` in
    [0, 1), one number or (B,): the estimate is unbiased when the offset is uniform. With `continuous`, time is
    continuous between the ends of the grid, and `draws` are levels of log-SNR. `variance_interp` in [0, 1] is where
    between its two fixed values the reverse variance lies (`gaussian.reverse`) unless it is learned. The algebra is in
    float64, the denoiser runs in the dtype of x.
    """
    require(draws is None or draws >= 1, "draws", "at least 1", draws)
    require(draws is not None or not continuous, "draws", "a number in continuous time", draws)
    require(0 <= variance_interp <= 1, "fraction", "in [0, 1]", variance_interp)
    schedule, clean, steps = denoiser.schedule, x.double(), len(times) - 1
    count = draws or steps
    start = torch.as_tensor(offset if draws else 0.5, dtype=torch.float64).expand(len(x))
    log_snr = schedule.log_snr(times)
    seen, nats = [], []
    for number in range(count):
        place = (number + start) / count
        if continuous:
            middle = log_snr[0] + place * (log_snr[-1] - log_snr[0])
            rate = kl_per_log_snr(denoiser, clean, schedule.time(middle), label, randn, x.dtype)
            nats.append(rate * float(log_snr[-1] - log_snr[0]))
        else:
            index = (place * steps).long().clamp_max(steps - 1)
            middle = (log_snr[index] + log_snr[index + 1]) / 2
            t, s = times[index], times[index + 1]
            nats.append(
                sample_step_kl(denoiser, clean, t, s, label, randn, x.dtype, variance_interp=variance_interp) * steps
            )
        seen.append(middle)
    return KLSamples(torch.stack(seen, 1), torch.stack(nats, 1))


def sample_step_kl(
    denoiser: AnyDenoiser,
    x: Tensor,
    t: Tensor,
    s: Tensor,
    label: Tensor | None,
    randn: RandN,
    dtype: torch.dtype,
    *,
    variance_interp: float = 0.0,
) -> Tensor:
    """`gaussian.step_kl` at one draw of x_t. x: (B, C, *) float64; t, s: (B,). Returns (B,) nats."""
    x_t = gaussian.marginal(denoiser.schedule, x, t).sample(randn(x))
    mean, part = predict(denoiser, x_t, t, label, dtype, variance_interp)
    return gaussian.step_kl(denoiser.schedule, x, mean, x_t, t, s, variance_interp=part)


def predict(
    denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, label: Tensor | None, dtype: torch.dtype, variance_interp: float
) -> tuple[Tensor, Tensor | float]:
    """x̂ and the place of the reverse variance between its limits, `variance_interp` unless it is learned, in float64;
    the denoiser runs in `dtype`.
    """
    mean, learned = denoiser(x_t.to(dtype), t, label)
    return mean.double(), variance_interp if learned is None else learned.double()


def kl_per_log_snr(
    denoiser: AnyDenoiser, x: Tensor, t: Tensor, label: Tensor | None, randn: RandN, dtype: torch.dtype
) -> Tensor:
    """The limit of `sample_step_kl` per unit of log-SNR, ½ SNR ‖x - x̂‖², at one draw of x_t. t: (B,). Returns (B,)
    nats.
    """
    x_t = gaussian.marginal(denoiser.schedule, x, t).sample(randn(x))
    error = x - denoiser(x_t.to(dtype), t, label).mean.double()
    return denoiser.schedule.log_snr(t).exp().to(x) * error.square().flatten(1).sum(1) / 2
