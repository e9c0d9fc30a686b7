"""The diffusion loss of an example, Σ_t E_q KL(q(x_s|x_t, x) || p(x_s|x_t)), from samples at single timesteps.

It is the KL divergence between the forward and the reverse trajectory between the ends of a timestep grid. In
continuous time it is ½ ∫ SNR E‖x - x̂‖² dλ (Kingma et al. 2021, arXiv 2107.00630, eq. 18).

Where something of an example is known, or has not been seen (`given`), x_t is drawn at a map of times, as in training:
what is known is at the clean end, what is unseen at the noisy one. Only the coordinates in between count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import gaussian, levels
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.samplers import RandN
from diffusion.schedules import Schedule, rows
from diffusion.transfers import to_device


@dataclass(frozen=True)
class KLSamples:
    """Per-timestep samples of the KL divergence, D for each example.

    `log_snr` (B, D) is the log-SNR of each sample. `nats` (B, D) is the estimate of the whole diffusion loss, in nats,
    by this sample alone: the KL of its step times the number of steps, or the KL per unit of log-SNR times the range.
    """

    log_snr: Tensor
    nats: Tensor

    @property
    def total(self) -> Tensor:
        """The estimate of the diffusion loss by all samples, their mean: (B,) nats."""
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
    relative: Tensor | None = None,
) -> KLSamples:
    """Estimates the diffusion loss of x (B, C, *) on the grid `times` (T,) from one draw of x_t at each of some steps.

    `draws` None samples every step. Otherwise the steps are divided into `draws` equal parts, and each part is sampled
    once, at the relative position `offset` in [0, 1), one number or (B,). The estimate is unbiased if the offset is
    uniform. With `continuous`, the range of log-SNR between the ends of the grid is divided in place of the steps, and
    the loss is that of continuous time.

    `variance_interp` in [0, 1] interpolates between the fixed reverse variances (`gaussian.reverse`) unless the
    denoiser has learned one. The algebra is in float64; the denoiser runs in the dtype of x. `relative` (B or 1, 1, *)
    are the levels of pixels relative to the trajectory's (`levels.relative`), of which those of 1 count.

    Raises InputError unless 1 <= draws (or None, but not with `continuous`) and 0 <= variance_interp <= 1.
    """
    require(draws is None or draws >= 1, "draws", "at least 1", draws)
    require(draws is not None or not continuous, "draws", "a number in continuous time", draws)
    require(0 <= variance_interp <= 1, "variance_interp", "in [0, 1]", variance_interp)
    schedule, clean, steps = denoiser.schedule, x.double(), len(times) - 1
    count = draws or steps
    offsets = torch.as_tensor(offset if draws else 0.5, dtype=torch.float64).expand(len(x))
    log_snr = schedule.log_snr(times)
    sampled, nats = [], []
    for number in range(count):
        position = (number + offsets) / count
        if continuous:
            sampled.append(log_snr[0] + position * (log_snr[-1] - log_snr[0]))
            density = kl_per_log_snr(denoiser, clean, schedule.time(sampled[-1]), label, randn, x.dtype, relative)
            nats.append(density * float(log_snr[-1] - log_snr[0]))
        else:
            index = (position * steps).long().clamp_max(steps - 1)
            sampled.append((log_snr[index] + log_snr[index + 1]) / 2)
            t, s = times[index], times[index + 1]
            kl = sample_step_kl(
                denoiser, clean, t, s, label, randn, x.dtype, variance_interp=variance_interp, relative=relative
            )
            nats.append(kl * steps)
    return KLSamples(torch.stack(sampled, 1), torch.stack(nats, 1))


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
    relative: Tensor | None = None,
) -> Tensor:
    """Samples KL(q(x_s|x_t, x) || p(x_s|x_t)) (`gaussian.step_kl`) at one draw of x_t ~ q(x_t|x): (B,) nats.

    x: (B, C, *) float64; t, s: (B,); relative: (B or 1, 1, *).
    """
    x_t, times, counted = noised(denoiser.schedule, x, t, randn, relative)
    mean, interp = predict(denoiser, x_t, times, label, dtype, variance_interp)
    return gaussian.step_kl(denoiser.schedule, x, mean, x_t, t, s, variance_interp=interp, counted=counted)


def noised(
    schedule: Schedule, x: Tensor, t: Tensor, randn: RandN, relative: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Draws x_t ~ q(x_t|x) at t (B,) for x (B, C, *). Returns it, the times of its coordinates, and which ones count.

    With `relative` (B or 1, 1, *) the times are a map of the same shape but for the batch. Without it they are t, and
    all coordinates count, which is None.
    """
    times = t if relative is None else levels.relative(relative, to_device(t, x.device))
    x_t = gaussian.marginal(schedule, x, levels.seen(times)).sample(randn(x))
    return x_t, times, None if relative is None else relative == 1


def predict(
    denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, label: Tensor | None, dtype: torch.dtype, variance_interp: float
) -> tuple[Tensor, Tensor | float]:
    """Evaluates the denoiser in `dtype` and returns x̂ and the interpolation of the reverse variance, both in float64.

    The interpolation is `variance_interp` unless the denoiser has learned one.
    """
    mean, learned = denoiser(x_t.to(dtype), t, label)
    return mean.double(), variance_interp if learned is None else learned.double()


def kl_per_log_snr(
    denoiser: AnyDenoiser,
    x: Tensor,
    t: Tensor,
    label: Tensor | None,
    randn: RandN,
    dtype: torch.dtype,
    relative: Tensor | None = None,
) -> Tensor:
    """Samples ½ SNR ‖x - x̂‖², the KL per unit of log-SNR in the limit of short steps, at one draw of x_t: (B,) nats.

    x: (B, C, *) float64; t: (B,); relative: (B or 1, 1, *).
    """
    x_t, times, counted = noised(denoiser.schedule, x, t, randn, relative)
    error = x - denoiser(x_t.to(dtype), times, label).mean.double()
    return rows(denoiser.schedule.log_snr(t).exp(), x) * gaussian.total(error.square(), counted) / 2
