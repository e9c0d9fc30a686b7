"""The truths that intervals of distances are held against."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from benchmarks import distances


@pytest.mark.parametrize(("shift", "dimensions"), [(0.4, 4), (1.0, 1), (-0.7, 3)])
def test_the_kernel_distance_of_gaussians_is_that_of_their_moments(shift: float, dimensions: int) -> None:
    """Every moment up to the third as a product of moments of one dimension, instead of tensors."""

    def moment(powers: list[int], mean: float) -> float:
        one = [1.0, mean, mean**2 + 1, mean**3 + 3 * mean]
        return math.prod(one[power] for power in powers)

    total = 0.0
    for order in (1, 2, 3):
        for axes in itertools.product(range(dimensions), repeat=order):
            powers = [axes.count(axis) for axis in range(dimensions)]
            difference = moment(powers, shift) - moment(powers, 0.0)
            total += math.comb(3, order) * difference**2 / dimensions**order
    assert distances.kernel_truth(shift, dimensions) == pytest.approx(total, rel=1e-12)


def test_sets_of_a_repeat_are_disjoint_and_another_repeat_has_others() -> None:
    images = torch.arange(50.0)
    first, second = distances.real_images(images, 20, 0)
    assert len({*first.tolist(), *second.tolist()}) == 40
    assert not torch.equal(first, distances.real_images(images, 20, 1)[0])


def test_a_row_counts_the_intervals_that_hold_the_truth() -> None:
    from diffusion.distances import Comparison, Interval

    def comparison(low: float, high: float) -> Comparison:
        interval = Interval((low + high) / 2, low, high)
        return Comparison(interval, interval, interval, 10, 0.9)

    found = distances.row("kernel", "real", [comparison(-1, 1), comparison(1, 2), comparison(-4, -1), comparison(0, 3)])
    assert found["excess"] == 0 and found["excess covered"] == 0.5
    # The mean of the values 0, 1.5, -2.5 and 1.5 is 0.125.
    assert found["value"] == pytest.approx(0.125) and found["value covered"] == 0.5
