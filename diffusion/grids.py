"""Grids: the times of a trajectory. Few calls of the network sample well when they are spent where they matter.

Over a step h of half log-SNR ℓ = λ/2 the exact path needs ∫ e^ℓ x̂ dℓ; DDIM holds x̂ fixed, and errs by c h² / 2 with
c = |dx̂/dℓ| along the path, in units of x. The sum of these errors over N steps of density ρ, ∫ c / ρ dℓ, is least for
ρ ∝ √c. `measure` reads c off a denoiser.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.schedules import Schedule, lerp_table

# Entries of a measured table, and the least density of its steps as a share of the largest.
ENTRIES = 33
FLOOR = 1e-3


class Grid(ABC):
    """A rule that places the times of a trajectory."""

    @abstractmethod
    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """steps + 1 times, strictly decreasing, the last one 0: (steps + 1,) float64; fewer where levels beyond the
        schedule's fall together. Raises ValueError for steps <
        1.
        """


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Times evenly spaced in log-SNR, from t = 1 (or log-SNR `first`) to t = 0.

    With `last`, all but the final time end there and the final step jumps to the clean end, which is how few steps
    sample best: below the noise that 8-bit pixels resolve, a denoiser has nothing left to decide.
    """

    first: float | None = None
    last: float | None = None

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """(steps + 1,) float64; `first` and `last` are cut to the schedule's range."""
        require(steps >= 1, "steps", "at least 1", steps)
        low = schedule.log_snr_min if self.first is None else max(self.first, schedule.log_snr_min)
        high = schedule.log_snr_max if self.last is None else min(self.last, schedule.log_snr_max)
        return to_clean(schedule, torch.linspace(low, high, steps + (self.last is None), dtype=torch.float64))


@dataclass(frozen=True)
class UniformTime(Grid):
    """Times evenly spaced from 1 to 0: with T - 1 steps those of a table of T betas (`schedules.DiscreteBetas`)."""

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """(steps + 1,) float64."""
        require(steps >= 1, "steps", "at least 1", steps)
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Karras(Grid):
    """(σ/α)^(1/ρ) evenly spaced from `sigma_max` to `sigma_min`, then a jump to the clean end.

    Karras et al. 2022, arXiv 2206.00364, eq. 5. Levels are in units of the data's standard deviation, cut to the
    schedule's range.
    """

    rho: float = 7.0
    sigma_min: float = 0.03
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        require(self.rho > 0, "rho", "a positive number", self.rho)
        require(
            0 < self.sigma_min < self.sigma_max,
            "sigma_min, sigma_max",
            "0 < sigma_min < sigma_max",
            (self.sigma_min, self.sigma_max),
        )

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """(steps + 1,) float64."""
        require(steps >= 1, "steps", "at least 1", steps)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        sigmas = torch.linspace(high, low, steps, dtype=torch.float64) ** self.rho
        span = sigmas.new_tensor([schedule.log_snr_min, schedule.log_snr_max])
        low_snr, high_snr = (-2 * sigmas[[0, -1]].log()).clamp(*span.tolist())
        return to_clean(schedule, (-2 * sigmas.log()).clamp(low_snr, high_snr))


@dataclass(frozen=True)
class Tabulated(Grid):
    """Log-SNRs evenly through a table of increasing ones, interpolated linearly, then a jump to the clean end.

    `measure` makes such tables. They are cut to the schedule's range.
    """

    log_snr: tuple[float, ...] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        rising = len(self.log_snr) >= 2 and all(a < b for a, b in pairwise(self.log_snr))
        require(rising, "grid.log_snr", "at least two increasing values", self.log_snr)

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """(steps + 1,) float64."""
        require(steps >= 1, "steps", "at least 1", steps)
        table = torch.tensor(self.log_snr, dtype=torch.float64).clamp(schedule.log_snr_min, schedule.log_snr_max)
        places = torch.linspace(0, len(table) - 1, steps, dtype=torch.float64)
        return to_clean(schedule, lerp_table(table, places))


@torch.no_grad()
def measure(
    denoiser: AnyDenoiser,
    noise: Tensor,
    *,
    first: float,
    last: float,
    label: Tensor | None = None,
    resolution: int = 64,
) -> Tabulated:
    """The grid between two log-SNRs on which the denoiser's own paths are followed best by steps of first order.

    noise: (B, C, *), standard normal, one path each; more of them make it smoother. Takes `resolution` calls. The table
    keeps the same shares of the steps for any number of steps. Raises ValueError unless first < last.
    """
    require(first < last, "first, last", "an increasing pair of log-SNRs", (first, last))
    schedule = denoiser.schedule
    times = UniformLogSNR(first, last)(schedule, resolution)
    log_snr = schedule.log_snr(times[:-1])
    x = gaussian.marginal(schedule, torch.zeros_like(noise), times[0]).sample(noise)
    means = torch.zeros_like(noise)
    moved = []
    for t, s in pairwise(times):
        before, means = means, denoiser(x, t, label).mean
        moved.append((means - before).double().square().mean().sqrt())
        x = gaussian.posterior(schedule, means, x, t, s, eta=0).mean
    density = torch.stack(moved[1:]).cpu().sqrt()
    density = density.clamp_min(FLOOR * density.max())
    steps = torch.cat([density.new_zeros(1), density.cumsum(0)])
    shares = torch.linspace(0, float(steps[-1]), ENTRIES, dtype=torch.float64)
    return Tabulated(tuple(interp(shares, steps, log_snr).tolist()))


def interp(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The piecewise linear function through (x, y), x (n,) increasing, at (m,); constant beyond its ends: (m,)."""
    at = at.clamp(x[0], x[-1])
    i = torch.searchsorted(x, at, right=True).clamp(1, len(x) - 1)
    return torch.lerp(y[i - 1], y[i], (at - x[i - 1]) / (x[i] - x[i - 1]))


def to_clean(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """The times of increasing log-SNRs, with the clean end appended unless they reach it; repeated times are merged."""
    times = torch.cat([schedule.time(log_snr), log_snr.new_zeros(1)])
    return times[torch.cat([times.diff() < 0, times.new_ones(1, dtype=torch.bool)])]


def decreasing(times: Tensor) -> None:
    """Raises InputError unless times (T,) decrease strictly."""
    rising = (times.diff() >= 0).nonzero()
    if len(rising):
        i = int(rising[0])
        raise InputError(f"times: must decrease strictly, got {times[i]:.6g} followed by {times[i + 1]:.6g}")


GRIDS: dict[str, type[Grid]] = {"uniform": UniformLogSNR, "time": UniformTime, "karras": Karras, "tabulated": Tabulated}
