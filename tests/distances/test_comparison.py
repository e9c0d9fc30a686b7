"""Value, floor and excess: how often their intervals hold the truth, and what they are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from benchmarks.distances import kernel_truth
from diffusion.distances import FEATURE_DISTANCES, Comparison, Interval, compare
from diffusion.distances.comparison import Plan, common_size, ends, score_interval
from diffusion.distances.distance import FeatureDistance, Pairs
from diffusion.distances.frechet import FrechetExtrapolated
from diffusion.distances.kernel import KernelDistance
from diffusion.distances.neighbors import Coverage, Density
from diffusion.errors import InputError


@dataclass(frozen=True)
class MeanDifference(FeatureDistance):
    """The difference of means, which is linear in the members: its variance is known."""

    name: ClassVar[str] = "difference of means"

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns the difference of every pair."""
        means = torch.stack([rows[numbers].mean() for numbers in sets])
        a, b = torch.tensor(pairs).T
        return means[a] - means[b]


def points(count: int, seed: int, *, shift: float = 0.0, dimensions: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) + shift


def comparisons(
    distance: FeatureDistance, repeats: int, *, shift: float = 0.0, samples: int = 30, real: int = 60
) -> list[Comparison]:
    return [
        compare(distance, points(samples, 2 * k, shift=shift), points(real, 2 * k + 1), repeats=20, rounds=1, seed=k)
        for k in range(repeats)
    ]


def binomial(share: float, repeats: int) -> float:
    """Three standard errors of a share."""
    return 3 * math.sqrt(share * (1 - share) / repeats)


@pytest.mark.parametrize("name", FEATURE_DISTANCES)
def test_the_excess_of_real_samples_covers_zero_as_often_as_stated(name: str) -> None:
    distance = FEATURE_DISTANCES[name]()
    assert isinstance(distance, FeatureDistance)
    repeats = 15 if name == "frechet_extrapolated" else 30
    covered = sum(each.excess.covers(0.0) for each in comparisons(distance, repeats)) / repeats
    assert covered == pytest.approx(0.9, abs=binomial(0.9, repeats))


@pytest.mark.parametrize(
    ("distance", "truth"),
    # Two dimensions that differ by 0.4: |m|² = 0.32, and MMD² by the moments.
    [(FrechetExtrapolated(), 0.32), (KernelDistance(), kernel_truth(0.4, 2))],
)
def test_value_and_excess_cover_a_known_distance_as_often_as_stated(distance: FeatureDistance, truth: float) -> None:
    found = comparisons(distance, 25, shift=0.4, samples=80, real=160)
    for part in ("value", "excess"):
        covered = sum(getattr(each, part).covers(truth) for each in found) / len(found)
        assert covered == pytest.approx(0.9, abs=binomial(0.9, len(found)))


def test_the_interval_of_a_linear_number_has_its_standard_deviation() -> None:
    """Of 40 samples and 80 real points with the variance ½ of their means over both values: σ² = ½ (1/40 + 1/80)."""
    found = [
        compare(MeanDifference(), points(40, 2 * k), points(80, 2 * k + 1), repeats=40, rounds=1, seed=k).value
        for k in range(30)
    ]
    width = sum(each.half_width for each in found) / len(found)
    assert width == pytest.approx(1.645 * math.sqrt((1 / 40 + 1 / 80) / 2), rel=0.05)


def test_numbers_are_those_of_the_distance_at_the_same_size() -> None:
    """As many samples as half of the real points: one round compares all samples with halves of these."""
    samples, real = points(20, 0, shift=0.5), points(40, 1)
    found = compare(MeanDifference(), samples, real, rounds=1, repeats=20)
    assert found.size == 20 and found.confidence == 0.9
    assert found.value.value == pytest.approx(float(samples.mean() - real.mean()), rel=1e-12)
    assert found.excess.value == pytest.approx(found.value.value - found.floor.value, rel=1e-12)
    again = compare(MeanDifference(), samples, real, rounds=1, repeats=20)
    assert again == found != compare(MeanDifference(), samples, real, rounds=1, repeats=20, seed=1)


def test_far_samples_are_told_from_real_ones_and_better_ones_too() -> None:
    far = compare(KernelDistance(), points(40, 0, shift=1.0), points(80, 1), repeats=20)
    assert far.excess.low > 0 and far.value.low > far.floor.high
    assert compare(Coverage(), points(40, 0, shift=2.0), points(80, 1), repeats=20).excess.high < 0
    # Samples that vary less lie where real points are dense.
    assert compare(Density(), points(40, 0) / 4, points(80, 1), repeats=20).excess.low > 0


@pytest.mark.parametrize(("samples", "real", "size"), [(100, 1000, 100), (100, 150, 75), (500, 41, 20)])
def test_the_size_leaves_room_for_two_sets_of_real_ones(samples: int, real: int, size: int) -> None:
    assert common_size(samples, real) == size


@pytest.mark.parametrize(("samples", "real", "size"), [(30, 60, 30), (95, 60, 30), (10, 90, 10)])
def test_sets_of_a_round_are_disjoint_and_rounds_take_turns(samples: int, real: int, size: int) -> None:
    plan = Plan(size, 4, torch.Generator().manual_seed(0))
    plan.add(torch.arange(samples), torch.arange(samples, samples + real))
    assert len(plan.sets) == 12 and len(plan.pairs) == 12
    for k in range(4):
        ours, first, second = (set(numbers.tolist()) for numbers in plan.sets[3 * k : 3 * k + 3])
        assert len(ours) == len(first) == len(second) == size and not first & second
        assert ours <= set(range(samples)) and first | second <= set(range(samples, samples + real))
    turns = samples // size
    seen = [set(plan.sets[3 * k].tolist()) for k in range(min(turns, 4))]
    assert len(set().union(*seen)) == len(seen) * size


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95])
def test_zero_is_held_unless_the_value_is_among_the_outermost_of_all(confidence: float) -> None:
    """Of values and permutations that are alike, as ranks, the share that is refused is as stated, with ties too."""
    count = round(2 / (1 - confidence)) * 5
    for values in (torch.arange(count) - (count - 1) / 2, torch.arange(count) % 7 - 3.0):
        held, generator = 0, torch.Generator().manual_seed(0)
        for k in range(count):
            null = torch.cat([values[:k], values[k + 1 :]])
            ties = torch.rand(count, generator=generator)
            held += score_interval(float(values[k]), null, 0.5, 5, ties).covers(0)
        assert held / count == pytest.approx(confidence, abs=1e-9 if len(values.unique()) == count else 0.1)  # type: ignore[no-untyped-call]


def test_ends_are_where_the_distance_to_the_value_is_the_width_there() -> None:
    for value, at_zero, at_value in ((2.0, 1.0, 1.5), (2.0, 1.9, 0.5), (1.0, 0.2, 3.0)):
        for end in ends(value, at_zero, at_value):
            width = at_zero**2 + (at_value**2 - at_zero**2) * end / value
            assert end > 0 and (value - end) ** 2 == pytest.approx(width, rel=1e-9)
    low, high = ends(1.0, 1.0, 2.0)
    assert low < 1e-300 and high == pytest.approx(5)


def test_intervals_say_what_they_hold() -> None:
    interval = Interval(1.0, 0.5, 2.0)
    assert interval.covers(0.5) and interval.covers(2.0) and not interval.covers(2.1)
    assert interval.half_width == 0.75 and str(interval) == "1 [0.5, 2]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence: must be between 0 and 1, got 1.0"),
        ({"rounds": 0}, "rounds: must be at least 1, got 0"),
        ({"repeats": 19}, "repeats: must be at least 20 for intervals of 90%, got 19"),
        ({"repeats": 20, "confidence": 0.95}, "repeats: must be at least 40 for intervals of 95%, got 20"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(KernelDistance(), points(20, 0), points(40, 1), **options)  # type: ignore[arg-type]


def test_sets_that_are_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="samples: must be at least 4, got 3"):
        compare(KernelDistance(), points(3, 0), points(40, 1))
    with pytest.raises(InputError, match="real: must be at least 24, got 23"):
        compare(Coverage(), points(30, 0), points(23, 1))
