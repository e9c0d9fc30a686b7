"""Measurements at fixed levels against Gaussians, which a few points integrate exactly."""

from __future__ import annotations

import pytest
import torch

from diffusion.schedules import EDM, Cosine, Flow, Schedule, VariancePreserving
from diffusion.thermodynamics.balance import balance
from diffusion.thermodynamics.levels import at_levels, misses, velocity
from tests.oracles import GaussianOracle, correlated, sigma_points

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(8.0, -8.0), EDM(0.02, 20.0), Flow(0.02, 0.02)], ids=str)


@SCHEDULES
def test_error_and_speed_are_those_of_the_balance(schedule: Schedule) -> None:
    """Both are quadratic in x and its noise."""
    oracle = correlated(schedule, (2,))
    points = sigma_points(4)
    values, vectors = oracle.eigen
    x = oracle.mean + points[:, :2] @ (vectors * values.sqrt()).mT
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 9, dtype=torch.float64)
    error, squares = at_levels(oracle, x, log_snr, dtype=torch.float64, randn=lambda like: points[:, 2:])
    exact = oracle.error(schedule.time(log_snr))
    torch.testing.assert_close(error.mean(0), exact, rtol=1e-9, atol=1e-12)
    moment = float(oracle.mean.square().sum() + values.sum())
    expected = balance(VariancePreserving(schedule), log_snr, exact, moment, 2).transport
    torch.testing.assert_close(squares.mean(0), expected, rtol=1e-8, atol=1e-11)


@SCHEDULES
def test_the_velocity_is_that_of_the_exact_flow(schedule: Schedule) -> None:
    oracle: GaussianOracle = correlated(schedule, (2,))
    t, step = torch.tensor(0.4, dtype=torch.float64), 1e-5
    x_t = torch.tensor([[0.3, -0.7], [1.1, 0.2]], dtype=torch.float64)
    span = schedule.log_snr(t - step) - schedule.log_snr(t + step)
    moved = (oracle.flow(x_t, t, t + step) - oracle.flow(x_t, t, t - step)) / span
    torch.testing.assert_close(velocity(schedule, x_t, oracle(x_t, t).mean, t), moved, rtol=1e-6, atol=1e-8)


@SCHEDULES
def test_what_a_denoiser_misses_is_its_error_less_the_least(schedule: Schedule) -> None:
    oracle, points = correlated(schedule, (2,)), sigma_points(4)
    wrong = GaussianOracle(schedule, oracle.mean + 0.3, 1.5 * oracle.covariance)
    values, vectors = oracle.eigen
    x = oracle.mean + points[:, :2] @ (vectors * values.sqrt()).mT
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 7, dtype=torch.float64)
    own, least = (
        at_levels(each, x, log_snr, dtype=torch.float64, randn=lambda like: points[:, 2:])[0].mean(0)
        for each in (wrong, oracle)
    )
    found = misses(wrong, oracle, x, log_snr, dtype=torch.float64, randn=lambda like: points[:, 2:]).mean(0)
    torch.testing.assert_close(found, own - least, rtol=1e-7, atol=1e-10)
