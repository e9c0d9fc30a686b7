"""Sampling through holes: what is seen has its own distribution, and what is hidden is the mean given that."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffusion import levels
from diffusion.denoiser import Prediction
from diffusion.grids import UniformLogSNR
from diffusion.guidance import LastEstimate
from diffusion.holes import ThroughHoles
from diffusion.samplers import Heun, prior, sample
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, correlated

SHAPE = (1, 2, 3)
SEEN = torch.tensor([[[[True, False, True], [False, True, True]]]])
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])


@dataclass(frozen=True)
class Shown:
    """An oracle that is shown what a network is: 0 in place of pixels that nobody has seen."""

    oracle: GaussianOracle

    @property
    def schedule(self) -> Schedule:
        return self.oracle.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return self.oracle(levels.shown(x_t, t), t)


@SCHEDULES
def test_a_trajectory_is_that_of_what_is_seen_and_ends_with_the_mean_of_the_rest(schedule: Schedule) -> None:
    """Up to the signal that is left at the noisy end, e^(λ/2) of the noise; the rest is a linear regression."""
    oracle, shown = correlated(schedule, SHAPE), SEEN.flatten()
    mean, covariance = oracle.mean.flatten(), oracle.covariance
    own = GaussianOracle(schedule, mean[shown], covariance[shown][:, shown])
    times = UniformLogSNR(last=12.0)(schedule, 40)
    noise = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    through = LastEstimate(ThroughHoles(Shown(oracle), SEEN.expand(5, -1, -1, -1)))
    sample(through, Heun(), prior(through, noise, times[0]), times)
    found = through.mean.flatten(1)
    alone = LastEstimate(own)
    sample(alone, Heun(), prior(alone, noise.flatten(1)[:, shown], times[0]), times)
    left = 5 * float(torch.tensor(schedule.log_snr_min / 2).exp())
    assert (found[:, shown] - alone.mean).abs().max() < left
    gain = torch.linalg.solve(covariance[shown][:, shown], covariance[shown][:, ~shown])
    expected = mean[~shown] + (found[:, shown] - mean[shown]) @ gain
    assert (found[:, ~shown] - expected).abs().max() < left
    whole = LastEstimate(oracle)
    sample(whole, Heun(), prior(whole, noise, times[0]), times)
    assert (whole.mean.flatten(1) - found).abs().max() > 0.3, "without holes they are other samples"


def test_every_example_has_its_own_holes_and_time() -> None:
    oracle = correlated(Cosine(), SHAPE)
    x_t, t = torch.randn(2, *SHAPE, dtype=torch.float64), torch.tensor([0.3, 0.6], dtype=torch.float64)
    seen = torch.cat([SEEN, ~SEEN])
    found = ThroughHoles(oracle, seen)(x_t, t).mean
    for row in range(2):
        times = torch.where(seen[row : row + 1], t[row], levels.UNSEEN)
        assert torch.equal(found[row : row + 1], oracle(x_t[row : row + 1], times).mean)
