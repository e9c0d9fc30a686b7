"""What leaves cost is known where a pixel or two show them; elsewhere disks can be counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import leaf_cost
from diffusion.data.synthetic.dead_leaves import SKEW, Floats, Leaves
from diffusion.randomness import example_seed

LAW = Leaves(1.5, 6.0)
SEEDS = [example_seed(1, number) for number in range(20)]


def per_radius(values: Floats, r: Floats) -> float:
    """∫ values r⁻³ dr by the trapezoidal rule."""
    return float(np.trapezoid(values * r**-3.0, r))


def one_and_both(law: Leaves, distance: float) -> tuple[float, float]:
    """The measures of the disks that hold one pixel, and both of two at a distance: of areas of disks and lenses."""
    r = np.geomspace(law.r_min, law.r_max, 20_001)
    half = np.minimum(distance / 2, r)
    lens = 2 * r**2 * np.arccos(half / r) - 2 * half * np.sqrt(r**2 - half**2)
    return per_radius(math.pi * r**2, r), per_radius(lens, r)


def random_disks(law: Leaves, size: tuple[int, int], count: int, seed: int) -> tuple[leaf_cost.Pixels, float]:
    """Which pixels each of so many disks holds, (count, H, W), and the measure of all that the disks are drawn from:
    centers even over a box around the window, radii of density r⁻³.
    """
    rng = np.random.default_rng(seed)
    sides = np.array(size) + 2 * law.r_max
    center = rng.random((count, 2, 1, 1)) * sides[:, None, None] - law.r_max - 0.5
    least, most = law.r_min**-2.0, law.r_max**-2.0
    square = 1 / (least + rng.random((count, 1, 1)) * (most - least))
    offset = np.indices(size) - center
    return (offset**2).sum(1) <= square, float(sides.prod()) * (least - most) / 2


def test_what_a_noisy_value_tells_of_a_gray() -> None:
    """Of a uniform one without noise all of its bits; of any under much noise what a Gaussian of its variance would."""
    for noise in (0.002, 0.0005):
        exact = -math.log2(2 * math.pi * math.e * noise**2) / 2
        assert leaf_cost.gray_information(noise, 1.0) == pytest.approx(exact, abs=4 * noise)
    variance = SKEW / ((1 + SKEW) ** 2 * (2 + SKEW))
    for noise in (1.0, 3.0):
        assert leaf_cost.gray_information(noise) == pytest.approx(math.log2(1 + variance / noise**2) / 2, rel=0.02)


def test_grays_cost_the_more_the_smaller_the_leaves() -> None:
    found = [leaf_cost.grays(Leaves(r_min), (32, 32), SEEDS).mean() for r_min in (16.0, 4.0, 2.0)]
    assert found == sorted(found) and found[0] > 0
    # Leaves larger than the window: nearly always one gray, which all of its pixels tell of.
    law = Leaves(1000.0, 1001.0)
    alone = leaf_cost.gray_information(law.noise * law.std / 32) / 32**2
    assert leaf_cost.grays(law, (32, 32), SEEDS).mean() == pytest.approx(alone, abs=0.003)
    assert leaf_cost.grays(law, (32, 32), SEEDS).min() == pytest.approx(alone)


@pytest.mark.parametrize("distance", [1, 3, 8])
def test_the_measure_of_the_disks_that_hold_one_pixel_and_not_another(
    monkeypatch: pytest.MonkeyPatch, distance: int
) -> None:
    monkeypatch.setattr(leaf_cost, "POINTS", 20_000)
    one, both = one_and_both(LAW, distance)
    bare = np.zeros((1, distance + 1), bool)
    bare[0, [0, -1]] = True
    # By sums over centers on the grid of pixels, which is coarse for disks as small as these.
    assert leaf_cost.all_disks(LAW, bare) == pytest.approx(2 * one - both, rel=0.01)
    pixels, disk = np.array([[0.0, 0.0], [0.0, distance]]), np.array([0.2, -1.2, 1.6])
    found = leaf_cost.like_disks(LAW, pixels[:1], pixels[1:], disk, np.random.default_rng(0))
    assert found == pytest.approx(one - both, rel=0.02)


def test_disks_like_a_leaf_are_as_many_as_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf_cost, "POINTS", 20_000)
    size, seed = (5, 6), example_seed(1, 3)
    leaf, disks, _ = leaf_cost.leaves(LAW, size, seed)
    held, measure = random_disks(LAW, size, 400_000, 0)
    compared = 0
    for number, disk in enumerate(disks):
        bare = leaf >= number
        own = leaf == number
        count = int(((held & bare) == own).all((1, 2)).sum())
        found = leaf_cost.like_disks(LAW, np.argwhere(own), np.argwhere(bare & ~own), disk, np.random.default_rng(1))
        assert found * len(held) / measure == pytest.approx(count, abs=4 * math.sqrt(count) + 4)
        compared += count > 100
    assert compared >= 2


def test_two_pixels_show_one_leaf_or_two() -> None:
    """The bits of a window are minus the logarithm of the probability of what it shows."""
    law = replace(LAW, r_min=3.0, r_max=20.0)
    one, both = one_and_both(law, 1.0)
    same = both / (2 * one - both)
    seen: set[int] = set()
    for seed in range(12):
        leaves = len(set(law.cover((1, 2), [seed]).ravel().tolist()))
        exact = -math.log2(same if leaves == 1 else 1 - same)
        assert leaf_cost.window(law, (1, 2), seed, seen=0.0) == pytest.approx(exact, abs=0.2)
        seen.add(leaves)
    assert seen == {1, 2}


def test_shapes_cost_less_where_edges_are_not_seen() -> None:
    found = [leaf_cost.shapes(LAW, (12, 12), SEEDS[:4], seen).mean() for seen in (0.0, 3.0, 20.0, math.inf)]
    assert found == sorted(found, reverse=True) and found[0] > found[2] > 0
    # Only the last leaf is then counted, whose place the others leave.
    assert found[-1] == pytest.approx(0, abs=0.01)
