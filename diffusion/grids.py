"""Timestep grids: the times at which a sampler evaluates the denoiser. On a good grid few evaluations suffice.

With half log-SNR ℓ = λ/2, the exact step of the probability-flow ODE needs ∫ e^ℓ x̂ dℓ. DDIM holds x̂ fixed over a step
of length h, which makes an error of c h² / 2 with c = |dx̂/dℓ| along the path, in units of x. The sum of these errors
over N steps of density ρ is proportional to ∫ c / ρ dℓ, and is least for ρ ∝ √c. `measure` estimates c from the paths
of a denoiser.
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

# The number of entries of a measured table, and the least density of its steps as a share of the largest.
ENTRIES = 33
FLOOR = 1e-3


class Grid(ABC):
    """A rule that chooses the times of a trajectory."""

    @abstractmethod
    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """Returns steps + 1 times, strictly decreasing, the last one 0: (steps + 1,) float64.

        There are fewer where several log-SNRs lie beyond the range of the schedule and are cut to the same time.
        Raises InputError for steps < 1.
        """


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Times evenly spaced in log-SNR, from t = 1 (or log-SNR `first`) to t = 0.

    With `last` they are evenly spaced up to that log-SNR, and one more step jumps to the clean end. This suits few
    steps: below the noise that 8-bit pixels resolve, a denoiser has nothing left to decide.
    """

    first: float | None = None
    last: float | None = None

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """Returns the times, (steps + 1,) float64, with `first` and `last` cut to the range of the schedule."""
        require(steps >= 1, "steps", "at least 1", steps)
        low = schedule.log_snr_min if self.first is None else max(self.first, schedule.log_snr_min)
        high = schedule.log_snr_max if self.last is None else min(self.last, schedule.log_snr_max)
        return to_clean(schedule, torch.linspace(low, high, steps + (self.last is None), dtype=torch.float64))


@dataclass(frozen=True)
class UniformTime(Grid):
    """Times evenly spaced from 1 to 0. T - 1 steps give the times of a table of T betas (`schedules.DiscreteBetas`)."""

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """Returns the times, (steps + 1,) float64."""
        require(steps >= 1, "steps", "at least 1", steps)
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Karras(Grid):
    """Times evenly spaced in (σ/α)^(1/ρ), from `sigma_max` to `sigma_min`, then a jump to the clean end.

    Karras et al. 2022, arXiv 2206.00364, eq. 5. Sigmas are in units of the data's standard deviation and are cut to the
    range of the schedule.
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
        """Returns the times, (steps + 1,) float64."""
        require(steps >= 1, "steps", "at least 1", steps)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        sigmas = torch.linspace(high, low, steps, dtype=torch.float64) ** self.rho
        span = sigmas.new_tensor([schedule.log_snr_min, schedule.log_snr_max])
        low_snr, high_snr = (-2 * sigmas[[0, -1]].log()).clamp(*span.tolist())
        return to_clean(schedule, (-2 * sigmas.log()).clamp(low_snr, high_snr))


@dataclass(frozen=True)
class Tabulated(Grid):
    """Log-SNRs interpolated linearly at evenly spaced positions in a table, then a jump to the clean end.

    `log_snr` is the table, increasing, as `measure` makes it. It is cut to the range of the schedule.
    """

    log_snr: tuple[float, ...] = (-6.0, 6.0)

    def __post_init__(self) -> None:
        rising = len(self.log_snr) >= 2 and all(a < b for a, b in pairwise(self.log_snr))
        require(rising, "grid.log_snr", "at least two increasing values", self.log_snr)

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """Returns the times, (steps + 1,) float64."""
        require(steps >= 1, "steps", "at least 1", steps)
        table = torch.tensor(self.log_snr, dtype=torch.float64).clamp(schedule.log_snr_min, schedule.log_snr_max)
        positions = torch.linspace(0, len(table) - 1, steps, dtype=torch.float64)
        return to_clean(schedule, lerp_table(table, positions))


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
    """Measures the grid between two log-SNRs on which first-order steps follow the paths of the denoiser best.

    noise: (B, C, *), standard normal, the start of one path each; more paths give a smoother table. Takes `resolution`
    denoiser evaluations of the batch. The density of the steps in log-SNR is the same for any number of steps. Raises
    InputError unless first < last.
    """
    require(first < last, "first, last", "an increasing pair of log-SNRs", (first, last))
    schedule = denoiser.schedule
    times = UniformLogSNR(first, last)(schedule, resolution)
    log_snr = schedule.log_snr(times[:-1])
    x = gaussian.marginal(schedule, torch.zeros_like(noise), times[0]).sample(noise)
    mean = torch.zeros_like(noise)
    changes = []
    for t, s in pairwise(times):
        before, mean = mean, denoiser(x, t, label).mean
        changes.append((mean - before).double().square().mean().sqrt())
        x = gaussian.posterior(schedule, mean, x, t, s, eta=0).mean
    density = torch.stack(changes[1:]).cpu().sqrt()
    density = density.clamp_min(FLOOR * density.max())
    cumulative = torch.cat([density.new_zeros(1), density.cumsum(0)])
    evenly = torch.linspace(0, float(cumulative[-1]), ENTRIES, dtype=torch.float64)
    return Tabulated(tuple(interp(evenly, cumulative, log_snr).tolist()))


def interp(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolates y (n,), given at increasing x (n,), linearly at `at` (m,), constant beyond the ends: (m,)."""
    at = at.clamp(x[0], x[-1])
    i = torch.searchsorted(x, at, right=True).clamp(1, len(x) - 1)
    return torch.lerp(y[i - 1], y[i], (at - x[i - 1]) / (x[i] - x[i - 1]))


def to_clean(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """The times of increasing log-SNRs, with the clean end appended unless they reach it, without repetitions."""
    times = torch.cat([schedule.time(log_snr), log_snr.new_zeros(1)])
    return times[torch.cat([times.diff() < 0, times.new_ones(1, dtype=torch.bool)])]


def check_decreasing(times: Tensor) -> None:
    """Raises InputError unless the times (T,) decrease strictly."""
    rising = (times.diff() >= 0).nonzero()
    if len(rising):
        i = int(rising[0])
        raise InputError(f"times: must decrease strictly, got {times[i]:.6g} followed by {times[i + 1]:.6g}")


GRIDS: dict[str, type[Grid]] = {"uniform": UniformLogSNR, "time": UniformTime, "karras": Karras, "tabulated": Tabulated}
