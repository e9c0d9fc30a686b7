"""Precision, recall, density and coverage of small sets counted by hand, and of others by all distances."""

from __future__ import annotations

import pytest
import torch

from diffusion.distances import neighbors
from diffusion.distances.neighbors import Coverage, Density, Near, NeighborShare, Precision, Recall
from diffusion.errors import InputError

# On a line. With k = 1 the balls of the real points 0, 1, 3, 10 have the radii 1, 1, 2, 7:
# [-1, 1], [0, 2], [1, 5], [3, 17]. Those of the samples 2, 4.5, 20 have 2.5, 2.5, 15.5: [-0.5, 4.5], [2, 7],
# [4.5, 35.5].
REAL, SAMPLES = (torch.tensor(values).double()[:, None] for values in ([0.0, 1.0, 3.0, 10.0], [2.0, 4.5, 20.0]))


@pytest.mark.parametrize(
    ("distance", "counted"),
    [
        (Precision(k=1), 2 / 3),  # 2 and 4.5 lie in balls, 20 does not.
        (Recall(k=1), 4 / 4),  # 0, 1, 3 lie in the first ball, 10 in the last.
        (Density(k=1), 4 / 3),  # 2 lies in two balls, 4.5 in two.
        (Coverage(k=1), 3 / 4),  # The ball of 0 holds no sample.
        (Density(k=2), 6 / (2 * 3)),  # The radii are 3, 2, 3, 9: 2 lies in four balls, 4.5 in two.
    ],
)
def test_small_sets_are_counted(distance: NeighborShare, counted: float) -> None:
    assert distance(SAMPLES, REAL) == pytest.approx(counted, abs=1e-12)


def by_force(name: str, samples: torch.Tensor, real: torch.Tensor, k: int) -> float:
    """The definition with all distances."""
    if name == "recall":
        return by_force("precision", real, samples, k)
    radius = (real[:, None] - real).norm(dim=2).sort().values[:, k]
    inside = (real[:, None] - samples).norm(dim=2) <= radius[:, None]
    return float(
        {"precision": inside.any(0), "density": inside.sum(0).double() / k, "coverage": inside.any(1)}[name]
        .double()
        .mean()
    )


@pytest.mark.parametrize("distance", [Precision(), Recall(), Density(), Coverage()], ids=lambda each: each.name)
def test_lists_of_neighbors_are_as_long_as_balls_need(distance: NeighborShare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many samples lie close to one real point, so that its neighbors of its own set come late in its list."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    samples = torch.cat(
        [real[:1] + 1e-3 * torch.randn(150, 2, generator=generator, dtype=torch.float64), real[1:] + 0.1]
    )
    exact = by_force(distance.name, samples, real, distance.k)
    for first, block in ((1, 2**24), (16, 2**24), (1000, 500)):
        monkeypatch.setattr(neighbors, "FIRST", first)
        monkeypatch.setattr(neighbors, "BLOCK", block)
        assert distance(samples, real) == pytest.approx(exact, abs=1e-12)


def test_lists_are_the_nearest_others_in_order() -> None:
    near = Near.of(torch.tensor([0.0, 1.0, 3.0, 7.0]).double()[:, None], 2)
    assert near.numbers.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert near.distances.tolist() == [[1, 9], [1, 4], [4, 9], [16, 36]]


def test_duplicates_are_neighbors_of_each_other() -> None:
    """A point that is there twice has a ball of radius 0, which holds a copy of it alone."""
    real = torch.tensor([[0.0], [0.0], [5.0]]).double()
    assert Coverage(k=1)(torch.tensor([[0.0], [1.0]]).double(), real) == 1
    assert Coverage(k=1)(torch.tensor([[-1.0], [11.0]]).double(), real) == 0


def test_a_ball_needs_a_neighbor() -> None:
    with pytest.raises(InputError, match="k: must be at least 1, got 0"):
        Coverage(k=0)(SAMPLES, REAL)
