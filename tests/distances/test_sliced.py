"""The sliced Wasserstein distance against exact ones."""

from __future__ import annotations

import pytest
import torch

from diffusion.distances import patches, sliced
from diffusion.distances.sliced import SlicedWasserstein


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(30, 30), (20, 30)])
def test_in_one_dimension_it_is_the_exact_distance(sizes: tuple[int, int]) -> None:
    """The exact plan of sets of numbers pairs them in order, each repeated so that both have as many."""
    a, b = (random(size, 1, 1, 1, seed=seed) for seed, size in enumerate(sizes))
    distance = SlicedWasserstein(patches=1, directions=3)
    found = distance(distance.describe(a), distance.describe(b))
    most = sizes[0] * sizes[1]
    pairs = [x.flatten().sort().values.repeat_interleave(most // len(x)) for x in (a, b)]
    exact = (pairs[0] - pairs[1]).abs().mean() / torch.cat([a, b]).std(correction=0)
    assert found == pytest.approx(float(exact), rel=1e-12)


def test_of_translated_sets_it_is_the_mean_length_of_the_translation_along_directions() -> None:
    distance = SlicedWasserstein(patches=2, directions=16)
    rows = random(12, 2, 1, 1, 49)
    step = 0.3 * random(49, seed=1)
    both = torch.cat([rows, rows + step])
    scale = both.std(correction=0)
    directions = distance._directions(0, patches.normalized(both))
    exact = (directions @ (step / scale)).abs().mean()
    assert distance(rows, rows + step) == pytest.approx(float(exact), rel=1e-9)
    assert distance(rows, rows.flip(0)) == 0


def test_directions_are_unit_vectors_in_all_directions() -> None:
    directions = SlicedWasserstein(directions=20_000)._directions(0, torch.zeros(1, 3, dtype=torch.float64))
    assert (directions.norm(dim=1) - 1).abs().max() < 1e-12
    second = directions.T @ directions / len(directions)
    assert (second - torch.eye(3, dtype=torch.float64) / 3).abs().max() < 0.01


def test_on_quantiles_it_is_nearly_that_of_all_values(monkeypatch: pytest.MonkeyPatch) -> None:
    distance = SlicedWasserstein(patches=8, directions=8)
    rows = distance.describe(torch.cat([random(250, 1, 8, 8), random(250, 1, 8, 8, seed=1) ** 1.2]))
    mixed = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(500)
    sets, pairs = [numbers[:250], numbers[250:], mixed[:250], mixed[250:]], [(0, 1), (2, 3)]
    found = distance.between(rows, sets, pairs)
    monkeypatch.setattr(sliced, "POINTS", len(rows) * 8)
    exact = distance.between(rows, sets, pairs)
    error = (found / exact - 1).abs()
    assert 1e-6 < error.max() < 0.02


def test_channels_of_another_scale_count_as_much() -> None:
    """Both channels move by a standard deviation, whatever that is."""
    rows = random(40, 2, 1, 2, 1)
    scale = torch.tensor([1.0, 100.0], dtype=torch.float64).view(2, 1)
    distance = SlicedWasserstein(directions=16)
    assert distance(rows * scale, rows * scale + scale) == pytest.approx(distance(rows, rows + 1), rel=1e-9)
