"""The objective: the KL divergence between the forward and the reverse trajectory, exact or reweighted by noise level.

    E_{λ ~ p, ε} w(λ) ‖x̂(x_t) - x‖²

In continuous time the KL is ½ ∫ e^λ ‖x̂ - x‖² dλ (Kingma et al. 2021, arXiv 2107.00630, eq. 18), so the exact weight is
½ e^λ / p(λ) when noise levels λ are drawn with density p(λ). The other weightings are the usual losses in the same
units of x (Kingma and Gao 2023, arXiv 2303.00848): the squared error of eps is SNR ‖x̂ - x‖², that of v is
(SNR + 1) ‖x̂ - x‖².

`Exact` and `SigmoidError` are defined by an integral over λ. They divide by p(λ), so their objective does not depend on
p. The others are defined by their authors under the noise levels that they draw: p is a part of their objective.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from diffusion import gaussian, levels
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError, require
from diffusion.noise_levels import LogNormal, NoiseLevels
from diffusion.schedules import Schedule, expand_all, rows
from diffusion.transfers import to_device

# The earliest time at which the loss is taken.
EARLIEST = 1e-9


class Weighting(ABC):
    """Gives w(λ), the weight of ‖x̂ - x‖².

    `per_log_snr` says that the weight stands under an integral over λ, so that a draw from p weighs w/p.
    """

    per_log_snr: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns w(λ), (B,). log_snr: λ, (B,); density: p(λ) of the noise levels drawn, (B,)."""


@dataclass(frozen=True)
class Exact(Weighting):
    """½ SNR / p(λ): the loss is the KL between the trajectories in nats, whatever p noise levels are drawn with."""

    per_log_snr: ClassVar[bool] = True

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns ½ e^λ / p(λ)."""
        return log_snr.exp() / (2 * density)


@dataclass(frozen=True)
class Simple(Weighting):
    """SNR: the squared error of eps, "L_simple" (Ho et al. 2020, eq. 14)."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns e^λ."""
        return log_snr.exp()


@dataclass(frozen=True)
class X0Error(Weighting):
    """1: the squared error of x."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns 1."""
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class VError(Weighting):
    """SNR + 1: the squared error of v (Salimans and Ho 2022, arXiv 2202.00512, section 4)."""

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns e^λ + 1."""
        return log_snr.exp() + 1


@dataclass(frozen=True)
class EDMError(Weighting):
    """SNR + 1/σ_data²: the squared error of the EDM network (Karras et al. 2022, table 1)."""

    sigma_data: float = 1.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns e^λ + 1/σ_data²."""
        return log_snr.exp() + self.sigma_data**-2


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, γ) (Hang et al. 2023, arXiv 2303.09556, section 3.4)."""

    gamma: float = 5.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns min(e^λ, γ)."""
        return log_snr.exp().clamp_max(self.gamma)


@dataclass(frozen=True)
class P2(Weighting):
    """SNR / (k + SNR)^γ: perception prioritized training (Choi et al. 2022, arXiv 2204.00227, eq. 8)."""

    k: float = 1.0
    gamma: float = 1.0

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns e^λ / (k + e^λ)^γ."""
        snr = log_snr.exp()
        return snr / (self.k + snr) ** self.gamma


@dataclass(frozen=True)
class SigmoidError(Weighting):
    """SNR sigmoid(b - λ) / p(λ): the loss is ∫ sigmoid(b - λ) ‖ε̂ - ε‖² dλ, whatever p noise levels are drawn with.

    That is twice the ½ ∫ w(λ) ‖ε̂ - ε‖² dλ of Kingma and Gao (2023, arXiv 2303.00848) for their w(λ) = sigmoid(b - λ),
    which Hoogeboom et al. (2024, arXiv 2410.19324, section 3.1) use too.
    """

    bias: float = 2.0
    per_log_snr: ClassVar[bool] = True

    def __call__(self, log_snr: Tensor, density: Tensor) -> Tensor:
        """Returns e^λ sigmoid(b - λ) / p(λ)."""
        return log_snr.exp() * torch.sigmoid(self.bias - log_snr) / density


@dataclass(frozen=True)
class Batch:
    """Examples of which an objective takes the loss, and what is drawn for each of them.

    x, noise: (B, C, *), in units of the model; u: (B,), uniform numbers in [0, 1) for the noise levels; label: (B,).
    relative: (B, 1, *), the levels of the pixels relative to the trajectory's (`levels.relative`), None where all have
    its level. condition: (B, K, *), what the network is told of the examples, None where that is nothing. observed:
    (B,) bool on the CPU, whether any pixel of an example is observed.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    label: Tensor | None = None
    relative: Tensor | None = None
    condition: Tensor | None = None
    observed: Tensor | None = None

    def parts(self, count: int) -> list[Batch]:
        """Returns the batch in `count` parts of equal size."""
        chunks = [None if v is None else v.chunk(count) for v in (getattr(self, each.name) for each in fields(self))]
        return [Batch(*(None if v is None else v[i] for v in chunks)) for i in range(count)]  # type: ignore[arg-type]


class AnyObjective(Protocol):
    """An objective that a backbone can be trained on."""

    def log_snr(self, u: Tensor, schedule: Schedule, observed: Tensor | None = None) -> Tensor:
        """Maps uniform numbers u to the noise levels that `loss` draws with them: (B,) -> (B,)."""

    def loss(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """Returns the loss of each example, (B,). The denoiser knows the `condition` of the batch already."""


@dataclass(frozen=True)
class Objective:
    """The weighted squared error of x̂ at noise levels drawn from a distribution, E w(λ) ‖x̂(x_t) - x‖².

    `hybrid` > 0 adds the term that trains a learned variance. The schedule's range of log-SNR is divided into
    `hybrid_steps` equal steps. The term is `hybrid` · `hybrid_steps` · KL(q(x_s|x_t, x) || p(x_s|x_t)), in nats per
    coordinate, for the step that begins at t, with the mean of p held fixed. For noise levels uniform in log-SNR its
    expectation is `hybrid` times the diffusion term of the bound (Nichol and Dhariwal 2021, arXiv 2102.09672, section
    3.1).

    Examples of which something is observed draw from `observed_levels`, if that is given: what was observed tells of x
    under noise that would leave nothing of it otherwise.
    """

    noise_levels: NoiseLevels = LogNormal()
    weighting: Weighting = EDMError()
    hybrid: float = 0.0
    hybrid_steps: int = 1000
    observed_levels: NoiseLevels | None = None

    def __post_init__(self) -> None:
        require(self.hybrid >= 0, "hybrid", "0 or more", self.hybrid)
        require(self.hybrid_steps >= 1, "hybrid_steps", "at least 1", self.hybrid_steps)

    def times(self, u: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Returns the times and the weights that uniform numbers u are mapped to: (B,) -> (B,), (B,), both float64."""
        u = u.double()
        log_snr = self.log_snr(u, schedule)
        return _times(log_snr, schedule), self.weighting(log_snr, self.noise_levels.density(u, schedule))

    def log_snr(self, u: Tensor, schedule: Schedule, observed: Tensor | None = None) -> Tensor:
        """Maps uniform numbers u to noise levels: (B,) -> (B,). observed: (B,) bool."""
        plain = self.noise_levels.log_snr(u, schedule)
        if observed is None or self.observed_levels is None:
            return plain
        return torch.where(observed, self.observed_levels.log_snr(u, schedule), plain)

    def _density(self, u: Tensor, schedule: Schedule, observed: Tensor | None) -> Tensor:
        """The density of the noise levels that u are mapped to: (B,) -> (B,)."""
        plain = self.noise_levels.density(u, schedule)
        if observed is None or self.observed_levels is None:
            return plain
        return torch.where(observed, self.observed_levels.density(u, schedule), plain)

    def loss(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """Returns the weighted squared error of each example, averaged over its coordinates: (B,).

        With `relative` levels pixels are weighted at their own. Those known exactly, and those that nobody has seen,
        count as 0.

        Raises InputError for `relative` levels with a learned variance.
        """
        if batch.relative is not None:
            require(not self.hybrid, "training.hybrid", "0 with a noise level for every pixel", self.hybrid)
            return self._error_by_pixel(denoiser, batch, batch.relative)
        schedule, x = denoiser.schedule, batch.x
        t, weight = self.times(batch.u, schedule)
        x_t = gaussian.marginal(schedule, x, t).sample(batch.noise)
        total, network, variance_interp = weighted_error(denoiser, weight, x, x_t, t, batch.label)
        if self.hybrid:
            total = total + self.hybrid * variance_term(self, denoiser, x, x_t, t, network, variance_interp)
        return total

    def _error_by_pixel(self, denoiser: Denoiser, batch: Batch, relative: Tensor) -> Tensor:
        """The squared error of pixels with levels of their own, each weighted at its level, over all coordinates:
        (B,).
        """
        schedule, x, u = denoiser.schedule, batch.x, batch.u.double()
        times = levels.relative(relative, _times(self.log_snr(u, schedule, batch.observed), schedule))
        own = levels.seen(times)
        x_t = gaussian.marginal(schedule, x, own).sample(batch.noise)
        error = squared_error(denoiser, x, x_t, times, batch.label)[0]
        density = to_device(self._density(u, schedule, batch.observed).to(own.dtype), x.device)
        weight = self.weighting(schedule.log_snr(own), density.reshape(-1, *[1] * (own.ndim - 1)))
        weight = weight * denoiser.parameterization(*schedule(own)).c_out.square()
        counts = (relative > 0) & (relative <= 1)
        return (torch.where(counts, weight, 0.0).to(x.dtype) * error).flatten(1).mean(1)


def _times(log_snr: Tensor, schedule: Schedule) -> Tensor:
    """The times of noise levels, without the clean end itself: a reverse step from t needs an s < t."""
    return schedule.time(log_snr).clamp_min(EARLIEST)


def weighted_error(
    denoiser: Denoiser, weight: Tensor, x: Tensor, x_t: Tensor, t: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns w ‖x̂(x_t) - x‖² averaged over coordinates, (B,), the network's output F and its learned variance.

    The residual is taken in the network's units, where its scale is about 1: w ‖x̂ - x‖² = w c_out² ‖F - target‖². So it
    does not cancel at low noise. x, x_t: (B, C, *); weight, t, label: (B,).
    """
    error, network, variance_interp = squared_error(denoiser, x, x_t, t, label)
    _, _, c_out = denoiser.parameterization(*denoiser.schedule(t))
    return rows(weight * c_out.square(), x) * error.flatten(1).mean(1), network, variance_interp


def squared_error(
    denoiser: Denoiser, x: Tensor, x_t: Tensor, t: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns (F - target)² at every coordinate, (B, C, *), the network's output F and its learned variance.

    t: (B,), or a map of times.
    """
    _, c_skip, c_out = denoiser.parameterization(*denoiser.schedule(levels.seen(t)))
    network, variance_interp = denoiser.network(x_t, t, label)
    c_skip, c_out = expand_all((c_skip, c_out), x)
    return (network - (x - c_skip * x_t) / c_out).square(), network, variance_interp


def variance_term(
    objective: Objective,
    denoiser: Denoiser,
    x: Tensor,
    x_t: Tensor,
    t: Tensor,
    network: Tensor,
    variance_interp: Tensor | None,
) -> Tensor:
    """Returns `hybrid_steps` times the KL of the step from t, per coordinate in nats: (B,). Its gradient is that of the
    learned variance alone.

    Raises InputError when the backbone does not predict a variance.
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
    """The diffusion term of the bound on a grid of few steps, from which mean and variance are learned together
    (Sohl-Dickstein et al. 2015, arXiv 1503.03585, eq. 14).

    `times`: (T + 1,), decreasing, float64 on the CPU.
    """

    times: Tensor

    def _step(self, u: Tensor) -> Tensor:
        steps = len(self.times) - 1
        return (u.double().cpu() * steps).long().clamp_max(steps - 1)

    def log_snr(self, u: Tensor, schedule: Schedule, observed: Tensor | None = None) -> Tensor:
        """Returns the noise level at which the step that u chooses begins: (B,) -> (B,)."""
        return schedule.log_snr(self.times[self._step(u)])

    def loss(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """Returns the KL of the step that u chooses, times the number of steps, per coordinate in nats: (B,).

        Raises InputError for `relative` levels.
        """
        require(batch.relative is None, "observed.share", "0 with training.trajectory", "levels of pixels")
        schedule, x, step = denoiser.schedule, batch.x, self._step(batch.u)
        t, s = self.times[step], self.times[step + 1]
        x_t = gaussian.marginal(schedule, x, t).sample(batch.noise)
        mean, variance_interp = denoiser(x_t, t, batch.label)
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
