"""Dead leaves have the stated radii, scale, noise and entropy, and do not depend on the batch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffusion.data import DataOptions, Leaves, dead_leaves, open_source
from diffusion.data.hashing import uniform
from diffusion.data.synthetic.dead_leaves import GRAY, NOISE, SKEW, rasterize

KEYS = np.array([3, 7], np.uint64)


def grays(leaves: Leaves, seeds: list[int], size: tuple[int, int] = (24, 24)) -> np.ndarray:
    return leaves.images(size, seeds)[:, 0]


def test_every_pixel_shows_the_first_disk_over_its_center() -> None:
    size, leaves = (17, 23), Leaves(2.0, 30.0)
    first = leaves.cover(size, KEYS.tolist())
    centers, sides = leaves.disks(size, KEYS, np.arange(first.max() + 1)), np.indices(size).reshape(2, -1, 1)
    for image, (row, column, r) in enumerate(zip(*centers, strict=True)):
        over = (sides[0] - row) ** 2 + (sides[1] - column) ** 2 <= r**2
        assert over.any(1).all()
        assert np.array_equal(over.argmax(1).reshape(size), first[image])


def test_a_disk_covers_what_is_within_its_radius() -> None:
    row, column, r = (np.array(v) for v in ([2.0, 3.5, -3.0], [2.0, 0.0, 9.0], [1.0, 0.4, 2.0]))
    disk, pixel = rasterize((5, 6), row, column, r)
    assert disk.tolist() == [0] * 5 and sorted(pixel.tolist()) == [8, 13, 14, 15, 20]


def test_radii_of_the_plane_have_density_r_to_the_minus_3() -> None:
    """The disks centered in the window have the radii of the plane, whose quantiles are known:
    r = (r_min⁻² - u (r_min⁻² - r_max⁻²))^-½.
    """
    low, high, size = 2.0, 50.0, (64, 64)
    row, column, r = Leaves(low, high).disks(size, np.array([1], np.uint64), np.arange(200_000))
    inside = (row >= -0.5) & (row < 63.5) & (column >= -0.5) & (column < 63.5)
    found = np.sort(r[inside])
    u = (np.arange(len(found)) + 0.5) / len(found)
    expected = (low**-2 - found**-2.0) / (low**-2 - high**-2)
    assert abs(expected - u).max() < 1.9 / math.sqrt(len(found)), "Kolmogorov-Smirnov, one in a thousand"
    assert row[inside].mean() == pytest.approx(31.5, abs=0.4)


def test_a_window_is_like_a_part_of_a_larger_one() -> None:
    """Without noise, neighbors are equal as often in a small window as in the middle of a large one."""
    leaves, seeds = Leaves(3.0, 20.0, noise=0.0), list(range(400))

    def same(image: np.ndarray) -> np.ndarray:
        return (image[:, :, 1:] == image[:, :, :-1]).mean((1, 2))

    small, large = same(grays(leaves, seeds, (8, 8))), same(grays(leaves, seeds, (40, 40))[:, 16:24, 16:24])
    error = math.hypot(small.std(), large.std()) / math.sqrt(len(seeds))
    assert abs(small.mean() - large.mean()) < 4 * error < 0.05


def test_mean_variance_and_noise_are_those_of_the_distribution() -> None:
    """Disks are small, so that there are many in an image and its moments are near those of the distribution."""
    leaves, size = Leaves(0.6, 2.0), (256, 256)
    noisy, clean = (grays(part, list(range(6)), size) for part in (leaves, Leaves(0.6, 2.0, noise=0.0)))
    assert noisy.mean() == pytest.approx(leaves.mean, rel=0.01) and noisy.std() == pytest.approx(leaves.std, rel=0.01)
    noise = (noisy - clean) / leaves.std
    assert noise.std() == pytest.approx(NOISE, rel=0.005) and abs(noise.mean()) < 4 * NOISE / math.sqrt(noise.size)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 5 * NOISE**2 / math.sqrt(noise.size), "white"


def test_the_ceiling_is_the_entropy_of_the_noise() -> None:
    noise = torch.distributions.Normal(0.0, NOISE)
    assert Leaves().ceiling == pytest.approx(-float(noise.entropy()) / math.log(2)) == pytest.approx(1.669, abs=1e-3)
    assert Leaves(noise=0.0).ceiling == math.inf


def test_the_entropy_of_a_pixel_is_as_stated() -> None:
    """At variance 1 it is 1.651 bits by quadrature, and 1.65 by the histogram of 100 bins that the literature uses."""
    leaves = Leaves()
    u, spacing = (np.arange(2000) + 0.5) / 2000, leaves.std * NOISE / 5
    gray = 1 - u ** (1 / SKEW)
    at = np.arange(-8 * leaves.std * NOISE, 1 + 8 * leaves.std * NOISE, spacing)
    density = np.exp(-(((at[:, None] - gray) / (leaves.std * NOISE)) ** 2) / 2).mean(1)
    density /= leaves.std * NOISE * math.sqrt(2 * math.pi)
    assert density.sum() * spacing == pytest.approx(1, abs=1e-6)
    seen = density > 1e-300
    entropy = -(density[seen] * np.log2(density[seen] * leaves.std)).sum() * spacing
    assert entropy == pytest.approx(1.651, abs=0.001)

    one = dead_leaves(40_000, 0, (1, 1), Leaves(1.0, 2.0))
    x = one.spec.encode(one.batch(range(len(one)))[0]).flatten().double().numpy()
    counts, edges = np.histogram(x[::2], 100)
    bins = np.clip(np.searchsorted(edges, x[1::2], side="right") - 1, 0, 99)
    bits = -np.log2(np.maximum(counts, 0.5)[bins] / len(x[::2]) / (edges[1] - edges[0]))
    assert bits.mean() == pytest.approx(1.65, abs=0.02 + 3 * bits.std() / math.sqrt(len(bits)))


def test_an_image_is_a_function_of_the_seed_and_its_number() -> None:
    data = dead_leaves(50, 1, (12, 9))
    together, _ = data.batch([4, 9, 4])
    assert together.shape == (3, 1, 12, 9) and together.dtype == torch.float32
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    assert torch.equal(together[1], data.subset([0, 9]).batch([1])[0][0])
    assert torch.equal(together[1], dead_leaves(10, 1, (12, 9)).batch([9])[0][0])
    assert not torch.equal(together[1], dead_leaves(50, 2, (12, 9)).batch([9])[0][0])


def test_gray_levels_are_those_of_the_disks() -> None:
    leaves = Leaves(2.0, 8.0, noise=0.0)
    first, image = leaves.cover((9, 9), [5])[0], grays(leaves, [5], (9, 9))[0]
    levels = 1 - uniform(np.array([5], np.uint64), first.ravel() * 5 + GRAY) ** (1 / SKEW)
    assert image.ravel() == pytest.approx(levels, rel=1e-6) and len(np.unique(image)) == len(np.unique(first))


def test_as_a_source_they_are_split_without_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    options = DataOptions(source="dead_leaves", size=(6, 8), channels=1, count=3000, radii=(1.5, 9.0), noise=0.2)
    monkeypatch.setattr(Leaves, "images", lambda *_: pytest.fail("made"))
    training, held_out = open_source(options, print).split(0.1, 0)
    assert len(training) + len(held_out) == 3000 and len(held_out) == pytest.approx(300, abs=70)
    leaves = Leaves(1.5, 9.0, 0.2)
    assert (training.spec.mean, training.spec.std, training.spec.shape) == (leaves.mean, leaves.std, (1, 6, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Leaves(3.0, 2.0), "radii: must be an increasing pair of positive numbers, got (3.0, 2.0)"),
        (lambda: Leaves(noise=1.0), "noise: must be in [0, 1), got 1.0"),
        (lambda: dead_leaves(0, 0, (4, 4)), "data.count: must be at least 1, got 0"),
        (lambda: DataOptions(source="dead_leaves"), "channels: must be 1 for dead_leaves, got 3"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
