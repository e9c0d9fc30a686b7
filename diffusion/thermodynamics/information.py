"""The information that x_t has of x, from the error of the best denoiser.

For x_t = α x + σ ε and the least mean square error mmse = E‖x - E[x|x_t]‖², which depends on the SNR alone (Guo, Shamai
and Verdú 2005, arXiv cs/0412108, theorem 1),

    dI(x; x_t)/dSNR = ½ mmse,        dI/dλ = ½ SNR mmse.

The entropy of x_t is h(x_t) = I(x; x_t) + (d/2) log(2πe σ²). With the error of any other denoiser in place of the mmse,
the same integral is the diffusion term of the trajectory bound (`likelihood.kl`), and not below the information.

A reverse step from t to s evaluates the denoiser once. With the lower reverse variance its KL is ½ (SNR_s - SNR_t)
mmse_t, where continuous time has ½ ∫ mmse dSNR. The excess is what a step of finite length dissipates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.errors import require


def information(error: Tensor, log_snr: Tensor) -> Tensor:
    """½ ∫ SNR error dλ from the first of the log-SNRs (T,), increasing, to each: (*, T) nats, of errors (*, T).

    By the trapezoidal rule. For the mmse it is I(x; x_t) less its value at the first one (`least`).
    """
    density = log_snr.exp() * error / 2
    return cumulative(density, log_snr)


def least(error: Tensor, log_snr: Tensor) -> Tensor:
    """I(x; x_t) at the first of the log-SNRs (T,), up to the second order in its SNR: (*) nats, of the mmse (*, T)."""
    return log_snr[0].exp() * error[..., 0] / 2


def differential_entropy(mmse: Tensor, log_snr: Tensor, dim: int) -> Tensor:
    """h(x + e^(-λ/2) ε) at the last of the log-SNRs (T,), for x of `dim` scalars with the mmse (*, T): (*) nats.

    It tends to h(x) as the last log-SNR grows. The first one must be low: it is the end where x_t has no information.
    """
    noise = dim / 2 * (math.log(2 * math.pi * math.e) - log_snr[-1])
    return least(mmse, log_snr) + information(mmse, log_snr)[..., -1] + noise


def dissipation_of_steps(error: Tensor, known: Tensor, log_snr: Tensor) -> Tensor:
    """The excess of the KL of each reverse step over continuous time: (*, T - 1) nats, for log-SNRs (T,), increasing.

    `error` (*, T) is that of the denoiser, and `known` (*, T) its `information`, from a grid as fine as needed. It is
    ½ (SNR_s - SNR_t) error_t - (known_s - known_t), with the lower reverse variance, and not below 0 where the error
    falls with the SNR, as the mmse does.
    """
    require(len(log_snr) >= 2, "log_snr", "at least two", log_snr.tolist())
    # SNR_s - SNR_t without cancellation between neighbors.
    gained = log_snr[:-1].exp() * torch.expm1(log_snr.diff())
    return gained * error[..., :-1] / 2 - known.diff(dim=-1)


def cumulative(density: Tensor, at: Tensor) -> Tensor:
    """The integral of a density (*, T) from the first of increasing points (T,) to each: (*, T), trapezoidal."""
    parts = (density[..., 1:] + density[..., :-1]) / 2 * at.diff()
    return torch.cat([torch.zeros_like(density[..., :1]), parts.cumsum(-1)], -1)
