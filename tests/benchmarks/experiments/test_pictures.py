"""The record of destruction is a path of the forward process."""

from __future__ import annotations

import pytest
import torch

from benchmarks.experiments.pictures import destruction
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser
from diffusion.model import Model
from diffusion.model.model import FIRST_SEEN
from diffusion.schedules import EDM
from tests.oracles import OracleNetwork, correlated


def test_states_have_the_law_of_their_noise_level_and_follow_each_other() -> None:
    experiment = Config()
    schedule, parameterization = EDM(), experiment.parameterization
    network = OracleNetwork(correlated(schedule), parameterization)
    model = Model(Denoiser(network, schedule, parameterization), DataSpec((2,), None), experiment)
    x = torch.ones(4000, 2)
    clean, *states = destruction(model, x, frames=6)
    assert torch.equal(clean.float(), x) and len(states) == 5
    for state, level in zip(states, (4.0, 4 / 3, -4 / 3, FIRST_SEEN, schedule.log_snr_min), strict=True):
        alpha, variance = (torch.sigmoid(torch.tensor(v)).item() for v in (level, -level))
        assert state.mean().item() == pytest.approx(alpha**0.5, abs=4 * (variance / 8000) ** 0.5)
        assert state.var().item() == pytest.approx(variance, rel=0.08)
    first, second = (states[i].flatten() for i in (1, 2))
    # Cov(x_s, x_t) = (α_t/α_s) σ_s².
    alpha = [torch.sigmoid(torch.tensor(v)).item() ** 0.5 for v in (4 / 3, -4 / 3)]
    expected = alpha[1] / alpha[0] * (1 - alpha[0] ** 2)
    covariance = torch.cov(torch.stack([first, second]))[0, 1].item()
    assert covariance == pytest.approx(expected, abs=0.03)
