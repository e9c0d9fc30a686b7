"""The speed-accuracy relations on Gaussians, whose flows, distances and mismatches are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.grids import Karras, UniformLogSNR, UniformTime, interp
from diffusion.samplers import DDIM, prior, sample
from diffusion.schedules import EDM, Cosine, Flow, Schedule, VPLinear
from diffusion.thermodynamics.balance import balance
from diffusion.thermodynamics.speed import error_of_grid, largest_mismatch, timing
from tests.oracles import GaussianOracle, correlated
from tests.thermodynamics.mixtures import SECOND_MOMENT, Marginal

# Schedules whose noisy end keeps enough of the data for the start of the flow to be wrong.
SHORT = {"vp": Cosine(8.0, -1.0), "linear": VPLinear(beta_max=3.0), "ve": EDM(0.02, 2.0), "flow": Flow(0.02, 0.3)}
SCHEDULES = pytest.mark.parametrize("schedule", SHORT.values(), ids=SHORT.keys())


def gaussian(schedule: Schedule, variance: float = 0.3) -> GaussianOracle:
    spread = torch.full((1, 1), variance, dtype=torch.float64)
    return GaussianOracle(schedule, torch.zeros(1, dtype=torch.float64), spread)


def transport(oracle: GaussianOracle, points: int = 4001) -> tuple[Tensor, Tensor]:
    schedule, dim = oracle.schedule, oracle.mean.numel()
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, points, dtype=torch.float64)
    moment = float(oracle.mean.square().sum() + oracle.eigen[0].sum())
    return log_snr, balance(schedule, log_snr, oracle.error(schedule.time(log_snr)), moment, dim).transport


def pearson(oracle: GaussianOracle) -> float:
    """Returns chi^2 of N(0, sigma^2) against N(0, variance of x_T), in closed form."""
    end = torch.ones((), dtype=torch.float64)
    start, right = float(oracle.schedule(end)[1] ** 2), float(oracle.spectrum(end)[0])
    return right / math.sqrt(start * (2 * right - start)) - 1


@SCHEDULES
@pytest.mark.parametrize("variance", [0.05, 0.3, 2.0])
def test_the_dissipation_bounds_what_a_wrong_start_changes(schedule: Schedule, variance: float) -> None:
    """Equation 77, in the time of the schedule: W_1 of centered normal distributions is sqrt(2/pi) |std - std|."""
    oracle = gaussian(schedule, variance)
    one, zero = (torch.tensor(t, dtype=torch.float64) for t in (1.0, 0.0))
    right, left = oracle.spectrum(one)[0].sqrt(), oracle.spectrum(zero)[0].sqrt()
    wrong = schedule(one)[1]
    changed = math.sqrt(2 / math.pi) * abs(float((wrong - right) * left / right) - float(wrong - right))
    spent = timing(*transport(oracle), schedule.log_snr(UniformTime()(schedule, 4000)))
    assert 0 < changed <= spent.accuracy(pearson(oracle))
    assert changed**2 / pearson(oracle) > 0.005 * spent.action, "and is no empty bound"
    snr = math.exp(schedule.log_snr_min)
    assert pearson(oracle) <= largest_mismatch(snr, variance, 0.0)


@SCHEDULES
def test_the_dissipation_bounds_what_a_wrong_start_changes_for_a_mixture(schedule: Schedule) -> None:
    """In one dimension the exact flow maps quantiles to quantiles, and W_1 is the integral of |F - G|."""
    noisy, clean = (Marginal(schedule, torch.tensor(t, dtype=torch.float64)) for t in (1.0, 0.0))
    sigma = schedule(noisy.t)[1]
    # The flow takes z at the noisy end to x where F_0(x) = F_T(z); from the wrong start P(x' < x) = G(z).
    z = noisy.points
    right, wrong = noisy.below(z), torch.special.ndtr(z / sigma)
    first = float(torch.trapezoid((right - wrong).abs(), z))
    x = interp(right.clamp(1e-12, 1 - 1e-12), clean.below(clean.points), clean.points)
    last = float(torch.trapezoid((right - wrong).abs(), x))
    density = (-(z / sigma).square() / 2).exp() / (sigma * math.sqrt(2 * math.pi))
    chi = noisy.mean((density / noisy.density(z) - 1) ** 2)
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 601, dtype=torch.float64)
    mmse = torch.tensor([Marginal(schedule, t).mmse for t in schedule.time(log_snr)], dtype=torch.float64)
    squares = balance(schedule, log_snr, mmse, SECOND_MOMENT, 1).transport.clamp_min(0)
    spent = timing(log_snr, squares, schedule.log_snr(UniformTime()(schedule, 1000)))
    assert 0 < abs(last - first) <= spent.accuracy(chi) and spent.efficiency < 1
    assert chi <= largest_mismatch(math.exp(schedule.log_snr_min), SECOND_MOMENT, (0.7 * 0.8 - 0.3 * 1.2) ** 2)


@SCHEDULES
def test_the_length_in_one_dimension_is_the_distance_of_the_ends(schedule: Schedule) -> None:
    """Where the deviation grows all the way, the diffusion is a geodesic of W_2, run at an uneven speed."""
    oracle = gaussian(schedule, 0.01)
    deviation = oracle.spectrum(torch.linspace(0, 1, 1001, dtype=torch.float64))[:, 0].sqrt()
    spent = timing(*transport(oracle), schedule.log_snr(UniformTime()(schedule, 500)))
    way = float(deviation.diff().abs().sum())
    assert spent.length == pytest.approx(way, rel=1e-4)
    assert way >= abs(float(deviation[-1] - deviation[0])) - 1e-12


def test_steps_of_equal_length_are_the_most_efficient() -> None:
    schedule = Cosine(8.0, -8.0)
    log_snr, squares = transport(correlated(schedule, (3,)))
    spans = torch.cat([torch.zeros(1, dtype=torch.float64), (squares.sqrt()[1:] + squares.sqrt()[:-1]).cumsum(0)])
    best, better = (
        timing(log_snr, squares, interp(torch.linspace(0, float(spans[-1]), n, dtype=torch.float64), spans, log_snr))
        for n in (201, 801)
    )
    # Within a step the log-SNR, not the way, is linear in time; that matters less in shorter steps.
    assert 0.997 < best.efficiency < better.efficiency < 1 and 1 - better.efficiency < 0.5 * (1 - best.efficiency)
    for grid in (UniformLogSNR(), UniformTime(), Karras()):
        other = timing(log_snr, squares, schedule.log_snr(grid(schedule, 200)))
        assert other.efficiency < 0.999 * best.efficiency
        assert other.length == pytest.approx(best.length, rel=1e-3), "the way is the same"


def test_the_length_is_not_below_the_distance_of_the_ends_in_several_dimensions() -> None:
    schedule = Cosine(8.0, -8.0)
    oracle = correlated(schedule, (4,))
    spent = timing(*transport(oracle), schedule.log_snr(UniformTime()(schedule, 100)))
    one, zero = (torch.tensor(t, dtype=torch.float64) for t in (1.0, 0.0))
    deviations = oracle.spectrum(one).sqrt() - oracle.spectrum(zero).sqrt()
    means = oracle.mean * (schedule(one)[0] - schedule(zero)[0])
    distance = math.sqrt(float(deviations.square().sum() + means.square().sum()))
    assert distance < spent.length < 1.5 * distance and spent.action >= spent.length**2


def test_the_largest_mismatch_is_that_of_data_at_one_point() -> None:
    """A single point has no spread to take the mean of: chi^2 = exp(SNR x^2) - 1, in closed form."""
    snr, point = 0.3, 1.2
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    start = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    moved = (-(z - math.sqrt(snr) * point).square() / 2).exp() / math.sqrt(2 * math.pi)
    exact = float(torch.trapezoid(start.square() / moved, z)) - 1
    assert largest_mismatch(snr, point**2, point**2) == pytest.approx(exact, rel=1e-8)
    assert largest_mismatch(0.5, 3000.0, 0.0) == math.inf, "beyond what a number holds"


def test_the_error_of_a_grid_is_the_distance_to_the_exact_flow() -> None:
    """It falls as one over the steps. In one dimension it is W_1, as both ends are multiples of the noise."""
    schedule = Cosine(8.0, -8.0)
    oracle = gaussian(schedule)
    one, zero = (torch.tensor(t, dtype=torch.float64) for t in (1.0, 0.0))
    noise = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    exact = oracle.flow(prior(oracle, noise, one), one, zero)
    errors = []
    for steps in (16, 64):
        grid, finer = (UniformLogSNR()(schedule, n) for n in (steps, 64 * steps))
        found = error_of_grid(oracle, noise, grid, finer)
        drawn = sample(oracle, DDIM(), prior(oracle, noise, grid[0]), grid)
        torch.testing.assert_close(found, (drawn - exact).abs()[:, 0], rtol=0.03, atol=0.0)
        torch.testing.assert_close(found[1], 2 * found[0], rtol=1e-9, atol=0.0)
        errors.append(float(found[0]))
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(1, abs=0.15)


def test_grids_beyond_the_measured_levels_are_named() -> None:
    log_snr, squares = torch.linspace(-2, 2, 5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    with pytest.raises(InputError, match="grid: must be between the log-SNRs -2 and 2"):
        timing(log_snr, squares, torch.tensor([-3.0, 0.0]))
    with pytest.raises(InputError, match="grid: must be two or more different log-SNRs"):
        timing(log_snr, squares, torch.tensor([1.0, 1.0]))
