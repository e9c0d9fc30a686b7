"""What a denoiser does at fixed noise levels, measured on examples: its error, and the speed of its flow."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.samplers import RandN
from diffusion.schedules import Schedule, VariancePreserving, expand, expand_all
from diffusion.thermodynamics.balance import springs


@torch.no_grad()
def at_levels(
    denoiser: AnyDenoiser,
    x: Tensor,
    log_snr: Tensor,
    *,
    dtype: torch.dtype,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> tuple[Tensor, Tensor]:
    """Measures ‖x - x̂‖² and ‖ν‖² of the learned flow in the time -λ (`velocity`): (B, T) float64 each.

    For x (B, C, *) float64, by one draw of x_t at each of the log-SNRs (T,), and so many evaluations of the denoiser,
    which runs in `dtype`. ν is that of x_t in units where α² + σ² = 1, so that both depend on log-SNRs alone.
    """
    schedule, found = denoiser.schedule, []
    preserving = VariancePreserving(schedule)
    for t in schedule.time(log_snr):
        x_t = gaussian.marginal(schedule, x, t).sample(randn(x))
        mean = denoiser(x_t.to(dtype), t, label).mean.double()
        alpha, sigma = schedule(t)
        unit = x_t / expand((alpha.square() + sigma.square()).sqrt(), x_t)
        values = torch.stack([x - mean, velocity(preserving, unit, mean, t)])
        found.append(values.square().flatten(2).sum(2))
    errors, squares = torch.stack(found, 2)
    return errors, squares


@torch.no_grad()
def misses(
    denoiser: AnyDenoiser,
    exact: AnyDenoiser,
    x: Tensor,
    log_snr: Tensor,
    *,
    dtype: torch.dtype,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Tensor:
    """Measures ‖x̂ - E[x|x_t]‖², whose mean is the error of a denoiser less the mmse: (B, T) float64.

    `exact` is the denoiser of the distribution that x comes from. The other arguments are those of `at_levels`.
    """
    schedule, found = denoiser.schedule, []
    for t in schedule.time(log_snr):
        x_t = gaussian.marginal(schedule, x, t).sample(randn(x))
        off = denoiser(x_t.to(dtype), t, label).mean.double() - exact(x_t, t, label).mean
        found.append(off.square().flatten(1).sum(1))
    return torch.stack(found, 1)


def velocity(schedule: Schedule, x_t: Tensor, mean: Tensor, t: Tensor) -> Tensor:
    """-dx_t/dλ on the probability flow with x̂ = `mean`, (½ - a) x_t - ½ α x̂, a = d log α/dλ: (B, *).

    It is ν in the time -λ, with the score (α x̂ - x_t)/σ² (`balance`). x_t, mean: (B, *); t: ().
    """
    a, _, _ = springs(schedule, schedule.log_snr(t)[None])
    gain, share = expand_all((0.5 - a[0], schedule(t)[0] / 2), x_t)
    return gain * x_t - share * mean
