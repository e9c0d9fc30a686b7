from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffusion.data import Dataset, mixture, swiss_roll
from diffusion.data.points import ROLL_CENTER, roll_scale


def points(dataset: Dataset) -> torch.Tensor:
    values, _ = dataset.batch(range(len(dataset)))
    return values.double()


@pytest.mark.parametrize("make", [swiss_roll, mixture])
def test_mean_zero_and_variance_one(make: type[Dataset]) -> None:
    dataset = make(100_000, seed=0)
    x = points(dataset)
    assert x.mean(0).abs().max() < 0.015
    assert x.square().mean() == pytest.approx(1, abs=0.01)
    assert (dataset.spec.shape, dataset.spec.levels, dataset.labels) == ((2,), None, None)


@pytest.mark.parametrize("make", [swiss_roll, mixture])
def test_points_are_a_function_of_the_seed(make: type[Dataset]) -> None:
    assert torch.equal(points(make(50, seed=1)), points(make(50, seed=1)))
    assert not torch.equal(points(make(50, seed=1)), points(make(50, seed=2)))


def test_roll_without_noise_lies_on_the_spiral() -> None:
    raw = points(swiss_roll(1000, seed=0, noise=0)) * roll_scale(0) + torch.tensor(ROLL_CENTER)
    t = raw.norm(dim=1)
    assert 1.5 * math.pi - 1e-4 <= t.min() <= t.max() <= 4.5 * math.pi + 1e-4
    spiral = torch.stack([t * t.cos(), t * t.sin()], dim=1)
    assert (raw - spiral).abs().max() < 1e-4


@pytest.mark.parametrize(("noise", "expected"), [(0.25, -0.92), (0.0243, 2.45)])
def test_entropy_of_the_roll_is_as_stated(noise: float, expected: float) -> None:
    """Monte Carlo over points, with the density by the midpoint rule along the spiral."""
    x = points(swiss_roll(800, seed=0, noise=noise)).numpy() * roll_scale(noise) + ROLL_CENTER
    t = math.pi * (1.5 + 3 * (np.arange(8_000) + 0.5) / 8_000)
    spiral = np.stack([t * np.cos(t), t * np.sin(t)], axis=1)
    square = (x**2).sum(1)[:, None] + (t**2)[None] - 2 * x @ spiral.T
    density = np.exp(-square / (2 * noise**2)).mean(1) / (2 * math.pi * noise**2)
    bits = np.log2(density * roll_scale(noise) ** 2)
    assert bits.mean() == pytest.approx(expected, abs=4 * bits.std() / len(bits) ** 0.5)


def test_modes_of_the_mixture() -> None:
    dataset = mixture(20_000, seed=0, modes=5, std=0.05, labels=True)
    x = points(dataset)
    assert dataset.spec.classes == ("0", "1", "2", "3", "4")
    assert dataset.labels is not None
    scale = math.sqrt(0.5 + 0.05**2)
    for mode in range(5):
        mine = x[torch.from_numpy(dataset.labels == mode)]
        angle = 2 * math.pi * mode / 5
        center = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64) / scale
        assert len(mine) == pytest.approx(4000, abs=250)
        assert (mine.mean(0) - center).abs().max() < 0.006
        assert mine.std(0).numpy() == pytest.approx(0.05 / scale, rel=0.05)


def test_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"data\.count: .*got 0"):
        swiss_roll(0, seed=0)
    with pytest.raises(ValueError, match=r"data\.modes: .*got 1"):
        mixture(5, seed=0, modes=1)
