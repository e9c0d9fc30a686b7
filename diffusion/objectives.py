"""The objective: the KL divergence between the forward and reverse trajectories, as it stands or reweighted by noise
level.

    E_{t, ε} w(λ_t) ‖x̂(x_t) - x‖²

In continuous time the KL is ½ ∫ e^λ ‖x̂ - x‖² dλ (Kingma et al. 2021, arXiv 2107.00630, eq. 18), so the exact weight
under noise levels of density p(λ) is ½ e^λ / p(λ). The others are the usual losses, expressed in the same units of x
(Kingma and Gao 2023, arXiv 2303.00848): the squared error of eps is SNR ‖x̂ - x‖², that of v is (SNR + 1) ‖x̂ - x‖² and
so on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError, require
from diffusion.noise_levels import LogNormal, NoiseLevels
from diffusion.schedules import Schedule, expand

EARLIEST = 1e-9


class Weighting(ABC):
    """w(λ), the weight of ‖x̂ - x‖²."""

    @abstractmethod
    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """log_snr: (B,); density: (B,), the density p(λ) of the noise levels drawn. Returns (B,)."""


@dataclass(frozen=True)
class Exact(Weighting):
    """½ SNR / p(λ): the loss is then the KL between the trajectories in nats, whatever levels are drawn."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """½ e^λ / p(λ)."""
        return log_snr.exp() / (2 * density)


@dataclass(frozen=True)
class Simple(Weighting):
    """SNR: the squared error of eps, "L_simple" (Ho et al. 2020, eq. 14)."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """e^λ."""
        return log_snr.exp()


@dataclass(frozen=True)
class X0Error(Weighting):
    """1: the squared error of x."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class VError(Weighting):
    """SNR + 1: the squared error of v (Salimans and Ho 2022, arXiv 2202.00512, section 4)."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """e^λ + 1."""
        return log_snr.exp() + 1


@dataclass(frozen=True)
class EDMError(Weighting):
    """SNR + 1/σ_data²: the squared error of the EDM network (Karras et al. 2022, table 1)."""

    sigma_data: float = 1.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """e^λ + 1/σ_data²."""
        return log_snr.exp() + self.sigma_data**-2


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, γ) (Hang et al. 2023, arXiv 2303.09556, section 3.4)."""

    gamma: float = 5.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """min(e^λ, γ)."""
        return log_snr.exp().clamp_max(self.gamma)


@dataclass(frozen=True)
class P2(Weighting):
    """SNR / (k + SNR)^γ: perception prioritized (Choi et al. 2022, arXiv 2204.00227, eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """e^λ / (k + e^λ)^γ."""
        snr = log_snr.exp()
        return snr / (self.k + snr) ** self.gamma


@dataclass(frozen=True)
class SigmoidError(Weighting):
    """SNR sigmoid(b - λ) (Kingma and Gao 2023, arXiv 2303.00848; Hoogeboom et al. 2024, arXiv 2410.19324, section
    3.1).
    """

    bias: float = 2.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """e^λ sigmoid(b - λ)."""
        return log_snr.exp() * torch.sigmoid(self.bias - log_snr)


class AnyObjective(Protocol):
    """Whatever a backbone can be trained on."""

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The noise levels that uniform numbers stand for: (B,) -> (B,)."""

    def loss(self, denoiser: Denoiser, x: Tensor, u: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Of each example, (B,). x, noise: (B, C, *); u: (B,) uniform in [0, 1); label: (B,)."""


@dataclass(frozen=True)
class Objective:
    """Which noise levels are drawn and how much each weighs; `hybrid` > 0 adds the bound's term that trains a learned
    variance.

    The hybrid term is `hybrid` times the KL between q(x_s|x_t, x) and p(x_s|x_t) in nats for a step that splits the
    schedule's log-SNR into `hybrid_steps` parts, times their number, with its mean held fixed. It is the diffusion term
    of the bound when the levels drawn are uniform in log-SNR (Nichol and Dhariwal 2021, arXiv 2102.09672, section 3.1).
    """

    noise_levels: NoiseLevels = LogNormal()
    weighting: Weighting = EDMError()
    hybrid: float = 0.0
    hybrid_steps: int = 1000

    def __post_init__(self) -> None:
        require(self.hybrid >= 0, "hybrid", "0 or more", self.hybrid)
        require(self.hybrid_steps >= 1, "hybrid_steps", "at least 1", self.hybrid_steps)

    def times(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Times and weights for uniform numbers u: (B,) -> (B,), (B,), both float64."""
        u = u.double()
        log_snr = self.log_snr(u, schedule)
        weight = self.weighting(log_snr, self.noise_levels.density(u, schedule))
        # Never exactly the clean end: a reverse step from t needs an s < t.
        return schedule.time(log_snr).clamp_min(EARLIEST), weight

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The noise levels that uniform numbers stand for: (B,) -> (B,)."""
        return self.noise_levels.log_snr(u, schedule)

    def loss(self, denoiser: Denoiser, x: Tensor, u: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """The weighted squared error of each example, averaged over its coordinates: (B,).

        x, noise: (B, C, *); u: (B,) uniform in [0, 1); label: (B,).
        """
        schedule = denoiser.schedule
        t, weight = self.times(u, schedule)
        x_t = gaussian.marginal(schedule, x, t).sample(noise)
        total, network, variance_interp = weighted_error(denoiser, weight, x, x_t, t, label)
        if self.hybrid:
            total = total + self.hybrid * variance_term(self, denoiser, x, x_t, t, network, variance_interp)
        return total


def weighted_error(
    denoiser: Denoiser, weight: Tensor, x: Tensor, x_t: Tensor, t: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """w ‖x̂(x_t) - x‖² averaged over coordinates, (B,), and what the network returned. weight, t, label: (B,).

    The residual is taken in the network's units, where it has about unit scale: w ‖x̂ - x‖² = w c_out² ‖F - target‖²,
    without cancellation at low noise.
    """
    _, c_skip, c_out = denoiser.parameterization(*denoiser.schedule(t))
    network, variance_interp = denoiser.network(x_t, t, label)
    target = (x - expand(c_skip, x) * x_t) / expand(c_out, x)
    error = (network - target).square().flatten(1).mean(1)
    return (weight * c_out.square()).to(error) * error, network, variance_interp


def variance_term(
    objective: Objective,
    denoiser: Denoiser,
    x: Tensor,
    x_t: Tensor,
    t: Tensor,
    network: Tensor,
    variance_interp: Tensor | None,
) -> Tensor:
    """`hybrid_steps` times the KL of one step from t, per coordinate in nats, as a function of the learned variance
    alone: (B,).

    Raises ValueError when the backbone does not predict a variance.
    """
    if variance_interp is None:
        raise InputError(
            "training.hybrid: needs a learned variance; set model.learned_variance = true, or training.hybrid = 0"
        )
    schedule = denoiser.schedule
    step = (schedule.log_snr_max - schedule.log_snr_min) / objective.hybrid_steps
    s = schedule.time(schedule.log_snr(t) + step)
    mean = denoiser.combine(network.detach(), x_t, t)
    kl = gaussian.step_kl(schedule, x, mean, x_t, t, s, variance_interp=variance_interp)
    return kl * objective.hybrid_steps / math.prod(x.shape[1:])


@dataclass(frozen=True)
class TrajectoryBound:
    """The diffusion term of the bound on a grid of few steps, by which mean and variance are learned together
    (Sohl-Dickstein et al. 2015, arXiv 1503.03585, eq. 14).

    `times` (T + 1,) decrease, float64 on the CPU.
    """

    times: Tensor

    def _step(self, u: Tensor) -> Tensor:
        steps = len(self.times) - 1
        return (u.double().cpu() * steps).long().clamp_max(steps - 1)

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The noise level that a step starts from: (B,) -> (B,)."""
        return schedule.log_snr(self.times[self._step(u)])

    def loss(self, denoiser: Denoiser, x: Tensor, u: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """The KL of a random step times the number of steps, per coordinate in nats: (B,). Arguments as for
        `Objective`.
        """
        schedule, step = denoiser.schedule, self._step(u)
        t, s = self.times[step], self.times[step + 1]
        x_t = gaussian.marginal(schedule, x, t).sample(noise)
        mean, variance_interp = denoiser(x_t, t, label)
        learned = 0.0 if variance_interp is None else variance_interp
        kl = gaussian.step_kl(schedule, x, mean, x_t, t, s, variance_interp=learned)
        return kl * (len(self.times) - 1) / math.prod(x.shape[1:])


WEIGHTINGS: dict[str, type[Weighting]] = {
    "exact": Exact,
    "simple": Simple,
    "x0": X0Error,
    "v": VError,
    "edm": EDMError,
    "min_snr": MinSNR,
    "p2": P2,
    "sigmoid": SigmoidError,
}
