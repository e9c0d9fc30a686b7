"""Timestep grids: where they begin and end, how they are spaced, and that a measured one is the best for its solver."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.grids import (
    GRIDS,
    EqualDissipation,
    Grid,
    Karras,
    Tabulated,
    UniformLogSNR,
    UniformTime,
    check_decreasing,
    interp,
    measure,
    measure_dissipation,
)
from diffusion.likelihood.bound import bound
from diffusion.samplers import DDIM, sample
from diffusion.schedules import EDM, SCHEDULES, Cosine, DiscreteBetas, Schedule
from tests.oracles import GaussianOracle, correlated


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("grid_name", GRIDS)
@pytest.mark.parametrize("schedule", [pytest.param(cls(), id=name) for name, cls in SCHEDULES.items()])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_grids_decrease_to_the_clean_end(grid_name: str, schedule: Schedule, steps: int) -> None:
    times = GRIDS[grid_name]()(schedule, steps)
    assert times.dtype == torch.float64 and len(times) == steps + 1
    assert (times.diff() < 0).all() and times[-1] == 0 and times[0] <= 1


@pytest.mark.parametrize("make", [lambda: UniformLogSNR(last=40.0), lambda: Karras(sigma_min=1e-6, sigma_max=1e6)])
def test_grids_beyond_the_schedule_are_cut_to_it(make: Callable[[], Grid]) -> None:
    times = make()(Cosine(), 50)
    assert times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all() and len(times) <= 51


def test_uniform_grid_is_even_in_log_snr() -> None:
    schedule = Cosine()
    log_snr = schedule.log_snr(UniformLogSNR()(schedule, 50))
    assert torch.allclose(log_snr, torch.linspace(-13.3, 13.3, 51, dtype=torch.float64), rtol=0, atol=1e-6)
    cut = schedule.log_snr(UniformLogSNR(first=-5.0, last=5.0)(schedule, 11))
    assert torch.allclose(cut[:-1], torch.linspace(-5, 5, 11, dtype=torch.float64), rtol=0, atol=1e-9)
    assert cut[-1] == schedule.log_snr_max


def test_even_times_are_the_steps_of_a_table() -> None:
    schedule = DiscreteBetas(betas=(0.01, 0.3, 0.2, 0.9))
    log_snr = schedule.log_snr(UniformTime()(schedule, 3))
    assert torch.allclose(log_snr, schedule.table.flip(0), rtol=1e-12)


@pytest.mark.parametrize("rho", [1.0, 7.0])
def test_karras_grid_is_equation_5(rho: float) -> None:
    steps, low, high = 18, 0.002, 80.0
    times = Karras(rho=rho, sigma_min=low, sigma_max=high)(EDM(sigma_min=0.001, sigma_max=100.0), steps)
    _, sigma = EDM(sigma_min=0.001, sigma_max=100.0)(times)
    expected = [
        (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(steps)
    ]
    assert sigma.tolist() == pytest.approx([*expected, 0.001], rel=1e-9)


def test_a_table_is_walked_evenly() -> None:
    table = (-6.0, -2.0, 0.0, 1.0, 5.0)
    log_snr = Cosine().log_snr(Tabulated(table)(Cosine(), 9))
    expected = [-6.0, -4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0, 5.0, 13.3]
    assert log_snr.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_measured_density_is_the_root_of_how_fast_the_estimate_moves() -> None:
    """For N(0, c) the estimate along a path is proportional to (c + e^-2ℓ)^(-1/2), whose derivative is known."""
    c, first, last = 0.3, -6.0, 7.0
    oracle = GaussianOracle(EDM(), torch.zeros(1, dtype=torch.float64), torch.full((1, 1), c, dtype=torch.float64))
    table = torch.tensor(measure(oracle, normal(4, 1), first=first, last=last, resolution=400).log_snr)
    level = torch.linspace(first, last, 20_001, dtype=torch.float64)
    noise = torch.exp(-level)
    density = (noise * (c + noise) ** -1.5).sqrt()
    share = torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(density, level)])
    found = interp(table.double(), level, share / share[-1])
    assert torch.allclose(found, torch.linspace(0, 1, len(table), dtype=torch.float64), atol=2e-3, rtol=0)


def test_a_measurement_starts_with_the_noise_of_the_first_time_and_takes_one_evaluation_per_step() -> None:
    schedule, noise = EDM(), normal(3, 2)
    oracle, seen = correlated(schedule), []

    class Watched:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            seen.append((x_t, t))
            return oracle(x_t, t)

    measure(Watched(), noise, first=-4.0, last=4.0, resolution=5)
    log_snr = schedule.log_snr(torch.stack([t for _, t in seen]))
    assert torch.allclose(log_snr, torch.linspace(-4, 4, 5, dtype=torch.float64), rtol=0, atol=1e-9)
    assert torch.allclose(seen[0][0], math.exp(2) * noise, rtol=1e-9), "sigma is e^(-log-SNR / 2)"


def table(*variances: float, entries: int = 901) -> EqualDissipation:
    """The grid for independent Gaussian coordinates of given variances, whose mean square error is c / (1 + c SNR)."""
    log_snr = torch.linspace(-15, 15, entries, dtype=torch.float64)
    errors = torch.stack([c / (1 + c * log_snr.exp()) for c in variances])
    return EqualDissipation(tuple(log_snr.tolist()), tuple(errors.mean(0).tolist()))


def dissipated(log_snr: Tensor, *variances: float) -> Tensor:
    """What each step dissipates per coordinate: ½ (r - 1 - log r), where r = (1 + c SNR_s) / (1 + c SNR_t)."""
    ratio = torch.stack([(1 + c * log_snr[1:].exp()) / (1 + c * log_snr[:-1].exp()) for c in variances])
    return ((ratio - 1 - ratio.log()) / 2).mean(0)


@pytest.mark.parametrize("variances", [(1.0,), (0.02,), (25.0, 1.0, 1e-3)], ids=["one", "small", "three"])
@pytest.mark.parametrize("steps", [2, 5, 20, 100, 500])
def test_every_step_of_the_grid_of_equal_dissipation_dissipates_the_same(
    variances: tuple[float, ...], steps: int
) -> None:
    schedule, grid = EDM(), table(*variances)
    log_snr = schedule.log_snr(grid(schedule, steps))
    own = grid.dissipation(log_snr)
    assert own.max() / own.min() - 1 < 1e-4, "as the table has it"
    # Between the entries of the table log m is linear.
    exact = dissipated(log_snr, *variances)
    assert torch.allclose(own, exact, rtol=1e-2)
    assert exact.max() / exact.min() - 1 < 0.02


@pytest.mark.parametrize("steps", [2, 5, 20, 100])
def test_for_one_variance_the_grid_is_geometric_in_that_of_x_t(steps: int) -> None:
    """½ (r - 1 - log r) is convex in log r, so that equal ratios r of 1 + c SNR are equal and least at once."""
    c, schedule = 0.02, EDM()
    log_snr = schedule.log_snr(table(c)(schedule, steps))
    ends = torch.log1p(c * log_snr[[0, -1]].exp())
    even = torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)
    assert torch.allclose(log_snr[1:-1], (torch.expm1(even) / c).log()[1:-1], rtol=0, atol=1e-3)


def least(variances: tuple[float, ...], log_snr: Tensor) -> float:
    """The least that steps between the ends of `log_snr`, as many as these, dissipate in all, by Newton's method."""

    def total(inside: Tensor) -> Tensor:
        return dissipated(torch.cat([log_snr[:1], inside, log_snr[-1:]]), *variances).sum()

    inside = log_snr[1:-1].clone().requires_grad_()
    for _ in range(40):
        (slope,) = torch.autograd.grad(total(inside), inside)
        move = torch.linalg.solve(torch.func.hessian(total)(inside.detach()), slope)
        inside = (inside - move * min(1.0, 0.3 / float(move.abs().max()))).detach().requires_grad_()
    assert float(slope.abs().max()) < 1e-9
    return float(total(inside).detach())


@pytest.mark.parametrize(("steps", "excess"), [(8, 0.31), (20, 0.04), (100, 1e-3)])
def test_no_other_grid_of_as_many_steps_dissipates_less(steps: int, excess: float) -> None:
    """Exactly so for one variance. For several it holds to leading order in the length of steps."""
    schedule = EDM()
    for variances in ((1.0,), (25.0, 1.0, 1e-3)):
        log_snr = schedule.log_snr(table(*variances)(schedule, steps))
        total = float(dissipated(log_snr, *variances).sum())
        for other in (UniformLogSNR(), Karras(sigma_min=0.003, sigma_max=80.0), UniformTime()):
            assert total < dissipated(schedule.log_snr(other(schedule, steps)), *variances).sum()
        if len(variances) > 1:
            lowest = least(variances, log_snr)
            assert lowest <= total * (1 + 1e-9) and total / lowest - 1 < excess
            continue
        ratio = torch.log1p(log_snr[[0, -1]].exp()).diff() / steps
        assert total == pytest.approx(steps * float(torch.expm1(ratio) - ratio) / 2, rel=1e-6)
        for seed in range(20):
            moved = log_snr.clone()
            moved[1:-1] += 0.1 * log_snr.diff().min() * normal(steps - 1, seed=seed).clamp(-4, 4)
            assert dissipated(moved, *variances).sum() > total


@pytest.mark.parametrize("variances", [(1.0,), (25.0, 1.0, 1e-3)], ids=["one", "three"])
def test_the_total_approaches_the_square_of_the_length_over_the_number_of_steps(variances: tuple[float, ...]) -> None:
    """The length is ∫ √ζ dλ with ζ = -¼ SNR dm/dλ = ¼ mean (c SNR / (1 + c SNR))²."""
    schedule, grid = EDM(), table(*variances)
    level = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 20_001, dtype=torch.float64)
    share = torch.stack([torch.sigmoid(level + math.log(c)) for c in variances])
    length = float(torch.trapezoid(share.square().mean(0).sqrt() / 2, level))
    gaps = []
    for steps in (50, 100, 200):
        log_snr = schedule.log_snr(grid(schedule, steps))
        gaps.append(steps * float(dissipated(log_snr, *variances).sum()) / length**2 - 1)
    # First order in 1/steps.
    assert gaps[2] < 0.04 and [gaps[0] / gaps[1], gaps[1] / gaps[2]] == pytest.approx([2, 2], rel=0.06)


def test_ends_of_the_grid_of_equal_dissipation() -> None:
    schedule, grid = EDM(), replace(table(1.0), first=-3.0, last=4.0)
    log_snr = schedule.log_snr(grid(schedule, 6))
    assert log_snr[[0, -2, -1]].tolist() == pytest.approx([-3, 4, schedule.log_snr_max], abs=1e-9)
    own = grid.dissipation(log_snr[:-1])
    assert own.max() / own.min() - 1 < 1e-4, "without the jump to the clean end"
    assert float(replace(grid, first=-99.0)(schedule, 6)[0]) == 1


def test_the_table_goes_on_as_data_with_a_density_do() -> None:
    """Below, the error is constant and nothing is dissipated. Above, it is 1/SNR and each e-fold dissipates alike."""
    grid = EqualDissipation((0.0, 1.0), (0.5, 0.25))
    one = EqualDissipation((0.0, 1.0), (0.5, 0.25), last=4.0)(Cosine(), 1)
    assert torch.equal(one, UniformLogSNR(last=4.0)(Cosine(), 1)), "one step has only its jump to the clean end"
    assert float(grid.dissipation(torch.tensor([-5.0, -3.0]).double())) == pytest.approx(0, abs=1e-16)
    above = torch.tensor([3.0, 4.0, 5.0]).double()
    # ½ (SNR_s - SNR_t) m_t - ½ ∫ m dSNR with m = 0.25 e / SNR.
    assert grid.dissipation(above).tolist() == pytest.approx([0.125 * math.e * (math.e - 2)] * 2)


def test_the_measured_error_is_that_of_the_denoiser_and_its_grid_that_of_the_closed_form() -> None:
    schedule = EDM()
    oracle = correlated(schedule, (6,), low=0.01, high=2.0)
    x = oracle.sample(4096, torch.Generator().manual_seed(0))
    grid = measure_dissipation(oracle, x, normal(4096, 6, seed=3))
    log_snr = torch.tensor(grid.log_snr, dtype=torch.float64)
    assert log_snr[[0, -1]].tolist() == pytest.approx([schedule.log_snr_min, schedule.log_snr_max])
    expected = oracle.error(schedule.time(log_snr)) / 6
    # Measured: within 2 % at every log-SNR.
    assert torch.allclose(torch.tensor(grid.error).double(), expected, rtol=0.04)
    found = schedule.log_snr(grid(schedule, 50))
    exact = dissipated(found, *oracle.eigen[0].tolist())
    assert exact.std() / exact.mean() < 0.15
    assert exact.sum() < 1.02 * least(tuple(oracle.eigen[0].tolist()), found)


def test_the_bound_is_nearer_to_its_limit_on_the_grid_of_equal_dissipation() -> None:
    """The bound at T steps is its limit and what they dissipate, for the exact denoiser of Gaussian data."""
    schedule = EDM()
    oracle = correlated(schedule, (6,), low=1e-3, high=1.0)
    grid = measure_dissipation(oracle, oracle.sample(256, torch.Generator().manual_seed(0)), normal(256, 6, seed=3))
    x = oracle.sample(2048, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)

    def randn(z: Tensor) -> Tensor:
        return torch.randn(z.shape, generator=generator, dtype=z.dtype)

    def total(kind: Grid, steps: int) -> float:
        return float(bound(oracle, x, kind(schedule, steps), randn=randn).total.mean())

    limit = float(oracle.nll(x).mean())
    gaps = {kind: total(kind, 64) - limit for kind in (grid, UniformLogSNR(), Karras(sigma_min=0.003))}
    expected = float(dissipated(schedule.log_snr(grid(schedule, 64)), *oracle.eigen[0].tolist()).sum()) * 6
    assert gaps[grid] == pytest.approx(expected, rel=0.1)
    assert gaps[grid] < 0.75 * min(gaps[kind] for kind in gaps if kind is not grid)


def test_an_error_that_rises_with_the_signal_is_taken_for_the_lower_one() -> None:
    class Rising:
        schedule = EDM()

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(torch.full_like(x_t, 1 if self.schedule.log_snr(t) < 0 else 2))

    grid = measure_dissipation(Rising(), torch.zeros(3, 2).double(), normal(3, 2), resolution=5)
    assert grid.error == (1.0,) * 5
    assert len(grid(EDM(), 7)) == 8, "steps that dissipate nothing are steps"


def test_interpolation_is_linear_between_points_and_constant_beyond_them() -> None:
    at, x, y = (
        torch.tensor(v).double() for v in ([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 9.0], [0.0, 1.0, 3.0], [2.0, 8.0, 0])
    )
    assert interp(at, x, y).tolist() == [2.0, 2.0, 5.0, 8.0, 4.0, 0.0, 0.0]


def test_times_that_do_not_decrease_are_named_at_the_first_of_them() -> None:
    check_decreasing(torch.tensor([1.0, 0.5, 0.4999]))
    for times in ([0.9, 0.5, 0.5, 0.6], [0.9, 0.5, 0.5]):
        with pytest.raises(ValueError, match=r"^times: must decrease strictly, got 0\.5 followed by 0\.5$"):
            check_decreasing(torch.tensor(times))


@pytest.mark.parametrize("steps", [6, 12, 24, 48])
def test_ddim_errs_less_on_a_measured_grid_than_on_others_between_the_same_ends(steps: int) -> None:
    schedule, low, high = EDM(), 0.03, 20.0
    oracle = correlated(schedule, (6,), low=0.01, high=2.0)
    first, last = -2 * math.log(high), -2 * math.log(low)
    grids = {
        "measured": measure(oracle, normal(64, 6), first=first, last=last),
        "karras": Karras(sigma_min=low, sigma_max=high),
        "uniform": UniformLogSNR(first, last),
    }
    x, error = high * normal(256, 6, seed=1), {}
    for name, grid in grids.items():
        times = grid(schedule, steps)[:-1]
        arrived = sample(oracle, DDIM(), x, times)
        error[name] = float((arrived - oracle.flow(x, times[0], times[-1])).square().mean().sqrt())
    assert error["measured"] < 0.86 * min(error["karras"], error["uniform"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformLogSNR()(Cosine(), 0), "steps: must be at least 1, got 0"),
        (lambda: Karras()(Cosine(), 0), "steps: must be at least 1, got 0"),
        (lambda: Tabulated()(Cosine(), 0), "steps: must be at least 1, got 0"),
        (lambda: Tabulated((1.0,)), "grid.log_snr: must be at least two increasing values, got (1.0,)"),
        (lambda: Tabulated((1.0, 0.0)), "grid.log_snr: must be at least two increasing values, got (1.0, 0.0)"),
        (
            lambda: Karras(sigma_min=2.0, sigma_max=1.0),
            "sigma_min, sigma_max: must be 0 < sigma_min < sigma_max, got (2.0, 1.0)",
        ),
        (
            lambda: measure(correlated(Cosine()), normal(2, 2), first=1.0, last=-1.0),
            "first, last: must be an increasing pair of log-SNRs, got (1.0, -1.0)",
        ),
        (
            lambda: measure(correlated(Cosine()), normal(2, 2), first=1.0, last=1.0),
            "first, last: must be an increasing pair of log-SNRs, got (1.0, 1.0)",
        ),
        (lambda: Karras(rho=0.0), "rho: must be a positive number, got 0.0"),
        (lambda: EqualDissipation()(Cosine(), 0), "steps: must be at least 1, got 0"),
        (lambda: EqualDissipation((1.0, 0.0), (1.0, 0.5)), "grid.log_snr: must be increasing values, got (1.0, 0.0)"),
        (lambda: EqualDissipation((), ()), "grid.log_snr: must be increasing values, got ()"),
        (
            lambda: EqualDissipation((0.0, 1.0), (0.5, 0.6)),
            "grid.error: must be 2 positive values that do not increase, got (0.5, 0.6)",
        ),
        (
            lambda: EqualDissipation((0.0, 1.0), (0.5,)),
            "grid.error: must be 2 positive values that do not increase, got (0.5,)",
        ),
        (
            lambda: EqualDissipation((0.0, 1.0), (0.5, 0.0)),
            "grid.error: must be 2 positive values that do not increase, got (0.5, 0.0)",
        ),
        (
            lambda: measure_dissipation(correlated(Cosine()), normal(2, 2), normal(2, 2), first=1.0, last=1.0),
            "first, last: must be an increasing pair of log-SNRs, got (1.0, 1.0)",
        ),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
