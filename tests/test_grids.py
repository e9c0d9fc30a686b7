"""Timestep grids: where they begin and end, how they are spaced, and that a measured one is the best for its solver."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.grids import (
    GRIDS,
    Grid,
    Karras,
    Tabulated,
    UniformLogSNR,
    UniformTime,
    check_decreasing,
    interp,
    measure,
)
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
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
