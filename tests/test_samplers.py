"""Samplers converge at the order they claim, measured on Gaussian data where the answer is known and no noise is drawn.

With a Gaussian oracle every sampler is an affine map of its start and its noises. `affine` reads that map off one
batch, so the mean and covariance of what a stochastic sampler produces are exact: its weak order shows without Monte
Carlo.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.grids import UniformLogSNR
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.samplers import DDIM, DDPM, SAMPLERS, DPMSolver, Heun, Sampler, SDESolver, prior, sample, trajectory
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, MixtureOracle, affine, correlated

# The order of every registered sampler with its default options, and a bound on the relative error of the covariance
# after 64 steps from log-SNR -4 to 4.
EXPECTED: dict[str, tuple[int, float]] = {
    "ddpm": (1, 6.5e-2),
    "ddim": (1, 3.3e-2),
    "heun": (2, 1.1e-3),
    "dpmpp_2m": (2, 4e-4),
    "dpmpp_2m_sde": (2, 1.1e-3),
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
SCHEDULES_3 = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])
SHAPES = pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=["points", "images"])


def grid(schedule: Schedule, steps: int, first: float = -4.0, last: float = 4.0) -> Tensor:
    """Even in log-SNR and not up to the clean end, where the last step is of first order by design."""
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
    assert_order(lambda steps: covariance_error(SAMPLERS[name](), oracle, grid(schedule, steps)), *EXPECTED[name])


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


@ALL
def test_a_whole_trajectory_gives_the_law_of_the_data(name: str) -> None:
    """From the prior at t = 1 to the clean end on the default grid: what a user gets."""
    schedule = Cosine()
    oracle = correlated(schedule)
    times = UniformLogSNR()(schedule, 128)
    start = schedule(times[0])[1] ** 2 * torch.eye(2, dtype=torch.float64)
    produced = affine(lambda x, randn: sample(oracle, SAMPLERS[name](), x, times, randn=randn), (2,))
    mean, covariance = produced.moments(torch.zeros(2, dtype=torch.float64), start)
    order = EXPECTED[name][0]
    assert (mean - oracle.mean).abs().max() < 2e-3
    assert ((covariance - oracle.covariance).abs().max() / oracle.covariance.abs().max()) < {1: 0.12, 2: 0.012}[order]


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

    def refuse(like: Tensor) -> Tensor:
        raise AssertionError("a deterministic sampler drew noise")

    plain = sample(oracle, DPMSolver(), x, times, randn=refuse)
    nearly = sample(oracle, DPMSolver(eta=1e-12), x, times, randn=ExampleNoise([1, 2, 3]))
    assert torch.allclose(plain, nearly, atol=1e-4) and not torch.allclose(plain, a, atol=1e-2)
    sample(oracle, DDIM(), x, times, randn=refuse)
    sample(oracle, Heun(), x, times, randn=refuse)


def test_first_step_of_two_m_is_ddim() -> None:
    oracle, times = correlated(Cosine()), grid(Cosine(), 10)[:2]
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    assert torch.allclose(sample(oracle, DPMSolver(), x, times), sample(oracle, DDIM(), x, times), rtol=1e-12)


def test_churn_stays_within_its_interval_and_limit() -> None:
    oracle, x = correlated(EDM()), torch.ones(1, 2, dtype=torch.float64)
    schedule = oracle.schedule
    levels = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    times, drawn = schedule.time(-2 * levels.log()), []

    def randn(like: Tensor) -> Tensor:
        drawn.append(1)
        return torch.zeros_like(like)

    sample(oracle, Heun(churn=0.1, churn_min=0.5, churn_max=5.0), x, times, randn=randn)
    assert len(drawn) == 2, "at the levels 3 and 1"
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


def test_calls_per_step_are_counted() -> None:
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
        (lambda: DDIM(eta=-0.1), "eta: must be in [0, 1], got -0.1"),
        (lambda: DPMSolver(eta=2.0), "eta: must be in [0, 1], got 2.0"),
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
