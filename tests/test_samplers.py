"""Samplers converge at the order they claim, measured on Gaussian data where the answer is known and no noise is drawn.

With a Gaussian oracle every sampler is an affine map of its start and its noises. `affine` reads that map off one
batch, so the mean and covariance of what a stochastic sampler produces are exact: its weak order shows without Monte
Carlo.

A multistep sampler begins with steps of lower order, whose error hides its own order. That order is measured from
exact starting values: the first steps are taken from points of the exact flow, so all that they leave in the state is
exact.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.grids import UniformLogSNR
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.samplers import (
    DDIM,
    DDPM,
    SAMPLERS,
    DPMSolver,
    DPMSolver3M,
    Heun,
    RandN,
    Sampler,
    SDESolver,
    State,
    UniPC,
    prior,
    sample,
    trajectory,
)
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, MixtureOracle, affine, correlated


class Expected(NamedTuple):
    """The weak order with default options, a bound on the relative error of the covariance after 64 steps from log-SNR
    -4 to 4, and the order of the path from exact starting values, None for a sampler that draws noise.
    """

    weak: float
    bound: float
    path: int | None


# Every registered sampler. The first step of 3M, of first order, leaves an error of second order, and the first of
# UniPC one of third order. With 32 and 64 steps the rest of their errors still counts, so their weak orders, of the
# sums, are no integers.
EXPECTED = {
    "ddpm": Expected(1, 6.5e-2, None),
    "ddim": Expected(1, 3.3e-2, 1),
    "heun": Expected(2, 1.1e-3, 2),
    "dpmpp_2m": Expected(2, 4e-4, 2),
    "dpmpp_2m_sde": Expected(2, 1.1e-3, None),
    "dpmpp_3m": Expected(1.72, 4.7e-5, 3),
    "unipc": Expected(3.82, 1.7e-6, 4),
}
VARIANTS = [
    pytest.param(lambda steps: DDPM(variance_interp=1.0), 1.0, 7e-2, id="ddpm upper variance"),
    pytest.param(lambda steps: DDIM(eta=0.5), 1.0, 4e-2, id="ddim eta 0.5"),
    pytest.param(lambda steps: DPMSolver(eta=0.5), 2.0, 8e-4, id="2m eta 0.5"),
    pytest.param(lambda steps: Heun(churn=5 / steps), 2.0, 4e-3, id="heun churn 5/N"),
    # The same churn at every step is ever more noise in all: the order falls from 2 to 1, and is in between here.
    pytest.param(lambda steps: Heun(churn=0.1), 1.3, 4.5e-3, id="heun churn 0.1 at every step"),
]
ALL = pytest.mark.parametrize("name", SAMPLERS)
PATHS = [pytest.param(SAMPLERS[name](), e.path, id=name) for name, e in EXPECTED.items() if e.path is not None]
SCHEDULES_3 = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])
SHAPES = pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=["points", "images"])


def grid(schedule: Schedule, steps: int, first: float = -4.0, last: float = 4.0) -> Tensor:
    """Returns times evenly spaced in log-SNR that end before the clean end, where the last step is of first order."""
    return schedule.time(torch.linspace(first, last, steps + 1, dtype=torch.float64))


def covariance_error(sampler: Sampler, oracle: GaussianOracle, times: Tensor) -> float:
    produced = affine(lambda x, randn: sample(oracle, sampler, x, times, randn=randn), oracle.mean.shape)
    mean, covariance = produced.moments(*oracle.moments(times[0]))
    exact_mean, exact = oracle.moments(times[-1])
    assert torch.allclose(mean, exact_mean, rtol=1e-9, atol=1e-12), "the mean is exact at any number of steps"
    return ((covariance - exact).abs().max() / exact.abs().max()).item()


def flow_error(sampler: Sampler, oracle: GaussianOracle, times: Tensor) -> float:
    x = 3 * torch.randn(8, *oracle.mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = oracle.flow(x, times[0], times[-1])
    return ((sample(oracle, sampler, x, times) - exact).norm() / exact.norm()).item()


def assert_order(error: Callable[[int], float], order: float, bound: float) -> None:
    coarse, fine = error(32), error(64)
    assert fine < bound
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


@SCHEDULES_3
@SHAPES
@ALL
def test_weak_order(schedule: Schedule, shape: tuple[int, ...], name: str) -> None:
    assert name in EXPECTED, f"state the order and the error of {name!r} in EXPECTED"
    oracle = correlated(schedule, shape)
    expected = EXPECTED[name]
    sampler = SAMPLERS[name]()
    assert_order(lambda n: covariance_error(sampler, oracle, grid(schedule, n)), expected.weak, expected.bound)


@SCHEDULES_3
@pytest.mark.parametrize(("make", "order", "bound"), VARIANTS)
def test_weak_order_of_options(schedule: Schedule, make: Callable[[int], Sampler], order: float, bound: float) -> None:
    oracle = correlated(schedule)
    assert_order(lambda steps: covariance_error(make(steps), oracle, grid(schedule, steps)), order, bound)


@SCHEDULES_3
@SHAPES
@pytest.mark.parametrize(
    ("sampler", "order", "bound"),
    [(DDIM(), 1, 3e-2), (Heun(), 2, 1e-3), (DPMSolver(), 2, 5e-4)],
    ids=["ddim", "heun", "2m"],
)
def test_order_of_the_path(
    schedule: Schedule, shape: tuple[int, ...], sampler: Sampler, order: float, bound: float
) -> None:
    oracle = correlated(schedule, shape)
    assert_order(lambda steps: flow_error(sampler, oracle, grid(schedule, steps)), order, bound)


def uneven(schedule: Schedule, steps: int) -> Tensor:
    """Returns times whose steps in log-SNR are in the ratios 1, 3, 1, 3, ...: each step is 3 or 1/3 times the last."""
    ends = torch.tensor([1.0, 3.0], dtype=torch.float64).repeat(steps // 2).cumsum(0)
    return schedule.time(8 * torch.cat([ends.new_zeros(1), ends]) / ends[-1] - 4)


def error_from_exact_start(sampler: Sampler, oracle: GaussianOracle, times: Tensor) -> float:
    """Returns the relative error of the last x_t after four steps on the exact flow and further ones."""
    start = 3 * torch.randn(8, *oracle.mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, state = start, None
    for i, (t, s) in enumerate(pairwise(times)):
        x_t = oracle.flow(start, times[0], t) if i < 4 else x
        x, state = sampler.step(oracle, x_t, t, s, state, refuse)
    exact = oracle.flow(start, times[0], times[-1])
    return ((x - exact).norm() / exact.norm()).item()


def refuse(like: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


@SCHEDULES_3
@pytest.mark.parametrize("times", [grid, uneven], ids=["even", "uneven"])
@pytest.mark.parametrize(("sampler", "order"), [*PATHS, pytest.param(UniPC(order=2), 3, id="unipc 2")])
def test_order_from_exact_starting_values(
    schedule: Schedule, times: Callable[[Schedule, int], Tensor], sampler: Sampler, order: int
) -> None:
    oracle = correlated(schedule)
    coarse, fine = (error_from_exact_start(sampler, oracle, times(schedule, steps)) for steps in (128, 256))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.06)


class Halves(NamedTuple):
    """A schedule, and half log-SNRs at which `times` lie."""

    schedule: Schedule
    half: tuple[float, ...]

    @property
    def times(self) -> Tensor:
        return self.schedule.time(2 * torch.tensor(self.half, dtype=torch.float64))

    def floats(self, i: int) -> tuple[float, float]:
        alpha, sigma = self.schedule(self.times[i])
        return float(alpha), float(sigma)


@dataclass(frozen=True)
class Known:
    """A denoiser whose estimate at a time depends on its half log-SNR alone."""

    schedule: Schedule
    estimate: Callable[[float], Tensor]

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(self.estimate(float(self.schedule.log_snr(t)) / 2).expand_as(x_t))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arbitrary(half: float) -> Tensor:
    """Returns estimates that differ from time to time and follow no polynomial."""
    return torch.tensor([math.sin(5 * half), math.cos(3 * half) - half], dtype=torch.float64)


def last_step(sampler: Sampler, at: Halves, estimate: Callable[[float], Tensor], x_t: Tensor) -> Tensor:
    """Takes the step between the last two times from x_t, with the state that the steps before it leave."""
    state = None
    for t, s in pairwise(at.times):
        x_s, state = sampler.step(Known(at.schedule, estimate), x_t, t, s, state, refuse)
    return x_s


RATIOS = pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])


@SCHEDULES_3
@RATIOS
def test_two_m_is_the_formula_of_its_paper(schedule: Schedule, ratio: float) -> None:
    """One step from two known estimates equals Lu et al. 2022, algorithm 2, in terms of r = h_before / h."""
    h = 0.2
    at, x = Halves(schedule, (0.1 - ratio * h, 0.1, 0.1 + h)), normal(3, 2, seed=0)
    before, mean = arbitrary(at.half[0]), arbitrary(at.half[1])
    (_, sigma_t), (alpha_s, sigma_s) = at.floats(1), at.floats(2)
    extrapolated = (1 + 1 / (2 * ratio)) * mean - 1 / (2 * ratio) * before
    expected = sigma_s / sigma_t * x - alpha_s * (math.exp(-h) - 1) * extrapolated
    assert (last_step(DPMSolver(), at, arbitrary, x) - expected).abs().max() < 4e-15


@dataclass(frozen=True)
class Published3M(Sampler):
    """The third-order multistep update in the code of Lu et al., with `factor` 1; it multiplies the last of the terms.

    Without two earlier estimates it takes no step.
    """

    factor: float

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        half, half_s = (float(denoiser.schedule.log_snr(time)) / 2 for time in (t, s))
        known = [(denoiser(x_t, t).mean, half), *(state or [])][:3]
        if len(known) < 3:
            return x_t, known
        (m_0, _), (m_1, half_1), (m_2, half_2) = known
        h, h_0, h_1 = half_s - half, half - half_1, half_1 - half_2
        r_0, r_1 = h_0 / h, h_1 / h
        near, far = (m_0 - m_1) / r_0, (m_1 - m_2) / r_1
        first, second = near + r_0 / (r_0 + r_1) * (near - far), (near - far) / (r_0 + r_1)
        phi_1 = math.expm1(-h)
        phi_2 = phi_1 / h + 1
        phi_3 = phi_2 / h - 1 / 2
        (_, sigma_t), (alpha_s, sigma_s) = denoiser.schedule(t), denoiser.schedule(s)
        change = phi_1 * m_0 - phi_2 * first + self.factor * phi_3 * second
        return sigma_s / sigma_t * x_t - alpha_s * change, known[:2]


@SCHEDULES_3
@RATIOS
def test_three_m_is_its_published_code_with_twice_the_last_term(schedule: Schedule, ratio: float) -> None:
    at, x = Halves(schedule, (0.1 - 0.3 * ratio, 0.1, 0.4, 0.4 + 0.3 / ratio)), normal(3, 2, seed=0)
    found, once, twice = (last_step(each, at, arbitrary, x) for each in (DPMSolver3M(), Published3M(1), Published3M(2)))
    assert (found - twice).abs().max() < 2e-14 and (found - once).abs().max() > 1e-4


def test_the_published_three_m_is_of_second_order() -> None:
    oracle = correlated(Cosine())
    for factor, order in ((1, 2), (2, 3)):
        coarse, fine = (error_from_exact_start(Published3M(factor), oracle, uneven(Cosine(), n)) for n in (128, 256))
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.06)


# Coefficients of x̂ as a polynomial of the half log-SNR, for each of two coordinates.
COEFFICIENTS = [
    torch.tensor(c, dtype=torch.float64) for c in ([0.3, -0.2], [0.5, 0.4], [-0.7, 0.6], [0.8, -0.9], [0.0, 0.0])
]


def polynomial(degree: int) -> tuple[Callable[[float], Tensor], Callable[[float], Tensor]]:
    """Returns a polynomial x̂(ℓ) of a degree, and ∫ e^ℓ x̂ dℓ = e^ℓ Σ_k (-1)^k x̂⁽ᵏ⁾(ℓ)."""
    c = COEFFICIENTS[: degree + 1]

    def derivative(k: int, half: float) -> Tensor:
        return sum((math.perm(j, k) * half ** (j - k) * c[j] for j in range(k, degree + 1)), torch.zeros(2).double())

    return (
        lambda half: derivative(0, half),
        lambda half: math.exp(half) * sum(((-1) ** k * derivative(k, half) for k in range(degree + 1)), 0 * c[0]),
    )


HALVES = (-1.1, -0.8, -0.2, 0.0, 0.6, 0.9, 1.6)


def exact_path(schedule: Schedule, degree: int) -> list[Tensor]:
    """Returns the exact x_t at HALVES if x̂ is the polynomial of a degree: x_t / σ_t grows by ∫ e^ℓ x̂ dℓ."""
    at, (_, integral) = Halves(schedule, HALVES), polynomial(degree)
    begin = normal(3, 2, seed=1)
    return [at.floats(i)[1] * (begin + integral(half) - integral(HALVES[0])) for i, half in enumerate(HALVES)]


@SCHEDULES_3
def test_three_estimates_make_a_parabola_exact(schedule: Schedule) -> None:
    estimate, path = polynomial(2)[0], exact_path(schedule, 2)
    for i in range(2, len(HALVES) - 1):
        found = last_step(DPMSolver3M(), Halves(schedule, HALVES[: i + 2]), estimate, path[i])
        assert (found - path[i + 1]).abs().max() < 1e-13 * path[i + 1].abs().max()


@SCHEDULES_3
@pytest.mark.parametrize(("order", "predictor"), [(2, DPMSolver()), (3, DPMSolver3M())], ids=["unipc 2", "unipc 3"])
def test_the_corrector_makes_a_polynomial_of_one_degree_more_exact(
    schedule: Schedule, order: int, predictor: Sampler
) -> None:
    """From the x_t that the predictor makes of an exact one the corrector goes back to the exact path, so that the x_s
    is what the predictor makes of the exact x_t.
    """
    estimate, path = polynomial(order)[0], exact_path(schedule, order)
    predicted = [last_step(predictor, Halves(schedule, HALVES[: i + 2]), estimate, x) for i, x in enumerate(path[:-1])]
    for i in range(order, len(HALVES) - 1):
        assert (predicted[i] - path[i + 1]).abs().max() > 1e-4 * path[i + 1].abs().max(), "and the predictor errs"
        found = last_step(UniPC(order), Halves(schedule, HALVES[: i + 2]), estimate, predicted[i - 1])
        assert (found - predicted[i]).abs().max() < 1e-13 * predicted[i].abs().max()


@SCHEDULES_3
def test_the_first_steps_of_unipc_are_the_formulas_of_its_paper(schedule: Schedule) -> None:
    """They are Zhao et al. 2023 with B₂(h) and data prediction: UniP-1, then UniC-1 and UniP-2, with weight ½ of the
    differences.
    """
    at, x = Halves(schedule, (-0.6, 0.1, 0.4)), normal(3, 2, seed=0)
    m_0, m_1 = arbitrary(at.half[0]), arbitrary(at.half[1])
    (_, sigma_0), (alpha_1, sigma_1), (alpha_2, sigma_2) = (at.floats(i) for i in range(3))
    b_0, b_1 = math.expm1(-0.7), math.expm1(-0.3)
    known = Known(schedule, arbitrary)
    x_1, state = UniPC().step(known, x, *at.times[:2], None, refuse)
    assert torch.allclose(x_1, sigma_1 / sigma_0 * x - alpha_1 * b_0 * m_0, rtol=1e-14, atol=1e-15)
    corrected = x_1 - alpha_1 * b_0 * (m_1 - m_0) / 2
    expected = sigma_2 / sigma_1 * corrected - alpha_2 * b_1 * (m_1 + (m_0 - m_1) / (-0.7 / 0.3) / 2)
    assert (UniPC().step(known, x_1, *at.times[1:], state, refuse)[0] - expected).abs().max() < 2e-15


def test_unipc_keeps_what_was_changed_between_two_steps() -> None:
    """A restoration changes x_t so: it draws the known pixels after each step."""
    at, x, moved = Halves(Cosine(), HALVES[:5]), normal(3, 2, seed=0), normal(3, 2, seed=1)
    difference = last_step(UniPC(), at, arbitrary, x + moved) - last_step(UniPC(), at, arbitrary, x)
    assert torch.allclose(difference, at.floats(4)[1] / at.floats(3)[1] * moved, rtol=1e-12)


@SCHEDULES_3
@pytest.mark.parametrize(
    ("sampler", "predictor"),
    [(DPMSolver(), None), (DPMSolver3M(), None), (UniPC(2), DPMSolver()), (UniPC(3), DPMSolver3M())],
    ids=["2m", "3m", "unipc 2", "unipc 3"],
)
def test_the_step_onto_the_clean_end_is_ddim(schedule: Schedule, sampler: Sampler, predictor: Sampler | None) -> None:
    """It starts from the x_t that a corrector leaves, which is exact if that x_t was predicted from an exact one."""
    degree = sampler.order if isinstance(sampler, UniPC) else 2
    known, path = Known(schedule, polynomial(degree)[0]), exact_path(schedule, degree)
    times, x_t = torch.cat([Halves(schedule, HALVES).times, torch.zeros(1, dtype=torch.float64)]), path[-1]
    if predictor is not None:
        x_t = last_step(predictor, Halves(schedule, HALVES), known.estimate, path[-2])
    state = None
    for t, s in pairwise(times):
        x_s, state = sampler.step(known, x_t, t, s, state, refuse)
    expected = DDIM().step(known, path[-1], *times[-2:], None, refuse)[0]
    assert torch.allclose(x_s, expected, rtol=1e-12, atol=1e-14)


@ALL
def test_a_whole_trajectory_gives_the_distribution_of_the_data(name: str) -> None:
    """It goes from the prior at t = 1 to the clean end on the default grid, as for a user."""
    schedule = Cosine()
    oracle = correlated(schedule)
    times = UniformLogSNR()(schedule, 128)
    start = schedule(times[0])[1] ** 2 * torch.eye(2, dtype=torch.float64)
    produced = affine(lambda x, randn: sample(oracle, SAMPLERS[name](), x, times, randn=randn), (2,))
    mean, covariance = produced.moments(torch.zeros(2, dtype=torch.float64), start)
    bound = 0.12 if EXPECTED[name].weak == 1 else 0.012
    assert (mean - oracle.mean).abs().max() < 2e-3
    assert (covariance - oracle.covariance).abs().max() / oracle.covariance.abs().max() < bound


@SCHEDULES_3
def test_ddpm_is_ddim_with_eta_one(schedule: Schedule) -> None:
    oracle = correlated(schedule, (1, 2, 2))
    seeds, times = [1, 2, 3], UniformLogSNR()(schedule, 20)
    x = prior(oracle, ExampleNoise([4, 5, 6])(torch.zeros(3, 1, 2, 2, dtype=torch.float64)), times[0])
    a, b = (sample(oracle, s, x, times, randn=ExampleNoise(seeds)) for s in (DDPM(variance_interp=0.0), DDIM(eta=1.0)))
    assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_sde_solver_is_dpm_solver_with_eta_one_and_no_noise_is_drawn_at_eta_zero() -> None:
    oracle = correlated(Cosine())
    x, times = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double(), grid(Cosine(), 10)
    a, b = (sample(oracle, s, x, times, randn=ExampleNoise([1, 2, 3])) for s in (SDESolver(), DPMSolver(eta=1.0)))
    assert torch.equal(a, b)
    plain = sample(oracle, DPMSolver(), x, times, randn=refuse)
    nearly = sample(oracle, DPMSolver(eta=1e-12), x, times, randn=ExampleNoise([1, 2, 3]))
    assert torch.allclose(plain, nearly, atol=1e-4) and not torch.allclose(plain, a, atol=1e-2)
    for name, expected in EXPECTED.items():
        if expected.path is not None:
            sample(oracle, SAMPLERS[name](), x, times, randn=refuse)


@SCHEDULES_3
@pytest.mark.parametrize("sampler", [DDPM(), DDIM(1.0), SDESolver()], ids=["ddpm", "ddim eta 1", "2m sde"])
def test_the_noise_of_a_step_is_added_with_the_variance_of_the_posterior(schedule: Schedule, sampler: Sampler) -> None:
    """The variance is σ_s² (1 - SNR_t / SNR_s)."""
    oracle, x, noise = correlated(schedule), normal(3, 2, seed=0), normal(3, 2, seed=1)
    t, s = grid(schedule, 4)[1:3]
    quiet, noisy = (sampler.step(oracle, x, t, s, None, lambda _, z=z: z)[0] for z in (0 * noise, noise))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    deviation = sigma_s * (1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2).sqrt()
    assert torch.allclose(noisy - quiet, deviation * noise, rtol=1e-9)


@pytest.mark.parametrize("sampler", [DPMSolver(), DPMSolver3M(), UniPC()], ids=["2m", "3m", "unipc"])
def test_the_first_step_of_a_multistep_sampler_is_ddim(sampler: Sampler) -> None:
    oracle, times = correlated(Cosine()), grid(Cosine(), 10)[:2]
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(sample(oracle, sampler, x, times), sample(oracle, DDIM(), x, times), rtol=1e-12)


def test_churn_stays_within_its_interval_and_limit() -> None:
    oracle, x = correlated(EDM()), torch.ones(1, 2, dtype=torch.float64)
    schedule = oracle.schedule
    sigmas = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    times, drawn = schedule.time(-2 * sigmas.log()), []

    def randn(like: Tensor) -> Tensor:
        drawn.append(1)
        return torch.zeros_like(like)

    sample(oracle, Heun(churn=0.1, churn_min=0.5, churn_max=5.0), x, times, randn=randn)
    assert len(drawn) == 2, "where σ/α is 3 and 1"
    seen: list[float] = []

    class Spy:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> object:
            seen.append(float(schedule(t)[1]))
            return oracle(x_t, t)

    sample(Spy(), Heun(churn=9.0), x, times[:2], randn=randn)
    assert seen == pytest.approx([10 * math.sqrt(2), 3.0], rel=1e-9), "at most a factor √2"


@ALL
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    means = torch.tensor([[-1.0, 0.5], [1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    oracle = MixtureOracle(Cosine(), means, 0.02, torch.full((3,), 1 / 3, dtype=torch.float64))
    times = UniformLogSNR()(oracle.schedule, 12)

    def run(numbers: list[int]) -> Tensor:
        noise = ExampleNoise([example_seed(0, i) for i in numbers])
        x = prior(oracle, noise(torch.zeros(len(numbers), 2, dtype=torch.float64)), times[0])
        return sample(oracle, SAMPLERS[name](), x, times, randn=noise)

    whole = run(list(range(7)))
    for part in ([0], [6], [2, 3, 4]):
        assert torch.allclose(run(part), whole[part], rtol=0, atol=1e-12)
    assert whole.std(0).min() > 0.1, "and examples differ"


@ALL
def test_the_last_of_the_trajectory_is_the_sample(name: str) -> None:
    oracle, times = correlated(Cosine()), UniformLogSNR()(Cosine(), 9)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    path = list(trajectory(oracle, SAMPLERS[name](), x, times, randn=ExampleNoise([1, 2, 3])))
    assert len(path) == 10 and path[0] is x
    assert torch.equal(path[-1], sample(oracle, SAMPLERS[name](), x, times, randn=ExampleNoise([1, 2, 3])))


@ALL
def test_labels_reach_the_denoiser(name: str) -> None:
    means = torch.tensor([[-1.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
    oracle = MixtureOracle(Cosine(), means, 1e-4, torch.tensor([0.5, 0.5], dtype=torch.float64))
    label, times = torch.tensor([0, 1, 1, 0]), UniformLogSNR()(Cosine(), 60)
    x = prior(oracle, ExampleNoise([1, 2, 3, 4])(torch.zeros(4, 2, dtype=torch.float64)), times[0])
    result = sample(oracle, SAMPLERS[name](), x, times, label=label, randn=ExampleNoise([5, 6, 7, 8]))
    assert (result - means[label]).abs().max() < 0.08, "five standard deviations, and the first-order samplers' error"


@SCHEDULES_3
def test_the_step_of_heun_onto_the_clean_end_is_ddim_with_one_evaluation(schedule: Schedule) -> None:
    oracle, x, seen = correlated(schedule), normal(3, 2, seed=0), []
    t, s = (torch.tensor(v, dtype=torch.float64) for v in (0.2, 0.0))

    class Spy:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> object:
            seen.append(float(t))
            return oracle(x_t, t)

    found = Heun().step(Spy(), x, t, s, None, refuse)[0]
    assert seen == [0.2] and torch.allclose(found, DDIM().step(oracle, x, t, s, None, refuse)[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("churn_min", "churn_max", "churned"), [(0, 0, True), (0, 9, True), (-1, 0, True), (1, 9, False)]
)
def test_the_interval_of_churn_has_both_of_its_ends(churn_min: int, churn_max: int, churned: bool) -> None:
    """`churn_min` and `churn_max` are offsets from the very σ/α at t."""
    oracle = correlated(Flow())
    t, s = (torch.tensor(v, dtype=torch.float64) for v in (0.75, 0.5))
    alpha, sigma = (float(v) for v in oracle.schedule(t))
    heun, drawn = Heun(0.1, sigma / alpha + churn_min, sigma / alpha + churn_max), []

    def randn(like: Tensor) -> Tensor:
        drawn.append(1)
        return torch.zeros_like(like)

    heun.step(oracle, torch.ones(1, 2, dtype=torch.float64), t, s, None, randn)
    assert bool(drawn) == churned


def test_the_noise_of_churn_is_what_the_higher_sigma_adds() -> None:
    """In units of α the variance grows from σ² to (1 + churn)² σ²; the added part is multiplied by S_noise²."""
    schedule, churn, churn_noise = EDM(), 0.2, 1.1
    t, s = (schedule.time(-2 * torch.tensor(v, dtype=torch.float64).log()) for v in (2.0, 1.0))
    x, noise = normal(3, 2, seed=0), normal(3, 2, seed=1)
    seen: list[Tensor] = []

    class Spy:
        def __init__(self) -> None:
            self.schedule = schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            seen.append(x_t)
            return Prediction(torch.zeros_like(x_t))

    Heun(churn, churn_noise=churn_noise).step(Spy(), x, t, s, None, lambda _: noise)
    added = churn_noise * math.sqrt((2 * (1 + churn)) ** 2 - 2**2)
    assert torch.allclose(seen[0], x + added * noise, rtol=1e-9)


def test_evaluations_per_step_are_counted() -> None:
    oracle, x, times = correlated(Cosine()), torch.ones(1, 2, dtype=torch.float64), grid(Cosine(), 5)
    for cls in SAMPLERS.values():
        calls: list[int] = []

        class Counter:
            schedule = oracle.schedule

            def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None, calls: list[int] = calls) -> object:
                calls.append(1)
                return oracle(x_t, t)

        sample(Counter(), cls(), x, times)
        assert len(calls) == 5 * cls().nfe_per_step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDPM(variance_interp=1.5), "variance_interp: must be in [0, 1], got 1.5"),
        (lambda: DDPM(variance_interp=-0.5), "variance_interp: must be in [0, 1], got -0.5"),
        (lambda: DDIM(eta=-0.1), "eta: must be in [0, 1], got -0.1"),
        (lambda: DDIM(eta=1.1), "eta: must be in [0, 1], got 1.1"),
        (lambda: DPMSolver(eta=-0.1), "eta: must be in [0, 1], got -0.1"),
        (lambda: DPMSolver(eta=2.0), "eta: must be in [0, 1], got 2.0"),
        (lambda: UniPC(order=4), "sampler.order: must be 2 or 3, got 4"),
        (lambda: Heun(churn=-1.0), "churn: must be 0 or more, got -1.0"),
        (
            lambda: Heun(churn_min=2.0, churn_max=1.0),
            "churn_min, sampler.churn_max: must be 0 <= min <= max, got (2.0, 1.0)",
        ),
        (
            lambda: sample(correlated(Cosine()), DDIM(), torch.ones(1, 2), torch.tensor([0.0, 0.5, 1.0])),
            "times: must decrease strictly, got 0 followed by 0.5",
        ),
        (
            lambda: sample(correlated(Cosine()), DDIM(), torch.ones(1, 2), torch.tensor([1.0, 0.5, 0.5])),
            "decrease strictly",
        ),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
