"""Tiles one after the other draw data whose dependence ends within what they overlap exactly, to the order of the
sampler; windows that agree at every step do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.restoration.learned import Observed
from diffusion.restoration.tiles import TileByTile, Tiles, shared
from diffusion.restoration.tiling import Sides, Tiling
from diffusion.restoration.windows import Windows
from diffusion.samplers import DPMSolver, RandN, SDESolver, prior, sample
from diffusion.schedules import EDM
from tests.oracles import GaussianOracle, MixtureOracle, affine, short_correlations

# A start at the noise σ has no share of the mean of a tile, which is off by its standard deviation over σ.
WIDE = EDM(sigma_min=1e-3, sigma_max=1e4)


def times(steps: int) -> Tensor:
    return UniformLogSNR()(WIDE, steps)


def covariance_of_tiles(small: GaussianOracle, tiles: Tiles, steps: int, x: Tensor | None = None) -> tuple[Tensor, ...]:
    """The exact mean and covariance of what tiles draw, from unit impulses of their noise; around what x shows."""
    image = tuple(tiles.owner.shape)
    blank = torch.zeros(1, 1, *image, dtype=torch.float64) if x is None else x

    def run(start: Tensor, randn: RandN) -> Tensor:
        draw = TileByTile(small, DPMSolver(), times(steps), tiles, batch=len(start))
        return draw(blank.repeat(len(start), 1, 1, 1), lambda examples, numbers: randn)

    dim = math.prod(tiles.size)
    return affine(run, (1, *tiles.size)).moments(torch.zeros(dim).double(), torch.eye(dim, dtype=torch.float64))


def covariance_of_windows(
    small: GaussianOracle, size: Sides, window: Sides, steps: int, y: Tensor | None = None, known: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The same of windows that agree at every step."""
    blend = Windows(small, (Tiling.whole(size, window),), 10_000)
    given = blend if y is None or known is None else Observed.of(blend, y, known, 0.0)

    def run(start: Tensor, randn: RandN) -> Tensor:
        return sample(given, DPMSolver(), prior(given, start, times(steps)[0]), times(steps), randn=randn)

    dim = math.prod(size)
    return affine(run, (1, *size)).moments(torch.zeros(dim).double(), torch.eye(dim, dtype=torch.float64))


@pytest.mark.parametrize(
    ("image", "size", "overlap"),
    [((1, 14), (1, 6), 1), ((1, 14), (1, 6), None), ((6, 7), (4, 4), 1), ((6, 7), (4, 4), None)],
    ids=["strip by one pixel", "strip by half", "image by one pixel", "image by half"],
)
def test_chains_are_drawn_exactly_to_the_order_of_the_sampler(image: Sides, size: Sides, overlap: int | None) -> None:
    """The covariance of a Markov chain of a length far beyond a tile, and of an image of such rows and columns."""
    length = 4.0
    small, large = (short_correlations(WIDE, *sides, length) for sides in (size, image))
    tiles = Tiles.over(image, size, overlap)
    errors = []
    for steps in (40, 80, 160)[: 3 if image[0] == 1 else 2]:
        mean, covariance = covariance_of_tiles(small, tiles, steps)
        errors.append(float((covariance - large.covariance).abs().max()))
        assert not mean.any()
    assert errors[1] < 6e-3 and min(math.log2(a / b) for a, b in pairwise(errors)) > 1.75, errors


def test_windows_that_agree_draw_too_little_variance_and_correlation() -> None:
    """They miss the covariance of the same images by 0.3 of the variance, however many steps they take."""
    image, size, length = (6, 8), (4, 4), 4.0
    small, large = (short_correlations(WIDE, *sides, length) for sides in (size, image))
    off = [covariance_of_windows(small, image, size, steps)[1] - large.covariance for steps in (40, 80)]
    assert all(float(each.abs().max()) == pytest.approx(0.312, abs=0.005) for each in off)
    assert float(off[1].diagonal().mean()) == pytest.approx(-0.11, abs=0.005)


@pytest.mark.parametrize("length", [1.5, 4.0])
def test_what_lies_around_something_known_is_exact_too_and_nearer_than_by_windows(length: float) -> None:
    """An image is known in a corner. Errors of the mean are in standard deviations of the posterior."""
    image, size = (6, 8), (4, 4)
    small, large = (short_correlations(WIDE, *sides, length) for sides in (size, image))
    known = torch.zeros(image, dtype=torch.bool)
    known[:4, :3] = True
    seen, hidden = known.flatten(), ~known.flatten()
    x = large.sample(1, torch.Generator().manual_seed(0)) * known
    exact = large.posterior(torch.eye(48, dtype=torch.float64)[seen], x.flatten()[seen], 0.0)
    std = exact.covariance.diagonal()[hidden].sqrt()

    def errors(mean: Tensor, covariance: Tensor) -> tuple[float, float]:
        off = (covariance - exact.covariance)[hidden][:, hidden]
        return float(((mean - exact.mean.flatten())[hidden] / std).abs().max()), float(off.abs().max())

    tiles = errors(*covariance_of_tiles(small, Tiles.over(image, size, known=known), 80, x))
    windows = errors(*covariance_of_windows(small, image, size, 80, x, known[None, None]))
    assert max(tiles) < 0.02, tiles
    assert windows[0] > 5 * tiles[0] and windows[1] > 5 * tiles[1], (tiles, windows)


def noise_of(seed: int, drawn: list[int] | None = None):  # noqa: ANN201
    """The noise of each tile of each example, by their numbers; `drawn` takes down the sizes of batches."""

    def noise(examples: Sequence[int], numbers: Sequence[int]) -> RandN:
        if drawn is not None:
            drawn.append(len(examples))
        return ExampleNoise([example_seed(seed, *both) for both in zip(examples, numbers, strict=True)])

    return noise


def test_tiles_at_once_are_tiles_one_after_the_other_for_any_batch() -> None:
    small, tiles = short_correlations(WIDE, 4, 4, 2.0), Tiles.over((9, 11), (4, 4))
    assert tiles.count == 4 * 5 and len(tiles.waves) == 4 + 5 - 1 and tiles.widest == 4
    found, sizes = [], list[int]()
    for batch in (1, 5, 100):
        draw, blank = TileByTile(small, SDESolver(), times(6), tiles, batch), torch.zeros(3, 1, 9, 11).double()
        found.append(draw(blank, noise_of(7, sizes if batch == 5 else None)))
        assert found[-1] is blank
    assert max(float((each - found[0]).abs().max()) for each in found) < 1e-12
    assert max(sizes) == 5 and sum(sizes) == 3 * 20
    in_turn = tiles.__class__(tiles.size, tiles.corners, tiles.owner)
    in_turn.__dict__["waves"] = [[number] for number in range(tiles.count)]
    one = TileByTile(small, SDESolver(), times(6), in_turn)(torch.zeros(3, 1, 9, 11).double(), noise_of(7))
    assert float((one - found[0]).abs().max()) < 1e-12


@pytest.mark.parametrize("known", [None, (slice(3, 9), slice(5, 8))], ids=["nothing known", "a block known"])
@pytest.mark.parametrize("overlap", [1, 3, 5])
def test_every_pixel_is_drawn_once_and_what_a_tile_sees_was_drawn_in_earlier_waves(
    overlap: int, known: tuple[slice, slice] | None
) -> None:
    image, size = (17, 14), (6, 6)
    mask = torch.zeros(image, dtype=torch.bool)
    if known is not None:
        mask[known] = True
    tiles, done = Tiles.over(image, size, overlap, None if known is None else mask), mask.clone()
    for wave in tiles.waves:
        before = done.clone()
        for number in wave:
            own = tiles.of(tiles.owner, number) == number
            assert own.any() and torch.equal(~own, tiles.of(before, number)), (
                "it sees what was there, and draws the rest"
            )
            tiles.of(done, number).logical_or_(own)
    assert done.all() and sum(map(len, tiles.waves)) == tiles.count


def test_around_what_is_known_the_tile_that_sees_the_most_is_next() -> None:
    known = torch.zeros(1, 20, dtype=torch.bool)
    known[:, 8:12] = True
    tiles = Tiles.over((1, 20), (1, 6), known=known)
    assert [left for _, left in tiles.corners] == [6, 8, 3, 0, 11, 14]


def test_labels_and_values_of_the_data_reach_the_tiles() -> None:
    """Each label is a component of its own, and drawn values are rounded before later tiles see them."""
    means = torch.stack([torch.full((1, 4, 4), value, dtype=torch.float64) for value in (-2.0, 2.0)])
    oracle = MixtureOracle(WIDE, means, 0.01, torch.tensor([0.5, 0.5], dtype=torch.float64))
    seen: list[Tensor] = []

    def settled(x: Tensor) -> Tensor:
        seen.append(x)
        return x.round()

    draw = TileByTile(oracle, SDESolver(), times(12), Tiles.over((6, 9), (4, 4)), 7, settled)
    x = draw(torch.zeros(3, 1, 6, 9).double(), noise_of(1), torch.tensor([1, 0, 1]))
    assert torch.equal(x, torch.tensor([2.0, -2.0, 2.0]).double()[:, None, None, None].expand_as(x))
    assert any((each.round() == each).any() for each in seen[1:]), "known pixels are as they were settled"


@pytest.mark.parametrize(
    ("image", "overlap", "message"),
    [
        ((3, 8), None, r"image: must be at least 4x5, the size of a tile, got \(3, 8\)"),
        ((8, 8), 0, "overlap: must be between 1 and 3 pixels, less than a tile, got 0"),
        ((8, 8), 4, "overlap: must be between 1 and 3 pixels, less than a tile, got 4"),
        ((4, 8), 5, "overlap: must be between 1 and 4 pixels, less than a tile, got 5"),
    ],
)
def test_what_tiles_cannot_cover_is_named(image: Sides, overlap: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tiles.over(image, (4, 5), overlap)
    with pytest.raises(InputError, match="batch: must be at least 1, got 0"):
        TileByTile(short_correlations(WIDE, 4, 4, 2.0), DPMSolver(), times(2), Tiles.over((8, 8), (4, 4)), 0)


def test_half_of_the_shorter_side_is_shared_of_those_that_need_it() -> None:
    assert shared((64, 64), (32, 16), None) == 8 and shared((64, 16), (32, 16), None) == 16
    assert shared((1, 20), (1, 6), None) == 3 and shared((32, 16), (32, 16), None) == 8
