"""A problem falls into parts that no window sees two of, and cost follows what is hidden, whatever its shape."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.operators import GaussianBlur, Mask
from diffusion.restoration import Problem
from diffusion.restoration.parts import Part, groups, split, together, unsettled
from diffusion.restoration.tiling import Tiling

WINDOW = (8, 8)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masked(known: Tensor, channels: int = 1) -> Problem:
    shape = (channels, *known.shape[-2:])
    return Problem(Mask(known), Mask(known)(normal(1, *shape)), shape=shape)


def dots(size: tuple[int, int], *places: tuple[int, int]) -> Tensor:
    """The known pixels (1, H, W) of an image with unknown pixels at rows and columns."""
    known = torch.ones(1, *size, dtype=torch.bool)
    for row, column in places:
        known[0, row, column] = False
    return known


def windows(parts: list[Part]) -> int:
    return sum(part.tiling.count for part in parts if part.tiling is not None)


def test_two_far_holes_cost_what_both_do_alone() -> None:
    """One window's length around both of them there are 2,961 windows."""
    first, second = torch.ones(2, 1, 768, 1024, dtype=torch.bool)
    first[:, 20:28, 20:28] = False
    second[:, 740:748, 1000:1008] = False
    alone = [windows(split(masked(known), (32, 32))) for known in (first, second)]
    assert alone == [9, 9] and windows(split(masked(first & second), (32, 32))) == 18
    middle = torch.ones(1, 768, 1024, dtype=torch.bool)
    middle[:, 400:408, 500:508] = False
    assert windows(split(masked(middle), (32, 32))) == 16, "in the middle of an image, as ever"


def test_single_pixels_cost_nine_windows_each_at_most() -> None:
    known = dots((64, 64), (5, 5), (60, 60), (2, 30), (50, 3), (30, 50))
    assert windows(split(masked(known), WINDOW)) == 9 + 4 + 6 + 6 + 9 == 34


def test_a_scratch_across_the_frame_costs_the_windows_along_it() -> None:
    known = torch.ones(1, 600, 800, dtype=torch.bool)
    columns = torch.arange(800)
    known[0, columns * 599 // 799, columns] = False
    (part,) = split(masked(known), WINDOW)
    assert part.tiling is not None and part.count == 800
    # Windows begin 4 apart: about two or three of them see the scratch in each of its 150 rows of windows.
    assert part.tiling.count < 4 * 200 < Tiling.whole((600, 800), WINDOW).count / 30
    assert part.tiling.pixels < 0.04 * 600 * 800


def test_a_frame_around_the_image_costs_the_windows_along_it() -> None:
    known = torch.ones(1, 200, 200, dtype=torch.bool)
    known[:, [0, -1]] = known[:, :, [0, -1]] = False
    assert windows(split(masked(known), WINDOW)) == 4 * (49 - 1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("window", [(8, 8), (4, 9)])
def test_no_window_sees_pixels_of_two_groups(seed: int, window: tuple[int, int]) -> None:
    share = 10.0 ** (-1.5 - 0.25 * seed)
    hidden = torch.rand(70, 90, generator=torch.Generator().manual_seed(seed)) < share
    found = groups(hidden, window)
    pixels = [set(zip(rows.tolist(), columns.tolist(), strict=True)) for rows, columns in found]
    assert set().union(*pixels) == set(map(tuple, hidden.nonzero().tolist()))
    assert sum(map(len, pixels)) == int(hidden.sum()) and all(pixels)
    for i, (rows, columns) in enumerate(found):
        for others, across in found[i + 1 :]:
            near = ((rows[:, None] - others).abs() < window[0]) & ((columns[:, None] - across).abs() < window[1])
            assert not near.any()


def test_pixels_that_no_window_sees_at_once_are_groups_of_their_own() -> None:
    known = dots((40, 60), (0, 0), (0, 8), (8, 0), (20, 30), (20, 38), (27, 30), (39, 59))
    found = groups(~known[0], WINDOW)
    assert [set(zip(r.tolist(), c.tolist(), strict=True)) for r, c in found] == [
        {(0, 0)},
        {(0, 8)},
        {(8, 0)},
        {(20, 30), (27, 30)},
        {(20, 38)},
        {(39, 59)},
    ]


def test_a_winding_chain_of_pixels_is_one_group() -> None:
    """Each is seen with the next one alone."""
    known = torch.ones(200, 200, dtype=torch.bool)
    for row in range(0, 200, 14):
        known[row, ::7] = False
        known[min(row + 7, 199), 0 if row // 14 % 2 else 196] = False
    assert len(groups(~known, WINDOW)) == 1
    known[7, 196] = True
    assert len(groups(~known, WINDOW)) == 2


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("size", [(30, 40), (5, 40), (40, 3), (6, 7)])
def test_parts_have_the_values_of_the_image_and_give_them_back(by_channel: bool, size: tuple[int, int]) -> None:
    """An image with a side shorter than a window is the middle of one of whose margins nothing is known."""
    generator = torch.Generator().manual_seed(1)
    known = torch.rand(3 if by_channel else 1, *size, generator=generator) > 0.02
    known[..., 2, 1] = False
    problem = masked(known, 3)
    order = (~known).expand(3, *size).flatten().nonzero().flatten()
    hidden = unsettled(problem)
    assert hidden is not None and torch.equal(hidden, ~known)
    parts = split(problem, WINDOW)
    restored = torch.full((len(order),), torch.nan, dtype=torch.float64)
    image = normal(3, *size, seed=5).flatten()
    for part in parts:
        assert part.tiling is not None and part.places is not None and part.targets is not None
        shown, pixels = part.problem.mask("parts").known, part.tiling.pixels
        assert part.problem.shape == (3, pixels) == tuple(part.problem.y.shape[1:]) and shown.shape == (3, pixels)
        assert part.problem.y[0][~shown].abs().sum() == 0
        # The values that are known around a hole are those of the image.
        assert set(part.problem.y[0][shown].tolist()) <= set(problem.y[0][known.expand(3, *size)].tolist())
        x = torch.full((2, 3 * pixels), torch.nan, dtype=torch.float64)
        x[:, part.places] = image[order[part.targets]]
        restored[part.targets] = part.values(x.reshape(2, 3, pixels))[1]
    assert torch.equal(restored, image[order]) and sum(part.count for part in parts) == len(order)


def test_a_part_shows_each_pixel_where_it_is_in_the_image() -> None:
    known = dots((30, 40), (10, 12), (11, 12), (29, 39))
    problem = masked(known)
    first, second = split(problem, WINDOW)
    assert torch.equal(first.problem.y[0, 0].reshape(16, 15), problem.y[0, 0, 3:19, 5:20])
    assert torch.equal(first.problem.mask("parts").known.reshape(16, 15), known[0, 3:19, 5:20])
    assert torch.equal(second.problem.y[0, 0].reshape(8, 8), problem.y[0, 0, 22:, 32:])


def test_everything_else_is_one_part_and_nothing_is_none() -> None:
    known, shape = dots((30, 40), (3, 3), (25, 30)), (1, 30, 40)
    y = normal(1, *shape)
    for problem in (Problem(Mask(known), y, 0.1, shape), Problem(GaussianBlur(1.0), y, shape=shape)):
        (part,) = split(problem, WINDOW)
        assert part.problem is problem and part.tiling is part.places is None and unsettled(problem) is None
        assert part.count == 1200 and part.values(y).shape == (1, 1200)
    assert split(masked(torch.ones(1, 30, 40, dtype=torch.bool)), WINDOW) == []
    (own,) = split(masked(dots(WINDOW, (2, 3), (7, 7))), WINDOW)
    assert own.tiling is None and own.values(torch.arange(64.0).reshape(1, 1, 8, 8)).tolist() == [[19.0, 63.0]]
    point = Problem(Mask(torch.tensor([True, False, True])), normal(1, 3), shape=(3,))
    (part,) = split(point, ())
    assert part.count == 1 and part.values(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[2.0]]


def test_several_parts_are_one_problem_of_many_examples() -> None:
    parts = split(masked(dots((30, 40), (3, 3), (25, 30)), 2), WINDOW)
    sizes = [part.problem.x_shape[1] for part in parts]
    assert sizes == [11 * 11, 12 * 15]
    joined = together([part.problem for part in parts], 3)
    assert joined.examples == 6 and joined.y.shape == (6, 2, 180) and joined.shape == (2, 180)
    known = joined.mask("parts").known
    for row, part in enumerate(part for part in parts for _ in range(3)):
        size = part.problem.x_shape[1]
        assert torch.equal(joined.y[row, :, :size], part.problem.y[0])
        assert torch.equal(known[row, :, :size], part.problem.mask("parts").known)
        assert not joined.y[row, :, size:].any() and not known[row, :, size:].any()
    assert together([parts[0].problem], 3) is parts[0].problem
    assert math.isclose(float(joined.operator(torch.ones(6, 2, 180)).sum()), 3 * 2 * (120 + 179))
