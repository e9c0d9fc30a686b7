"""Noise levels: the distributions that training draws its log-SNRs from.

A distribution is given by its quantile function, the map from uniform numbers to log-SNR. Any of them can then be
drawn with low discrepancy, and its density follows by automatic differentiation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.schedules import Schedule

# Normal quantiles are clamped to [TINY, 1 - TINY], which is 7 standard deviations from the mean.
TINY = 1e-12


class NoiseLevels(ABC):
    """A distribution of noise levels, given by its quantile function: it maps uniform numbers to log-SNR."""

    @abstractmethod
    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Maps u, uniform in [0, 1), to a log-SNR within the range of the schedule: (B,) -> (B,)."""

    def density(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The density p(λ) = |du/dλ| at λ = log_snr(u), by automatic differentiation: (B,) -> (B,)."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_snr(u, schedule).sum(), u)
        return 1 / slope.abs()


@dataclass(frozen=True)
class Uniform(NoiseLevels):
    """t uniform in [0, 1], which is not uniform in log-SNR for most schedules."""

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ_t at t = u."""
        return schedule.log_snr(u)


@dataclass(frozen=True)
class LogNormal(NoiseLevels):
    """log(σ/α) normal, truncated to the range of the schedule (Karras et al. 2022, arXiv 2206.00364, table 1).

    Their mean of -1.2 is for data of standard deviation 0.5; -0.5 is the same distribution for data of unit variance.

    The share `uniform` of the draws is uniform in log-SNR instead, so that no log-SNR of the schedule remains
    untrained: likelihood and restoration use all of them.
    """

    mean: float = -0.5
    std: float = 1.2
    uniform: float = 0.0

    def __post_init__(self) -> None:
        require(self.std > 0, "std", "a positive number", self.std)
        require(0 <= self.uniform < 1, "uniform", "in [0, 1)", self.uniform)

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ = -2 mean + 2 std Φ⁻¹(·), truncated, for u >= `uniform`; λ is linear in u below."""
        high, low = schedule.log_snr_max, schedule.log_snr_min
        normal = truncated_normal((u - self.uniform) / (1 - self.uniform), -2 * self.mean, 2 * self.std, low, high)
        if not self.uniform:
            return normal
        return torch.where(u < self.uniform, low + u / self.uniform * (high - low), normal)

    def density(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The density of the mixture at λ = log_snr(u), the sum over both components: (B,) -> (B,)."""
        high, low = schedule.log_snr_max, schedule.log_snr_min
        ends = torch.tensor([low, high], dtype=torch.float64)
        inside = torch.special.ndtr((ends / 2 + self.mean) / self.std).diff().to(u)
        score = (self.log_snr(u, schedule) / 2 + self.mean) / self.std
        normal: Tensor = torch.exp(-score.square() / 2) / (math.sqrt(8 * math.pi) * self.std * inside)
        return (1 - self.uniform) * normal + self.uniform / (high - low)


@dataclass(frozen=True)
class LogitNormal(NoiseLevels):
    """logit(t) normal (Esser et al. 2024, arXiv 2403.03206, section 3.1), truncated at 7 standard deviations.

    The truncation leaves the very ends of a schedule undrawn, so the exact weighting misses their share of the bound.
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
    """A density that is constant within each of several bins of equal width, which cover the log-SNRs of the schedule.

    `shares` (bins,) are the probabilities of the bins from the lowest log-SNR up: positive, float64, with sum 1.
    """

    shares: Tensor

    def bin(self, u: Tensor) -> Tensor:
        """The bin of the log-SNR that each u is mapped to: (B,) -> (B,) int64."""
        below = self.shares.cumsum(0)[:-1].to(u)
        return torch.searchsorted(below, u.detach(), right=True)

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ is linear in u within each bin."""
        shares, i = self.shares.to(u), self.bin(u)
        position = i + (u - (shares.cumsum(0) - shares)[i]) / shares[i]
        high, low = schedule.log_snr_max, schedule.log_snr_min
        return low + position * (high - low) / len(shares)


def uniform(bins: int) -> PiecewiseConstant:
    """The uniform distribution in log-SNR, as one of so many bins."""
    return PiecewiseConstant(torch.full((bins,), 1 / bins, dtype=torch.float64))


@dataclass(frozen=True)
class Adaptive(NoiseLevels):
    """A distribution that is measured during training, on ℓ(λ) = ½ SNR ‖x̂ - x‖², whose mean is the bound by log-SNR.

    The density is constant within each of `bins` bins and measured again every `every` steps. The share `uniform` of
    the draws is uniform in log-SNR, so that no log-SNR remains unmeasured. This class itself, before any measurement,
    draws all of them uniformly; `fit` returns the measured distribution.
    """

    moment: ClassVar[int]

    bins: int = 64
    uniform: float = 0.1
    every: int = 50

    def __post_init__(self) -> None:
        require(self.bins >= 1, "bins", "at least 1", self.bins)
        require(0 < self.uniform <= 1, "uniform", "in (0, 1]", self.uniform)
        require(self.every >= 1, "every", "at least 1", self.every)

    @abstractmethod
    def weight(self, moment: Tensor, width: float) -> Tensor:
        """What the density is proportional to, from E[ℓ^`moment`] in each bin of this width in log-SNR: (bins,)."""

    def fit(self, moment: Tensor, width: float = 1.0) -> PiecewiseConstant:
        """The distribution for E[ℓ^`moment`] in each bin (bins,), which may have any common factor, float64.

        `width` is that of a bin. Where nothing would have any weight, all log-SNRs have the same.
        """
        weight = self.weight(moment.double(), width)
        weight = torch.where(weight.sum() > 0, weight, 1.0)
        return PiecewiseConstant(self.uniform / self.bins + (1 - self.uniform) * weight / weight.sum())

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """λ is uniform between the ends of the schedule."""
        return uniform(self.bins).log_snr(u, schedule)


@dataclass(frozen=True)
class Measured(Adaptive):
    """The distribution of least variance for an estimate of the bound at one log-SNR, measured during training.

    The bound is L = ∫ E[ℓ] dλ with ℓ(λ) = ½ SNR ‖x̂ - x‖². Its estimate at a log-SNR drawn from p is ℓ/p, with the
    variance ∫ E[ℓ²]/p dλ - L². The variance is least, (∫ √E[ℓ²] dλ)² - L², for p ∝ √E[ℓ²]. The quantile function of
    that density is the schedule that Kingma et al. (2021, arXiv 2107.00630, section 5.1 and appendix I.2) learn by
    descent on the variance: between its ends a schedule changes nothing else.

    p is constant within each of `bins` bins and measured again every `every` steps. The share `uniform` of the draws is
    uniform in log-SNR, so that no log-SNR remains unmeasured.
    """

    moment = 2

    def weight(self, moment: Tensor, width: float) -> Tensor:
        """√E[ℓ²]: (bins,)."""
        return moment.sqrt()


@dataclass(frozen=True)
class Dissipation(Adaptive):
    """Even in thermodynamic length, p ∝ √ζ, where short steps of a trajectory dissipate ζ Δλ²; measured in training.

    With f(λ) = E[ℓ] and m = 2 f/SNR, ζ = -¼ SNR dm/dλ = ½ (f - df/dλ) (`grids.EqualDissipation`). Each step of a grid
    of equal dissipation then has the same share of the draws. ζ is 0 where the error m does not fall, as under noise
    that leaves nothing of an example.

    p is constant within each of `bins` bins and measured again every `every` steps. The share `uniform` of the draws is
    uniform in log-SNR, so that no log-SNR remains unmeasured.
    """

    moment = 1

    def weight(self, moment: Tensor, width: float) -> Tensor:
        """√ζ by differences between neighboring bins; 0 where chance, or a new network, makes ζ negative: (bins,)."""
        if self.bins == 1:
            return moment
        # 2 ζ times the width, half way between two bins: the fall of f/SNR times the SNR there.
        fall = moment[:-1] * math.exp(width / 2) - moment[1:] * math.exp(-width / 2)
        sides = torch.stack([torch.cat([fall[:1], fall]), torch.cat([fall, fall[-1:]])])
        return sides.mean(0).clamp_min(0).sqrt()


def truncated_normal(u: Tensor, mean: float, std: float, low: float, high: float) -> Tensor:
    """The quantile function of a normal distribution truncated to [low, high]: (B,) -> (B,)."""
    ends = torch.special.ndtr((torch.tensor([low, high], dtype=torch.float64) - mean) / std).to(u)
    quantile = (ends[0] + u.clamp(0, 1) * (ends[1] - ends[0])).clamp(TINY, 1 - TINY)
    value: Tensor = mean + std * torch.special.ndtri(quantile)
    return value.clamp(low, high)


def low_discrepancy(offset: Tensor, positions: Tensor, total: int) -> Tensor:
    """Evenly spaced numbers in [0, 1) with one common random offset (Kingma et al. 2021, appendix I.1).

    Position i of `total` gets (offset + i/total) mod 1. Each number alone is uniform when `offset` is. A number depends
    on its own position alone, so several processes may each make their share of a batch. positions: (B,) -> (B,)
    float64.
    """
    return (offset.double() + positions.double() / total) % 1.0


NOISE_LEVELS: dict[str, type[NoiseLevels]] = {
    "uniform": Uniform,
    "log_normal": LogNormal,
    "logit_normal": LogitNormal,
    "measured": Measured,
    "dissipation": Dissipation,
}
