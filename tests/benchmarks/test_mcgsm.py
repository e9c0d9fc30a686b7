"""The baseline reaches the entropy rate where that is known, and only there."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks import mcgsm
from benchmarks.mcgsm import MCGSM, Pairs, Shape, causal_pairs, fit, score, search


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoregressive(n: int, side: int, row: float, column: float, seed: int) -> Tensor:
    """A Gaussian Markov field, x_ij = a x_(i-1)j + b x_i(j-1) - a b x_(i-1)(j-1) + e, e of variance (1 - a²)(1 - b²),
    that is stationary with variance 1: its rows and columns are autoregressive.
    """
    x = normal(n, side, side, seed=seed)
    for axis, coefficient in ((1, row), (2, column)):
        steps = list(x.unbind(axis))
        for i in range(1, side):
            steps[i] = coefficient * steps[i - 1] + math.sqrt(1 - coefficient**2) * steps[i]
        x = torch.stack(steps, axis)
    return x


def test_neighbors_are_those_above_and_to_the_left() -> None:
    image = torch.arange(10 * 12).reshape(1, 10, 12).float()
    pairs = causal_pairs(image, 300)
    assert pairs.z.shape == (300, 24)
    offsets = pairs.y[:, None] - pairs.z
    expected = {12 * i - j for i in range(1, 4) for j in range(-3, 4)} | {1, 2, 3}
    assert all(set(row) == expected for row in offsets.int().tolist())
    rows, columns = pairs.y.int() // 12, pairs.y.int() % 12
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 9, 3, 8)


def test_it_reaches_the_entropy_rate_of_a_gaussian_field() -> None:
    """½ log(2πe (1 - a²)(1 - b²)) per pixel, which no model can beat."""
    a, b = 0.9, 0.8
    rate = -math.log2(2 * math.pi * math.e * (1 - a**2) * (1 - b**2)) / 2
    train, test = (causal_pairs(autoregressive(400, 24, a, b, seed), 100, seed) for seed in (0, 1))
    bits, error = score(fit(train, Shape(2, 2, 4), steps=150, lr=0.05), test)
    assert bits < rate + 4 * error and bits == pytest.approx(rate, abs=0.01 + 4 * error)


def scale_mixture(n: int, seed: int) -> Pairs:
    """y is N(0, 0.1²) or N(0, 1) about a z₁, and the sign of z₂ says of which sign a is."""
    z, noise = normal(n, 2, seed=seed), normal(n, seed=seed + 1)
    wide = torch.rand(n, generator=torch.Generator().manual_seed(seed + 2)) < 0.5
    sign = torch.where(z[:, 1] > 0, 1.0, -1.0)
    return Pairs(z, 2 * sign * z[:, 0] + torch.where(wide, 1.0, 0.1) * noise, torch.arange(n) // 10)


def test_it_finds_scales_and_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcgsm, "BATCH", 2048)
    at = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = sum(torch.exp(-((at / s) ** 2) / 2) / (2 * s * math.sqrt(2 * math.pi)) for s in (1.0, 0.1))
    optimum = float((density * density.log2()).sum() * (at[1] - at[0]))
    train, test = scale_mixture(40_000, 0), scale_mixture(20_000, 10)
    bits, error = score(fit(train, Shape(2, 2, 4), steps=400, lr=0.05), test)
    one, _ = score(fit(train, Shape(1, 2, 4), steps=200, lr=0.05), test)
    # The gate is a logistic function, which follows a step only so far.
    assert optimum - 0.1 < bits < optimum + 4 * error and one < optimum - 0.5


def test_the_density_is_normalized_whatever_the_parameters() -> None:
    model = MCGSM(causal_pairs(normal(3, 12, 12), 40), Shape(3, 2, 5), seed=3)
    y = torch.linspace(-30, 30, 6001)
    z = normal(1, 24, seed=5).expand(6001, 24)
    with torch.no_grad():
        assert float(model.log_density(z, y).exp().sum() * 0.01) == pytest.approx(1, abs=1e-4)


def test_the_search_ends_where_it_was_sent_and_says_when_it_cannot() -> None:
    found = search(lambda r: math.log(r) ** 3, 0.5, 1.0, 16.0, near=1e-3, trials=60)
    assert math.log(found) ** 3 == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ValueError, match="no value from 1 to 2"):
        search(math.log, 3.0, 1.0, 2.0, near=1e-3)
    with pytest.raises(ValueError, match="not reached in 1 trials"):
        search(lambda r: r**3, 20.0, 1.0, 16.0, near=1e-9, trials=1)
