"""The exact denoiser of a Swiss roll against the density of what is noised."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from diffusion.data import DataSpec, SwissRoll
from diffusion.data.sources import DataOptions
from diffusion.evaluation.exact import RollDenoiser, exact_denoiser
from diffusion.schedules import EDM, Cosine

ROLL = DataOptions(source="swiss_roll")
POINTS = DataSpec((2,), None)


@pytest.mark.parametrize("log_snr", [-2.0, 3.0, 8.0])
def test_it_is_the_mean_that_the_score_of_x_t_tells(log_snr: float) -> None:
    """E[x|x_t] = (x_t + sigma^2 score)/alpha; x_t/alpha is a roll of more noise, in other units, of known density."""
    schedule, roll = Cosine(12.0, -12.0), SwissRoll()
    t = schedule.time(torch.tensor(log_snr, dtype=torch.float64))
    alpha, sigma = schedule(t)
    ratio = float(sigma / alpha)
    wider = SwissRoll(math.hypot(roll.noise, roll.scale * ratio))
    y = roll.sample(50, torch.Generator().manual_seed(0)) + ratio * torch.randn(
        50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    leaf = y.clone().requires_grad_()
    (score,) = torch.autograd.grad(wider.log_density(leaf * roll.scale / wider.scale).sum(), leaf)
    found = RollDenoiser(roll, schedule)(alpha * y, t).mean
    torch.testing.assert_close(found, y + ratio**2 * score, rtol=1e-5, atol=1e-5)


def test_only_a_roll_in_its_own_units_has_one() -> None:
    assert isinstance(exact_denoiser(ROLL, POINTS, EDM()), RollDenoiser)
    found = exact_denoiser(replace(ROLL, noise=0.1), POINTS, EDM())
    assert isinstance(found, RollDenoiser) and found.roll.noise == 0.1
    assert exact_denoiser(ROLL, replace(POINTS, std=2.0), EDM()) is None
    assert exact_denoiser(DataOptions(source="lattice"), POINTS, EDM()) is None
