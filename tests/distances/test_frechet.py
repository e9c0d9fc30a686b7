"""The Fréchet distance against closed forms, and what extrapolation removes."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion.distances.frechet import Frechet, FrechetExtrapolated, Moments


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(rows: torch.Tensor, mean: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Rows (N, F) moved and stretched so that their mean is exact and their covariance is factor^T factor."""
    white = torch.linalg.qr(rows - rows.mean(0)).Q
    return torch.addmm(mean, white, factor, alpha=math.sqrt(len(rows) - 1))


def test_of_sets_with_commuting_covariances_it_is_the_closed_form() -> None:
    """With the variances a_i and b_i along common axes, d² = |m - n|² + Σ (√a_i - √b_i)²."""
    rotation = torch.linalg.qr(random(5, 5)).Q
    a, b = torch.tensor([4.0, 1.0, 0.25, 1e-8, 0.0]).double(), torch.tensor([1.0, 9.0, 0.0, 1e-10, 2.0]).double()
    means = random(2, 5, seed=1)
    sets = [
        with_moments(random(50, 5, seed=seed), mean, own.sqrt().diag() @ rotation)
        for seed, (mean, own) in enumerate(zip(means, (a, b), strict=True), 2)
    ]
    exact = (means[0] - means[1]).square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    assert Frechet()(*sets) == pytest.approx(float(exact), rel=1e-12)


def test_of_any_covariances_it_is_the_trace_of_the_root() -> None:
    """In two dimensions tr (C D)^½ = √(tr C D + 2 √(det C det D))."""
    factors = random(2, 2, 2)
    sets = [with_moments(random(9, 2, seed=seed), torch.zeros(2).double(), factors[seed]) for seed in range(2)]
    c, d = (factor.T @ factor for factor in factors)
    root = math.sqrt(float((c @ d).trace()) + 2 * math.sqrt(float(c.det() * d.det())))
    assert Frechet()(*sets) == pytest.approx(float(c.trace() + d.trace()) - 2 * root, rel=1e-11)


def test_fewer_members_than_features_give_the_same_as_axes_of_zeros() -> None:
    """Six features of which two vary: with 5 members by the rows themselves, in two features by triangular factors."""
    rotation = torch.linalg.qr(random(6, 6)).Q[:2]
    a, b = random(5, 2, seed=1), 2 * random(5, 2, seed=2) + 1
    assert Moments.of(a @ rotation).factor.shape == (5, 6) and Moments.of(a).factor.shape == (2, 2)
    assert Frechet()(a @ rotation, b @ rotation) == pytest.approx(Frechet()(a, b), rel=1e-11)


def test_of_a_set_and_itself_it_is_zero_where_the_covariance_is_singular() -> None:
    rows = random(30, 1) @ random(1, 8, seed=1) * 100
    assert abs(Frechet()(rows, rows.clone())) < 1e-9


def mean_and_error(distance: Frechet | FrechetExtrapolated, size: int, shift: float) -> tuple[float, float]:
    """The mean over 400 pairs of sets of N(0, I) and N(shift, I) in 3 dimensions, and its standard error."""
    a, b = random(400, size, 3, seed=1), random(400, size, 3, seed=2) + shift
    rows = torch.cat([a, b]).flatten(0, 1)
    numbers = torch.arange(len(rows)).view(800, size)
    found = distance.between(rows, list(numbers), [(k, 400 + k) for k in range(400)])
    return float(found.mean()), float(found.std()) / 20


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_extrapolation_removes_the_bias_of_first_order(shift: float) -> None:
    truth = 3 * shift**2
    bias, error = mean_and_error(Frechet(), 60, shift)
    assert bias - truth > 10 * error
    left, error = mean_and_error(FrechetExtrapolated(), 60, shift)
    assert abs(left - truth) < max(3 * error, 0.05 * (bias - truth))


def test_extrapolation_takes_sets_of_odd_and_of_different_sizes() -> None:
    """The line runs over the mean of 1/N of both sets, so a distance that is linear in it is exact at infinity."""
    a, b = random(41, 2), random(60, 2, seed=1)
    distance = FrechetExtrapolated()
    found, whole = distance(a, b), Frechet()(a, b)
    assert math.isfinite(found) and found < whole
