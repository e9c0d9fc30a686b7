"""Samplers: steps (x_t, state) -> (x_s, state) for s < t, on explicit grids of times (`grids.py`).

Every sampler is written for any (α, σ), in terms of x̂ = E[x|x_t] and the half log-SNR ℓ = λ/2. Noise comes in as an
argument, so that one generator per example makes a sample independent of the batch it is drawn in
(`randomness.ExampleNoise`).

    DDPM         ancestral sampling of p(x_s|x_t)              Ho et al. 2020, arXiv 2006.11239, algorithm 2
    DDIM         deterministic for η = 0, ancestral for η = 1  Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 12
    Heun         second order, with churn                      Karras et al. 2022, arXiv 2206.00364, algorithm 2
    DPMSolver    DPM-Solver++(2M), and its SDE for η = 1       Lu et al. 2022, arXiv 2211.01095, algorithm 2, section 5
    DPMSolver3M  DPM-Solver++(3M)                              the same derivation with one estimate more
    UniPC        predictor and corrector, with B₂(h)           Zhao et al. 2023, arXiv 2302.04867, section 3

The last three are multistep samplers. The probability-flow ODE has the solution (Lu et al. 2022, proposition 4.1)

    x_s = (σ_s/σ_t) x_t + α_s ∫₀ʰ e^(τ-h) x̂(ℓ_t + τ) dτ,    h = ℓ_s - ℓ_t

in which they replace x̂ by the polynomial through its estimates at this time and at earlier ones, which the state holds.
The first steps have fewer of them and are of lower order. So is a last step onto the clean end, which takes x̂(x_t)
alone: there the log-SNR jumps, and extrapolation over a jump would overshoot.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.grids import check_decreasing
from diffusion.guidance import Labeled
from diffusion.schedules import Schedule

RandN = Callable[[Tensor], Tensor]
State = Any
# Estimates x̂ of earlier times, each with the half log-SNR of its time, the latest first.
Estimates = tuple[tuple[Tensor, float], ...]


class Sampler(ABC):
    """Takes one step of a reverse trajectory. Samplers are frozen: what the next step needs to know travels in `state`,
    which is None at the start.
    """

    @property
    def nfe_per_step(self) -> int:
        """Evaluations of the denoiser per step; the last step may take fewer."""
        return 1

    @abstractmethod
    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Returns x_s and the state for the next step. x_t, x_s: (B, C, *); t, s: () float64, s < t."""


@dataclass(frozen=True)
class DDPM(Sampler):
    """Draws from p(x_s|x_t), ancestral sampling. Where the variance is not learned, `variance_interp` places it between
    its lower (0) and its upper (1) value.
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
    """Draws from q_η(x_s|x_t, x̂), of first order in the step of log-SNR. `eta` scales the noise from none (0) to that
    of ancestral sampling (1).
    """

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
    """Applies the trapezoidal rule to dx/dσ with x and σ in units of α: second order, two evaluations per step.

    `churn`, the S_churn / N of Karras et al., adds noise before a step while σ/α is within [`churn_min`, `churn_max`].
    It raises σ/α by a factor of √2 at most. `churn_noise` scales the noise added, as S_noise does. A step onto the
    clean end is of first order and takes one evaluation, as there is no slope at σ = 0 to correct it by.
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
        """Two, for the slopes at both ends of the step."""
        return 2

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Adds the noise of `churn`, takes an Euler step to s, and corrects it by the slope there."""
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
    """DPM-Solver++(2M): second order with one evaluation per step, by extrapolating x̂ from the step before.

    `eta` = 0 solves the probability-flow ODE, `eta` = 1 the reverse SDE.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.eta <= 1, "sampler.eta", "in [0, 1]", self.eta)

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Takes the step with the estimate of the step before, which `state` holds as `Estimates`."""
        step, mean, earlier = _Step.between(denoiser.schedule, t, s), denoiser(x_t, t).mean, state or ()
        x_s = step.predict(x_t, mean, earlier, eta=self.eta)
        if self.eta:
            x_s = x_s + step.sigma_s * math.sqrt(-math.expm1(-2 * self.eta * step.h)) * randn(x_t)
        return x_s, ((mean, step.half_t),)


@dataclass(frozen=True)
class SDESolver(Sampler):
    """DPM-Solver++(2M) for the reverse SDE: `DPMSolver(eta=1)` under a name of its own."""

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Takes the step of `DPMSolver`, with the same state."""
        return DPMSolver(eta=1.0).step(denoiser, x_t, t, s, state, randn)


@dataclass(frozen=True)
class DPMSolver3M(Sampler):
    """DPM-Solver++(3M) for the probability-flow ODE: third order with one evaluation per step, by extrapolating x̂ from
    the two steps before.

    The parabola through the three estimates is integrated exactly. The code of Lu et al., and with it diffusers and
    k-diffusion, give its second divided difference half of that weight, which lowers the order to two.
    """

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Takes the step with the estimates of the two steps before, which `state` holds as `Estimates`."""
        step, mean, earlier = _Step.between(denoiser.schedule, t, s), denoiser(x_t, t).mean, state or ()
        return step.predict(x_t, mean, earlier), ((mean, step.half_t), *earlier)[:2]


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniPC-p with p = `order`, data prediction and B₂(h): order p + 1 with one evaluation per step.

    The predictor UniP-p extrapolates x̂ from p estimates, as DPM-Solver++ does. The next step evaluates x̂ at the x_t
    predicted. With this estimate the corrector UniC-p interpolates x̂ over the step before, and the difference is added
    to x_t. So x_t keeps what a restoration has changed about it between two steps. The estimate is not evaluated again
    at the corrected x_t, and the last x_s of a trajectory is not corrected.
    """

    order: int = 3

    def __post_init__(self) -> None:
        require(self.order in (2, 3), "sampler.order", "2 or 3", self.order)

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Corrects x_t by x̂(x_t), then predicts x_s. `state` holds up to `order` earlier estimates as `Estimates`."""
        step, mean, earlier = _Step.between(denoiser.schedule, t, s), denoiser(x_t, t).mean, state or ()
        if earlier:
            (before, half_before), *others = earlier
            h = step.half_t - half_before
            corrected = _average(h, before, half_before, ((mean, step.half_t), *others))
            predicted = _average(h, before, half_before, others)
            alpha_t, _ = _floats(denoiser.schedule, t)
            x_t = x_t - alpha_t * math.expm1(-h) * (corrected - predicted)
        x_s = step.predict(x_t, mean, earlier[: self.order - 1])
        return x_s, ((mean, step.half_t), *earlier)[: self.order]


@dataclass(frozen=True)
class _Step:
    """The scalars of a step from t to s: σ_t, α_s, σ_s, the half log-SNR at t, its increase h, and whether s = 0."""

    sigma_t: float
    alpha_s: float
    sigma_s: float
    half_t: float
    h: float
    clean: bool

    @classmethod
    def between(cls, schedule: Schedule, t: Tensor, s: Tensor) -> _Step:
        (_, sigma_t), (alpha_s, sigma_s) = (_floats(schedule, time) for time in (t, s))
        half_t, half_s = (float(schedule.log_snr(time)) / 2 for time in (t, s))
        return cls(sigma_t, alpha_s, sigma_s, half_t, half_s - half_t, bool(s == 0))

    def predict(self, x_t: Tensor, mean: Tensor, earlier: Estimates, *, eta: float = 0.0) -> Tensor:
        """Returns x_s, (B, C, *), without the noise that η adds. `mean` is x̂(x_t)."""
        estimate = mean if self.clean else _average(self.h, mean, self.half_t, earlier)
        keep = self.sigma_s / self.sigma_t * math.exp(-eta * self.h)
        return keep * x_t - self.alpha_s * math.expm1(-(1 + eta) * self.h) * estimate


def _average(h: float, mean: Tensor, half: float, others: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Returns ⟨P⟩ = ∫₀ʰ e^(τ-h) P(τ) dτ / (1 - e^(-h)), (B, C, *), for a step from the half log-SNR `half`, where P is
    the polynomial in τ through the estimate `mean` at τ = 0 and through `others`.
    """
    average = mean
    gains = _gains(h, [other_half - half for _, other_half in others])
    for (other, _), gain in zip(others, gains, strict=True):
        average = average + (other - mean) * gain
    return average


def _gains(h: float, offsets: Sequence[float]) -> list[float]:
    """Returns the c_k for which ⟨P⟩ = P(0) + Σ_k c_k (P(τ_k) - P(0)), where P is a polynomial of degree n, and τ_k are
    the n offsets from the beginning of a step of length h.

    They solve Σ_k c_k (τ_k/h)^j = ⟨(τ/h)^j⟩ for j = 1 ... n. The right-hand sides are m_j/m_0 with m_0 = 1 - e^(-h) and
    m_j = 1 - (j/h) m_(j-1). For n = 1 the right-hand side is replaced by its limit ½ for small h, as in algorithm
    2 of Lu et al. and in UniPC with B₂(h).
    """
    if len(offsets) < 2:
        return [h / (2 * offset) for offset in offsets]
    moments = [-math.expm1(-h)]
    for degree in range(1, len(offsets) + 1):
        moments.append(1 - degree / h * moments[-1])
    averages = torch.tensor(moments[1:], dtype=torch.float64) / moments[0]
    degrees = torch.arange(1, len(moments), dtype=torch.float64)
    powers = (torch.tensor(offsets, dtype=torch.float64) / h) ** degrees[:, None]
    gains: list[float] = torch.linalg.solve(powers, averages).tolist()
    return gains


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
    """Yields x_t, (B, C, *), for every t of `times` (T,), beginning with x itself, which is at times[0].

    Raises InputError unless `times` decrease strictly.
    """
    times = times.detach().double().cpu()
    check_decreasing(times)
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
    """Returns the last x_t of the trajectory: (B, C, *). Arguments as for `trajectory`."""
    for last in trajectory(denoiser, sampler, x, times, label=label, randn=randn):
        x = last
    return x


def prior(denoiser: AnyDenoiser, noise: Tensor, t: Tensor) -> Tensor:
    """Returns σ_t noise, (B, C, *): the start of a trajectory at a time t near 1, where x has nearly no part in x_t."""
    return gaussian.marginal(denoiser.schedule, torch.zeros_like(noise), t).sample(noise)


SAMPLERS: dict[str, type[Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "heun": Heun,
    "dpmpp_2m": DPMSolver,
    "dpmpp_2m_sde": SDESolver,
    "dpmpp_3m": DPMSolver3M,
    "unipc": UniPC,
}
