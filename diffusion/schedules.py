"""Noise schedules: q(x_t | x) = N(α_t x, σ_t² I) for t in [0, 1], clean at t = 0, noise at t = 1.

A schedule is a curve (α_t, σ_t) with a strictly decreasing log-SNR λ_t = 2 log(α_t/σ_t), finite at both ends.
Networks, objectives and samplers use the log-SNR (Kingma et al. 2021, arXiv 2107.00630). A new schedule defines
`__call__` only; the inverse and every derivative follow from it. Times may be float32 or float64; timestep grids are
float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.transfers import to_device


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Returns values (B,) or (), or a map of them, in the dtype of a tensor `like` (B, *), as a tensor that it can be
    multiplied by.
    """
    return expand_all([values], like)[0]


def expand_all(values: Iterable[Tensor], like: Tensor) -> list[Tensor]:
    """Returns values, all (B,), all () or all maps (`levels`), in the dtype of `like` (B, *), as tensors that it can be
    multiplied by.

    Values on the CPU are moved to the device of `like` in one copy, which nothing waits for. Numbers () stay on the
    CPU, as they are arguments of the kernels of any device.
    """
    given = [value.to(like.dtype) for value in values]
    if given[0].device == like.device or not given[0].ndim:
        moved = given
    else:
        moved = list(to_device(torch.stack(given), like.device))
    return [value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim == 1 else value for value in moved]


def rows(values: Tensor, like: Tensor) -> Tensor:
    """Returns values (B,) or () as (B,) in the dtype and on the device of a tensor `like` (B, *)."""
    if not values.ndim and values.device.type == "cpu":
        return like.new_full((len(like),), float(values))
    return to_device(values.to(like.dtype), like.device).expand(len(like))


class Schedule(ABC):
    """The curve t -> (α_t, σ_t). Subclasses are frozen dataclasses and define `__call__`."""

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns α_t and σ_t at t (*) in [0, 1], both positive, with the shape and dtype of t."""

    def log_snr(self, t: Tensor) -> Tensor:
        """λ_t = 2 log(α_t/σ_t), strictly decreasing in t: (*) -> (*)."""
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def time(self, log_snr: Tensor) -> Tensor:
        """The t with λ_t = log_snr: (*) -> (*) float64. A log-SNR beyond the ends gives 0 or 1."""
        target = log_snr.double()
        t = self.invert(target)
        return torch.where(target >= self.log_snr_max, 0.0, torch.where(target <= self.log_snr_min, 1.0, t))

    def invert(self, log_snr: Tensor) -> Tensor:
        """The t with λ_t = log_snr for a log-SNR between the ends: (*) -> (*) float64.

        Bisects to the last bit, in 60 evaluations; a subclass with a closed form overrides it.
        """
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(60):
            middle = (low + high) / 2
            too_clean = self.log_snr(middle) > log_snr
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return high

    @cached_property
    def log_snr_max(self) -> float:
        """λ at t = 0."""
        return float(self.log_snr(torch.zeros((), dtype=torch.float64)))

    @cached_property
    def log_snr_min(self) -> float:
        """λ at t = 1."""
        return float(self.log_snr(torch.ones((), dtype=torch.float64)))


def lerp_table(table: Tensor, position: Tensor) -> Tensor:
    """Interpolates a table (n,), n >= 2, linearly at positions (*) in [0, n - 1]: (*)."""
    i = position.detach().floor().long().clamp(0, len(table) - 2)
    return torch.lerp(table[i], table[i + 1], position - i)


def variance_preserving(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ with α² + σ² = 1 at a log-SNR, without cancellation at either end: (*) -> (*), (*)."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """The schedule of x_t/√(α_t² + σ_t²), where α² + σ² = 1: it has the log-SNR of `schedule` at every time."""

    schedule: Schedule

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t² = sigmoid(λ_t), σ_t² = sigmoid(-λ_t)."""
        return variance_preserving(self.log_snr(t))

    def log_snr(self, t: Tensor) -> Tensor:
        """The log-SNR of `schedule` at t: (*) -> (*)."""
        return self.schedule.log_snr(t)

    def invert(self, log_snr: Tensor) -> Tensor:
        """The time at which `schedule` has this log-SNR: (*) -> (*) float64."""
        return self.schedule.invert(log_snr)


@dataclass(frozen=True)
class VPLinear(Schedule):
    """Variance preserving, with β(t) linear and log α_t = -∫β/2 (Song et al. 2021, arXiv 2011.13456, eq. 29-33).

    `t_min` moves the clean end away from σ = 0; the paper takes 1e-5 for likelihoods.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5

    def __post_init__(self) -> None:
        require(
            0 < self.beta_min <= self.beta_max,
            "beta_min, beta_max",
            "0 < beta_min <= beta_max",
            (self.beta_min, self.beta_max),
        )
        require(0 < self.t_min < 1, "t_min", "0 < t_min < 1", self.t_min)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t = exp(-∫₀ᵗβ/2), σ_t = sqrt(1 - α_t²)."""
        u = self.t_min + t * (1 - self.t_min)
        integral = u * self.beta_min + u.square() * (self.beta_max - self.beta_min) / 2
        return (-integral / 2).exp(), (-torch.expm1(-integral)).sqrt()

    def invert(self, log_snr: Tensor) -> Tensor:
        """The root of a quadratic in u, ∫β = log(1 + e^-λ)."""
        integral = (-log_snr).exp().log1p()
        root = (self.beta_min**2 + 2 * integral * (self.beta_max - self.beta_min)).sqrt()
        return (2 * integral / (self.beta_min + root) - self.t_min) / (1 - self.t_min)


@dataclass(frozen=True)
class Cosine(Schedule):
    """α = cos(πu/2), σ = sin(πu/2), with u restricted so that λ runs from `start` to `end`; `shift` is added to λ.

    The schedule of Nichol and Dhariwal (2021, arXiv 2102.09672, eq. 17) in the form of Hoogeboom et al. (2023, arXiv
    2301.11093, section 3.1), who shift by 2 log(64/d) for images of side d.
    """

    start: float = 13.3
    end: float = -13.3
    shift: float = 0.0

    def __post_init__(self) -> None:
        require(self.end < self.start, "start, end", "end < start", (self.start, self.end))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """λ_t = -2 log tan(πu/2) + shift with u linear in t."""
        first, last = self._ends
        angle = first + t * (last - first)
        return variance_preserving(-2 * angle.tan().log() + self.shift)

    def invert(self, log_snr: Tensor) -> Tensor:
        """πu/2 = atan e^-(λ - shift)/2."""
        first, last = self._ends
        return (((self.shift - log_snr) / 2).exp().atan() - first) / (last - first)

    @cached_property
    def _ends(self) -> tuple[float, float]:
        return math.atan(math.exp(-self.start / 2)), math.atan(math.exp(-self.end / 2))


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """α_t² is a sigmoid of t, rescaled to run from 1 to 0 (Jabri et al. 2023, arXiv 2212.11972, algorithm 1).

    A share `t_min` of the curve is cut off at either end, where α² would be exactly 1 or 0.
    """

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0
    t_min: float = 1e-5

    def __post_init__(self) -> None:
        require(self.start < self.end, "start, end", "start < end", (self.start, self.end))
        require(self.temperature > 0, "temperature", "a positive number", self.temperature)
        require(0 < self.t_min < 0.5, "t_min", "0 < t_min < 0.5", self.t_min)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t² = (s(end) - s(x)) / (s(end) - s(start)), s the logistic function of x/temperature, x linear in t."""
        u, rest = (self.t_min + v * (1 - 2 * self.t_min) for v in (t, 1 - t))
        a, b = self.start / self.temperature, self.end / self.temperature
        # s(y) - s(x) = sinh((y - x)/2) / (2 cosh(x/2) cosh(y/2)): the differences at either end do not cancel.
        scale = torch.cosh((a + u * (b - a)) / 2) * math.sinh((b - a) / 2)
        alpha_square = torch.sinh(rest * (b - a) / 2) * math.cosh(a / 2) / scale
        return alpha_square.sqrt(), (torch.sinh(u * (b - a) / 2) * math.cosh(b / 2) / scale).sqrt()

    def invert(self, log_snr: Tensor) -> Tensor:
        """The u of r = sinh(ud)/sinh((1 - u)d) = e^-λ cosh(a/2)/cosh(b/2) with d = (b - a)/2: 2ud is the logarithm of
        (1 + r e^d)/(1 + r e^-d).
        """
        a, b = self.start / self.temperature, self.end / self.temperature
        half, ratio = (b - a) / 2, (-log_snr).exp() * (math.cosh(a / 2) / math.cosh(b / 2))
        u = ((ratio * math.exp(half)).log1p() - (ratio * math.exp(-half)).log1p()) / (2 * half)
        return (u - self.t_min) / (1 - 2 * self.t_min)


@dataclass(frozen=True)
class EDM(Schedule):
    """Variance exploding, α = 1, with σ^(1/ρ) linear in t (Karras et al. 2022, arXiv 2206.00364, eq. 5).

    Sigmas are in units of the data's standard deviation; the paper's `sigma_max` of 80 is for data of standard
    deviation 0.5. The default `sigma_min` is below what 8-bit pixels resolve, as a likelihood needs.
    """

    sigma_min: float = 0.002
    sigma_max: float = 160.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        require(
            0 < self.sigma_min < self.sigma_max,
            "sigma_min, sigma_max",
            "0 < sigma_min < sigma_max",
            (self.sigma_min, self.sigma_max),
        )
        require(self.rho > 0, "rho", "a positive number", self.rho)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t = 1, σ_t = (σ_min^(1/ρ) + t (σ_max^(1/ρ) - σ_min^(1/ρ)))^ρ."""
        low, high = self._ends
        return torch.ones_like(t), (low + t * (high - low)) ** self.rho

    def invert(self, log_snr: Tensor) -> Tensor:
        """t = (σ^(1/ρ) - σ_min^(1/ρ)) / (σ_max^(1/ρ) - σ_min^(1/ρ)), σ = e^(-λ/2)."""
        low, high = self._ends
        return ((-log_snr / (2 * self.rho)).exp() - low) / (high - low)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)


@dataclass(frozen=True)
class Flow(Schedule):
    """The straight path of flow matching, α = 1 - u and σ = u (Lipman et al. 2023, arXiv 2210.02747, eq. 20; Liu et
    al. 2023).

    u runs from `sigma_min` to 1 - `alpha_min`, so that the log-SNR is finite at both ends.
    """

    sigma_min: float = 0.002
    alpha_min: float = 0.001

    def __post_init__(self) -> None:
        require(
            self.sigma_min > 0 < self.alpha_min,
            "sigma_min, alpha_min",
            "positive numbers",
            (self.sigma_min, self.alpha_min),
        )
        require(
            self.sigma_min + self.alpha_min < 1,
            "sigma_min, alpha_min",
            "a sum below 1",
            (self.sigma_min, self.alpha_min),
        )

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t = 1 - u, σ_t = u."""
        u = self.sigma_min + t * (1 - self.alpha_min - self.sigma_min)
        return 1 - u, u

    def invert(self, log_snr: Tensor) -> Tensor:
        """u = σ/(α + σ), a sigmoid of -λ/2."""
        return (torch.sigmoid(-log_snr / 2) - self.sigma_min) / (1 - self.alpha_min - self.sigma_min)


@dataclass(frozen=True)
class DiscreteBetas(Schedule):
    """The table ᾱ_i = Π(1 - β_j), j <= i, of a discrete diffusion; between its entries the log-SNR is linear in t.

    Entry i (from 0) is at t = i / (steps - 1). Without `betas` the β are `steps` values evenly spaced from `beta_min`
    to `beta_max` (Ho et al. 2020, arXiv 2006.11239, section 4).
    """

    steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02
    betas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require(self.betas or self.steps >= 2, "steps", "at least 2", self.steps)
        require(len(self.betas) != 1, "betas", "at least 2 values", self.betas)
        bad = [beta for beta in (*self.betas, self.beta_min, self.beta_max) if not 0 < beta < 1]
        require(not bad, "betas", "values between 0 and 1", bad)

    @cached_property
    def table(self) -> Tensor:
        """The log-SNR of every entry, decreasing: (steps,) float64."""
        default = torch.linspace(self.beta_min, self.beta_max, self.steps, dtype=torch.float64)
        betas = torch.tensor(self.betas, dtype=torch.float64) if self.betas else default
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """α_t² = sigmoid(λ_t), σ_t² = sigmoid(-λ_t), with λ_t interpolated in the table."""
        table = self.table.to(t)
        return variance_preserving(lerp_table(table, t * (len(table) - 1)))

    def invert(self, log_snr: Tensor) -> Tensor:
        """The place between two entries of the table."""
        table = self.table.to(log_snr.device)
        i = (torch.searchsorted(-table, -log_snr) - 1).clamp(0, len(table) - 2)
        return (i + (table[i] - log_snr) / (table[i] - table[i + 1])) / (len(table) - 1)


SCHEDULES: dict[str, type[Schedule]] = {
    "linear": VPLinear,
    "cosine": Cosine,
    "sigmoid": Sigmoid,
    "edm": EDM,
    "flow": Flow,
    "discrete": DiscreteBetas,
}
