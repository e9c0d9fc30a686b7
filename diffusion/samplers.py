"""Samplers: steps (x_t, state) -> (x_s, state) for s < t, on explicit grids of times (`grids.py`).

All of them are written for any (α, σ), in terms of x̂ = E[x|x_t] and half log-SNRs. Noise comes in as an argument, so
that one generator per example makes a sample independent of the batch it is drawn in (`randomness.ExampleNoise`).

    DDPM        ancestral sampling of p(x_s|x_t)        Ho et al. 2020, arXiv 2006.11239, algorithm 2
    DDIM        η = 0 deterministic ... η = 1 ancestral  Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 12
    Heun        second order, with churn                 Karras et al. 2022, arXiv 2206.00364, algorithm 2
    DPMSolver   DPM-Solver++(2M), and its SDE for η = 1  Lu et al. 2022, arXiv 2211.01095, algorithm 2 and section 5
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.grids import decreasing
from diffusion.guidance import Labeled
from diffusion.schedules import Schedule

RandN = Callable[[Tensor], Tensor]
State = Any


class Sampler(ABC):
    """One step of a reverse trajectory. Samplers are frozen; what a step must remember travels in `state`, None at
    the start.
    """

    @property
    def nfe_per_step(self) -> int:
        """Denoiser calls per step; the last step may take fewer."""
        return 1

    @abstractmethod
    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """x_t: (B, C, *) at time t; s < t. Returns x_s and the state that the next step receives. t, s: () float64."""


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling. `variance_interp` places the variance between the lower (0) and upper (1) value where it is
    not learned.
    """

    variance_interp: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.variance_interp <= 1, "sampler.variance_interp", "in [0, 1]", self.variance_interp)

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Draws from p(x_s|x_t)."""
        mean, variance_interp = denoiser(x_t, t)
        reverse = gaussian.reverse(
            denoiser.schedule,
            mean,
            x_t,
            t,
            s,
            variance_interp=self.variance_interp if variance_interp is None else variance_interp,
        )
        return reverse.sample(randn(x_t)), None


@dataclass(frozen=True)
class DDIM(Sampler):
    """First order in the step of log-SNR; `eta` scales the noise from deterministic (0) to ancestral (1)."""

    eta: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "sampler.eta", "in [0, 1]", self.eta)

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Draws from q_η(x_s|x_t, x̂)."""
        posterior = gaussian.posterior(denoiser.schedule, denoiser(x_t, t).mean, x_t, t, s, eta=self.eta)
        return (posterior.sample(randn(x_t)) if self.eta else posterior.mean), None


@dataclass(frozen=True)
class Heun(Sampler):
    """The trapezoidal rule on dx/dσ with x and σ in units of α, second order, two calls per step.

    `churn` adds noise before a step, as S_churn / N of that paper, while σ/α is within [`churn_min`, `churn_max`]; at
    most a factor √2 in σ. A step that ends at the clean end is a single call of first order, as there is nothing left
    to correct.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        require(self.churn >= 0, "sampler.churn", "0 or more", self.churn)
        require(
            0 <= self.churn_min <= self.churn_max,
            "sampler.churn_min, sampler.churn_max",
            "0 <= min <= max",
            (self.churn_min, self.churn_max),
        )

    @property
    def nfe_per_step(self) -> int:
        """Two: the slope at either end."""
        return 2

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Optional churn to a higher noise level, an Euler step to s, and the correction by the slope there."""
        schedule = denoiser.schedule
        x_t, t = self._churn(schedule, x_t, t, randn)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (_floats(schedule, time) for time in (t, s))
        ratio_t, ratio_s = sigma_t / alpha_t, sigma_s / alpha_s
        z = x_t / alpha_t
        slope = (z - denoiser(x_t, t).mean) / ratio_t
        z_s = z + (ratio_s - ratio_t) * slope
        if s > 0:
            slope_s = (z_s - denoiser(alpha_s * z_s, s).mean) / ratio_s
            z_s = z + (ratio_s - ratio_t) * (slope + slope_s) / 2
        return alpha_s * z_s, None

    def _churn(self, schedule: Schedule, x_t: Tensor, t: Tensor, randn: RandN) -> tuple[Tensor, Tensor]:
        alpha_t, sigma_t = _floats(schedule, t)
        ratio = sigma_t / alpha_t
        if not self.churn or not self.churn_min <= ratio <= self.churn_max:
            return x_t, t
        raised = ratio * (1 + min(self.churn, math.sqrt(2) - 1))
        t_hat = schedule.time(torch.tensor(-2 * math.log(raised), dtype=torch.float64))
        alpha_hat, sigma_hat = _floats(schedule, t_hat)
        added = max((sigma_hat / alpha_hat) ** 2 - ratio**2, 0.0) ** 0.5 * self.churn_noise
        return alpha_hat * (x_t / alpha_t + added * randn(x_t)), t_hat


@dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver++(2M): second order at one call per step, by extrapolating x̂ from the step before.

    `eta` = 1 solves the reverse SDE, 0 the probability-flow ODE. The last step, onto the clean end, is of first order:
    there the log-SNR jumps, and extrapolation over a jump would overshoot.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "sampler.eta", "in [0, 1]", self.eta)

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """State: the estimate x̂ and the half log-SNR of the step before."""
        schedule = denoiser.schedule
        (_, sigma_t), (alpha_s, sigma_s) = (_floats(schedule, time) for time in (t, s))
        half_t, half_s = (float(schedule.log_snr(time)) / 2 for time in (t, s))
        h = half_s - half_t
        mean = denoiser(x_t, t).mean
        estimate = mean
        if state is not None and s > 0:
            before, half_before = state
            estimate = mean + (mean - before) * (h / (2 * (half_t - half_before)))
        x_s = sigma_s / sigma_t * math.exp(-self.eta * h) * x_t - alpha_s * math.expm1(-(1 + self.eta) * h) * estimate
        if self.eta:
            x_s = x_s + sigma_s * math.sqrt(-math.expm1(-2 * self.eta * h)) * randn(x_t)
        return x_s, (mean, half_t)


@dataclass(frozen=True)
class SDESolver(Sampler):
    """DPM-Solver++(2M) for the reverse SDE: `DPMSolver(eta=1)` under a name of its own."""

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """As `DPMSolver`."""
        return DPMSolver(eta=1.0).step(denoiser, x_t, t, s, state, randn)


def _floats(schedule: Schedule, t: Tensor) -> tuple[float, float]:
    alpha, sigma = schedule(t)
    return float(alpha), float(sigma)


def trajectory(
    denoiser: AnyDenoiser,
    sampler: Sampler,
    x: Tensor,
    times: Tensor,
    *,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Iterator[Tensor]:
    """Yields x_t for every t of `times`, decreasing, starting with x itself, which is at times[0]: tensors (B, C, *).

    Raises ValueError unless `times` decreases strictly.
    """
    times = times.detach().double().cpu()
    decreasing(times)
    if label is not None:
        denoiser = Labeled(denoiser, label)
    state = None
    yield x
    for t, s in pairwise(times):
        x, state = sampler.step(denoiser, x, t, s, state, randn)
        yield x


def sample(
    denoiser: AnyDenoiser,
    sampler: Sampler,
    x: Tensor,
    times: Tensor,
    *,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Tensor:
    """The last element of the trajectory: (B, C, *)."""
    for last in trajectory(denoiser, sampler, x, times, label=label, randn=randn):
        x = last
    return x


def prior(denoiser: AnyDenoiser, noise: Tensor, t: Tensor) -> Tensor:
    """A start for a trajectory at time t near 1, where the data have all but vanished: σ_t noise, (B, C, *)."""
    return gaussian.marginal(denoiser.schedule, torch.zeros_like(noise), t).sample(noise)


SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "heun": Heun,
    "dpmpp_2m": DPMSolver,
    "dpmpp_2m_sde": SDESolver,
}
