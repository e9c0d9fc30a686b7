"""Features of evenly spaced gray levels equal their expectations, and a network needs them to round to levels."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.backbones.fourier import LevelFeatures
from diffusion.backbones.unet import UNetConfig
from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.gaussian import marginal
from diffusion.schedules import EDM as VarianceExploding
from diffusion.schedules import Cosine, Schedule
from tests.oracles import hermite

SPACING = 0.02


def column(*values: float) -> Tensor:
    """Pixels of one channel as examples: (B, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding()], ids=["vp", "ve"])
@pytest.mark.parametrize("noise", [0.1, 0.4, 1.0])
def test_features_are_expectations_of_waves_of_the_clean_value(schedule: Schedule, noise: float) -> None:
    """`noise` is σ/α in units of the spacing."""
    log_snr = torch.tensor([-2 * math.log(noise * SPACING)], dtype=torch.float64)
    alpha, sigma = schedule(schedule.time(log_snr))
    x_t = column(-0.7, 0.004, 0.013, 1.9)
    found = LevelFeatures(3, SPACING)(x_t / (alpha**2 + sigma**2).sqrt(), log_snr)
    nodes, weights = hermite(80)
    clean = x_t / alpha + sigma / alpha * nodes
    for n in range(3):
        phase = 2 * math.pi * clean / (SPACING * 2**n)
        for channel, wave in ((2 * n, phase.sin()), (2 * n + 1, phase.cos())):
            expected = math.sqrt(2) * (wave * weights).sum(-1)[..., 0]
            assert torch.allclose(found[:, channel, :, 0], expected, atol=1e-6)


def test_without_noise_they_have_unit_mean_square_and_under_much_of_it_none() -> None:
    x, features = torch.linspace(-2, 2, 10_001, dtype=torch.float64).reshape(-1, 1, 1, 1), LevelFeatures(2, SPACING)
    clean, noisy = (features(x, torch.tensor([log_snr], dtype=torch.float64)) for log_snr in (30.0, 0.0))
    assert torch.allclose(clean.square().mean((0, 2, 3)), torch.ones(4, dtype=torch.float64), atol=1e-3)
    assert not noisy.any()


@pytest.mark.parametrize("noise", [0.35, 0.45, 0.6])
def test_the_first_is_the_exact_denoiser_to_first_order(noise: float) -> None:
    frequency, std = 2 * math.pi / SPACING, noise * SPACING
    log_snr = torch.tensor([-2 * math.log(std)], dtype=torch.float64)
    x_t = torch.linspace(-SPACING, SPACING, 41, dtype=torch.float64).reshape(-1, 1, 1, 1)
    levels = SPACING * torch.arange(-20, 21, dtype=torch.float64)
    exact = (torch.softmax(-(x_t - levels).square() / (2 * std**2), dim=-1) * levels).sum(-1, keepdim=True) - x_t
    wave = LevelFeatures(1, SPACING)(x_t / math.sqrt(1 + std**2), log_snr)[:, :1] / math.sqrt(2)
    first = -2 * frequency * std**2 * wave
    small = math.exp(-((frequency * std) ** 2) / 2)
    assert exact.abs().max() > 0.005 * std
    assert (first - exact).abs().max() < 2.5 * small * exact.abs().max(), "the next order is 2 cos(ωx) times smaller"


def error_on_levels(fourier: int) -> float:
    """The squared error of a small network, relative to the noise, after 150 steps on pixels of independent levels."""
    torch.manual_seed(0)
    schedule = VarianceExploding()
    network = UNetConfig(channels=(16,), blocks=1, attention=(), fourier=fourier).build(1, 1, spacing=SPACING)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.02, betas=(0.9, 0.99), weight_decay=0.0)
    denoiser, std = Denoiser(network, schedule, EDMPrecond()), SPACING / 5
    t = schedule.time(torch.full((16,), -2 * math.log(std), dtype=torch.float64))
    errors = []
    for _ in range(150):
        x = SPACING * torch.randint(-85, 86, (16, 1, 8, 8)).float()
        x_t = marginal(schedule, x, t).sample(torch.randn(x.shape))
        error = (denoiser(x_t, t).mean - x).square().mean() / std**2
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        network.project_()
        errors.append(float(error.detach()))
    return sum(errors[-20:]) / 20


def test_a_network_rounds_to_levels_with_them_and_not_without() -> None:
    with_features, without = error_on_levels(2), error_on_levels(0)
    # Measured: 0.27 and 1.00.
    assert with_features < 0.5 and without > 0.9


def test_data_without_levels_have_none() -> None:
    with pytest.raises(ValueError, match=re.escape("backbone.fourier: must be 0 for data without levels, got 2")):
        UNetConfig(fourier=2).build(3, 3)
