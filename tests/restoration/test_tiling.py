"""Windows are spread evenly, their weights sum to 1 at every pixel, and those without hidden pixels are left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.restoration.tiling import Sides, Tiling, grid, hill, offsets, starts


def weights(tiling: Tiling) -> Tensor:
    """The sum of the weights of all windows at each pixel, by a loop over all of them."""
    total = torch.zeros(tiling.pixels, dtype=torch.float64)
    for corner in tiling.corners:
        place = corner + offsets(tiling.size, torch.tensor([tiling.width]))[0]
        place = place if tiling.numbers is None else tiling.numbers[place].long()
        total[place] += hill(tiling.size) / tiling.total[place]
    return total


@pytest.mark.parametrize(("length", "side", "stride"), [(8, 8, 4), (9, 8, 4), (20, 8, 4), (31, 7, 3), (30, 5, 5)])
def test_windows_are_spread_evenly(length: int, side: int, stride: int) -> None:
    begin = starts(length, side, stride)
    assert begin[0] == 0 and begin[-1] == length - side
    steps = begin.diff()
    assert len(begin) == 1 or ((steps <= stride).all() and steps.max() - steps.min() <= 1)
    assert len(begin) == 1 or (length - side) / (len(begin) - 2 or 1) > stride or len(begin) == 2, "no more than needed"


@pytest.mark.parametrize(
    ("length", "side", "multiple"), [(20, 8, 4), (100, 64, 4), (101, 64, 8), (33, 8, 2), (40, 8, 4)]
)
def test_windows_begin_at_multiples_where_that_is_asked_for(length: int, side: int, multiple: int) -> None:
    begin = starts(length, side, side // 2, multiple)
    assert begin[0] == 0 and begin[-1] == length - side and bool((begin[:-1] % multiple == 0).all())
    assert bool((begin.diff() > 0).all()) and int(begin.diff().max()) <= side, "no pixel is left out"
    assert len(begin) == len(starts(length, side, side // 2)), "no more than without"
    assert torch.equal(starts(length, side, side // 2, side), starts(length, side, side // 2)), "of too many pixels"
    tiling = Tiling.whole((length, side), (side, side), multiple=multiple)
    assert torch.allclose(weights(tiling), torch.ones(tiling.pixels, dtype=torch.float64))


@pytest.mark.parametrize(
    ("size", "window"), [((8, 8), (8, 8)), ((9, 20), (8, 8)), ((30, 13), (6, 4)), ((5, 5), (1, 2))]
)
def test_the_weights_of_all_windows_sum_to_one(size: Sides, window: Sides) -> None:
    tiling = Tiling.whole(size, window)
    assert tiling.pixels == size[0] * size[1] and tiling.numbers is None
    assert torch.allclose(weights(tiling), torch.ones(tiling.pixels, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_only_windows_that_touch_something_hidden_are_there_and_only_their_pixels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden, window = torch.rand(40, 33, generator=generator) < 0.004, (9, 6)
    tiling, places = Tiling.around(hidden, window)
    expected, covered = [], torch.zeros(40, 33, dtype=torch.bool)
    for corner in grid((40, 33), window).tolist():
        rows, columns = slice(corner // 33, corner // 33 + 9), slice(corner % 33, corner % 33 + 6)
        if hidden[rows, columns].any():
            expected.append(corner)
            covered[rows, columns] = True
    assert tiling.corners.tolist() == expected and 0 < len(expected) < len(grid((40, 33), window))
    assert places.tolist() == covered.flatten().nonzero().flatten().tolist()
    assert hidden.flatten()[places].sum() == hidden.sum(), "every hidden pixel is seen"
    assert tiling.numbers is not None and tiling.numbers[places].tolist() == list(range(tiling.pixels))
    assert torch.allclose(weights(tiling), torch.ones(tiling.pixels, dtype=torch.float64))


def test_what_is_hidden_everywhere_has_all_windows() -> None:
    tiling, places = Tiling.around(torch.ones(20, 20, dtype=torch.bool), (8, 8))
    whole = Tiling.whole((20, 20), (8, 8))
    assert torch.equal(tiling.corners, whole.corners) and torch.equal(tiling.total, whole.total)
    assert torch.equal(places, torch.arange(400))


def test_an_image_smaller_than_a_window_and_strides_that_leave_gaps_are_named() -> None:
    with pytest.raises(ValueError, match=r"image: must be at least 8x6, the size of a window, got \(8, 5\)"):
        Tiling.whole((8, 5), (8, 6))
    for stride in ((0, 4), (9, 4), (8, 7)):
        with pytest.raises(
            ValueError, match=rf"windows.stride: must be between 1 and the size \(8, 6\), got \({stride[0]}"
        ):
            Tiling.whole((20, 20), (8, 6), stride)
