"""Noise levels: the laws by which a run draws the log-SNRs it trains on.

A law is the map from uniform numbers to log-SNR, its quantile function: any of them can then be drawn with low
discrepancy, and its density comes by automatic differentiation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.schedules import Schedule

# Below this share of an interval, and above one minus it, a normal quantile is cut: 7 standard deviations from the
# mean.
TINY = 1e-12


class NoiseLevels(ABC):
    """A distribution of noise levels, given by how it maps uniform numbers to log-SNR."""

    @abstractmethod
    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Maps u, uniform in [0, 1), to log-SNR within the schedule's range: (B,) -> (B,)."""

    def density(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The density p(λ) at λ = log_snr(u), |du/dλ| by automatic differentiation: (B,) -> (B,)."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_snr(u, schedule).sum(), u)
        return 1 / slope.abs()


@dataclass(frozen=True)
class Uniform(NoiseLevels):
    """t uniform in [0, 1]."""

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ_t at t = u."""
        return schedule.log_snr(u)


@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """log(σ/α) normal, cut to the schedule's range (Karras et al. 2022, arXiv 2206.00364, table 1).

    Their mean of -1.2 is for data of standard deviation 0.5; -0.5 is the same law for data of unit variance.

    The share `uniform` of the draws is uniform in log-SNR instead, so that no level of the schedule remains untrained:
    likelihood and restoration look at all of them.
    """

    mean: float = -0.5
    std: float = 1.2
    uniform: float = 0.0

    def __post_init__(self) -> None:
        require(self.std > 0, "std", "a positive number", self.std)
        require(0 <= self.uniform < 1, "uniform", "in [0, 1)", self.uniform)

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ = -2 (mean + std Φ⁻¹(·)), or uniform for the first `uniform` of the unit interval."""
        high, low = schedule.log_snr_max, schedule.log_snr_min
        normal = truncated_normal((u - self.uniform) / (1 - self.uniform), -2 * self.mean, 2 * self.std, low, high)
        if not self.uniform:
            return normal
        return torch.where(u < self.uniform, low + u / self.uniform * (high - low), normal)

    def density(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The density of the mixture at λ, which both parts contribute to."""
        high, low = schedule.log_snr_max, schedule.log_snr_min
        ends = torch.tensor([low, high], dtype=torch.float64)
        inside = torch.special.ndtr((ends / 2 + self.mean) / self.std).diff().to(u)
        score = (self.log_snr(u, schedule) / 2 + self.mean) / self.std
        normal: Tensor = torch.exp(-score.square() / 2) / (math.sqrt(8 * math.pi) * self.std * inside)
        return (1 - self.uniform) * normal + self.uniform / (high - low)


@dataclass(frozen=True)
class LogitNormal(NoiseLevels):
    """logit(t) normal (Esser et al. 2024, arXiv 2403.03206, section 3.1), cut at 7 standard deviations.

    The cut leaves the very ends of a schedule undrawn, so the exact weighting misses their share of the bound.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        require(self.std > 0, "std", "a positive number", self.std)

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ_t at t = sigmoid(mean + std Φ⁻¹(u))."""
        return schedule.log_snr(torch.sigmoid(self.mean + self.std * torch.special.ndtri(u.clamp(TINY, 1 - TINY))))


@dataclass(frozen=True)
class PiecewiseConstant(NoiseLevels):
    """A density that is constant within each of several bins, which divide the schedule's range of log-SNR evenly.

    `shares` (bins,) are the probabilities of the bins from the lowest log-SNR up: positive, float64, with sum 1.
    """

    shares: Tensor

    def bin(self, u: Tensor) -> Tensor:
        """The bin that a uniform number falls into: (B,) -> (B,) int64."""
        below = self.shares.cumsum(0)[:-1].to(u)
        return torch.searchsorted(below, u.detach(), right=True)

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Linear in u within each bin."""
        shares, i = self.shares.to(u), self.bin(u)
        place = i + (u - (shares.cumsum(0) - shares)[i]) / shares[i]
        high, low = schedule.log_snr_max, schedule.log_snr_min
        return low + place * (high - low) / len(shares)


@dataclass(frozen=True)
class Measured(NoiseLevels):
    """The law that a run measures while it trains, under which a random level estimates the bound with the least
    variance.

    The bound is L = ∫ E[ℓ] dλ with ℓ(λ) = ½ SNR ‖x̂ - x‖², and its estimate at a level drawn from p is ℓ/p, of variance
    ∫ E[ℓ²]/p dλ - L²: least, (∫ √E[ℓ²] dλ)² - L², for p ∝ √E[ℓ²]. The quantile function of that density is the schedule
    that Kingma et al. (2021, arXiv 2107.00630, section 5.1 and appendix I.2) learn by descent on the variance: between
    its ends a schedule changes nothing else.

    p is constant within each of `bins` bins and measured again every `every` steps. The share `uniform` of the draws is
    uniform in log-SNR, so that no level remains unmeasured; all are where nothing has been measured, as here.
    """

    bins: int = 64
    uniform: float = 0.1
    every: int = 50

    def __post_init__(self) -> None:
        require(self.bins >= 1, "bins", "at least 1", self.bins)
        require(0 < self.uniform <= 1, "uniform", "in (0, 1]", self.uniform)
        require(self.every >= 1, "every", "at least 1", self.every)

    def fit(self, second_moment: Tensor) -> PiecewiseConstant:
        """The law for E[ℓ²] in each bin, up to a factor common to all: (bins,)."""
        root = second_moment.double().sqrt()
        return PiecewiseConstant(self.uniform / self.bins + (1 - self.uniform) * root / root.sum())

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Uniform between the ends of the schedule."""
        return self.fit(torch.ones(self.bins)).log_snr(u, schedule)


def truncated_normal(u: Tensor, mean: float, std: float, low: float, high: float) -> Tensor:
    """The quantile function of a normal law restricted to [low, high]: (B,) -> (B,)."""
    ends = torch.special.ndtr((torch.tensor([low, high], dtype=torch.float64) - mean) / std).to(u)
    quantile = (ends[0] + u.clamp(0, 1) * (ends[1] - ends[0])).clamp(TINY, 1 - TINY)
    value: Tensor = mean + std * torch.special.ndtri(quantile)
    return value.clamp(low, high)


def low_discrepancy(offset: Tensor, positions: Tensor, total: int) -> Tensor:
    """Evenly spaced numbers in [0, 1) that share one random offset, each alone uniform (Kingma et al. 2021, appendix
    I.1).

    Position i of `total` gets (offset + i/total) mod 1, so the parts of a batch may be made apart. positions: (B,) ->
    (B,) float64.
    """
    return (offset.double() + positions.double() / total) % 1.0


NOISE_LEVELS: dict[str, type[NoiseLevels]] = {
    "uniform": Uniform,
    "log_normal": LogNormal,
    "logit_normal": LogitNormal,
    "measured": Measured,
}
