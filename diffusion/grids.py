"""Timestep grids: the times at which a sampler evaluates the denoiser. On a good grid few evaluations suffice.

With half log-SNR ℓ = λ/2, the exact step of the probability-flow ODE needs ∫ e^ℓ x̂ dℓ. DDIM holds x̂ fixed over a step
of length h, which makes an error of c h² / 2 with c = |dx̂/dℓ| along the path, in units of x. The sum of these errors
over N steps of density ρ is proportional to ∫ c / ρ dℓ, and is least for ρ ∝ √c. `measure` estimates c from the paths
of a denoiser.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.schedules import Schedule, lerp_table
from diffusion.thermodynamics.information import dissipation_of_steps

# The number of entries of a measured table, and the least density of its steps as a share of the largest.
ENTRIES = 33
FLOOR = 1e-3
# Lengths of steps are found on at least FINE steps, and evened out in at most so many ROUNDS until they differ by no
# more than the share EVEN.
FINE, ROUNDS, EVEN = 2048, 200, 1e-6


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
        low, high = cut(schedule, self.first, self.last)
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


@dataclass(frozen=True)
class EqualDissipation(Grid):
    """Times between which every reverse step dissipates the same, from t = 1 (or log-SNR `first`) to t = 0.

    A step from t to s evaluates x̂ once. Its KL exceeds that of infinitely many steps by ½ (SNR_s - SNR_t) m_t -
    ½ ∫ m dSNR, with the mean square error m(λ) of x̂: what it dissipates (`thermodynamics.information`). To leading
    order that is ζ Δλ² with ζ = -¼ SNR dm/dλ. Steps that dissipate the same then have the same length ∫ √ζ dλ, and N
    of them dissipate (∫ √ζ dλ)²/N in all, the least that N steps can (Sivak and Crooks 2012, arXiv 1201.4166).

    `log_snr` and `error` are a table of m, as `measure_dissipation` makes it; by default that of standard normal data.
    log m is linear between its entries. It goes on with the slope 0 before the first and -1 after the last one, as that
    of data with a density does. `last` is as that of `UniformLogSNR`.
    """

    log_snr: tuple[float, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0)
    error: tuple[float, ...] = (0.982, 0.881, 0.5, 0.119, 0.018)
    first: float | None = None
    last: float | None = None

    def __post_init__(self) -> None:
        rising = bool(self.log_snr) and all(a < b for a, b in pairwise(self.log_snr))
        require(rising, "grid.log_snr", "increasing values", self.log_snr)
        falling = len(self.error) == len(self.log_snr) and all(a >= b for a, b in pairwise(self.error))
        rule = f"{len(self.log_snr)} positive values that do not increase"
        require(falling and self.error[-1] > 0, "grid.error", rule, self.error)

    def __call__(self, schedule: Schedule, steps: int) -> Tensor:
        """Returns the times, (steps + 1,) float64, with `first` and `last` cut to the range of the schedule."""
        require(steps >= 1, "steps", "at least 1", steps)
        low, high = cut(schedule, self.first, self.last)
        return to_clean(schedule, self._between(low, high, steps - (self.last is not None)))

    def dissipation(self, log_snr: Tensor) -> Tensor:
        """What each step between increasing log-SNRs (T,) dissipates: (T - 1,) nats per scalar."""
        error, known = self._information(log_snr)
        return dissipation_of_steps(error, known, log_snr)

    def _between(self, low: float, high: float, count: int) -> Tensor:
        """The log-SNRs (count + 1,) from low to high between which all steps dissipate the same."""
        if count == 0:
            return torch.tensor([low], dtype=torch.float64)
        nodes = torch.linspace(low, high, max(FINE, 8 * count) + 1, dtype=torch.float64)
        for _ in range(ROUNDS):
            # Of a long step the dissipation grows as the exponential of its length.
            length = self.dissipation(nodes).clamp_min(0).sqrt().asinh()
            if len(nodes) == count + 1 and length.max() - length.min() <= EVEN * length.max():
                break
            passed = torch.cat([length.new_zeros(1), length.cumsum(0)])
            nodes = interp(passed[-1] * torch.linspace(0, 1, count + 1, dtype=torch.float64), passed, nodes)
            nodes[-1], nodes[0] = high, low
        return nodes

    def _information(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """m and ½ ∫ m dSNR, up to a constant, at increasing log-SNRs (T,): (T,), (T,)."""
        level = at.new_tensor([min(float(at[0]), self.log_snr[0]) - 1, *self.log_snr])
        log_error = at.new_tensor([self.error[0], *self.error]).log()
        end = max(float(at[-1]), self.log_snr[-1]) + 1
        level, beyond = torch.cat([level, level.new_tensor([end])]), log_error[-1] - (end - self.log_snr[-1])
        log_density = level + torch.cat([log_error, beyond[None]]) - math.log(2)
        width = level.diff()
        slope = log_density.diff() / width
        i = (torch.searchsorted(level, at, right=True) - 1).clamp(0, len(width) - 1)
        area = log_density[:-1].exp() * width * _mean_exp(slope * width)
        within = at - level[i]
        known = (area.cumsum(0) - area)[i] + log_density[i].exp() * within * _mean_exp(slope[i] * within)
        return 2 * torch.exp(log_density[i] + slope[i] * within - at), known


def _mean_exp(x: Tensor) -> Tensor:
    """(e^x - 1)/x, the mean of e^(u x) over u in [0, 1]."""
    return torch.where(x == 0, 1.0, torch.expm1(x) / torch.where(x == 0, 1.0, x))


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


@torch.no_grad()
def measure_dissipation(
    denoiser: AnyDenoiser,
    x: Tensor,
    noise: Tensor,
    *,
    first: float | None = None,
    last: float | None = None,
    label: Tensor | None = None,
    resolution: int = ENTRIES,
) -> EqualDissipation:
    """Measures the error of a denoiser by log-SNR, and returns the grid on which every step dissipates the same.

    x: (B, *), examples in model units; noise: (B, *), standard normal, the same at all log-SNRs, so that their errors
    differ by little chance. Takes `resolution` evaluations of the batch, between `first` and `last`, by default the
    ends of the schedule. An error above that of a lower log-SNR is one of the network, and the lower one stands for
    both. Raises InputError unless first < last.
    """
    schedule = denoiser.schedule
    low, high = cut(schedule, first, last)
    require(low < high, "first, last", "an increasing pair of log-SNRs", (low, high))
    times = schedule.time(torch.linspace(low, high, resolution, dtype=torch.float64))
    errors = []
    for t in times:
        mean = denoiser(gaussian.marginal(schedule, x, t).sample(noise), t, label).mean
        errors.append((mean - x).double().square().mean())
    error = torch.stack(errors).cpu().cummin(0).values.clamp_min(torch.finfo(torch.float64).tiny)
    return EqualDissipation(tuple(schedule.log_snr(times).tolist()), tuple(error.tolist()))


def cut(schedule: Schedule, first: float | None, last: float | None) -> tuple[float, float]:
    """The log-SNRs `first` and `last` within the range of the schedule, whose ends they are by default."""
    low = schedule.log_snr_min if first is None else max(first, schedule.log_snr_min)
    return low, schedule.log_snr_max if last is None else min(last, schedule.log_snr_max)


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


GRIDS: dict[str, type[Grid]] = {
    "uniform": UniformLogSNR,
    "time": UniformTime,
    "karras": Karras,
    "tabulated": Tabulated,
    "dissipation": EqualDissipation,
}
