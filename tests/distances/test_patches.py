"""Patches of a Laplacian pyramid: what the levels add up to, where patches lie, and on what that depends."""

from __future__ import annotations

import pytest
import torch

from diffusion.distances import patches
from diffusion.errors import InputError


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((8, 8), [(8, 8)]),
        ((16, 40), [(16, 40)]),
        ((28, 28), [(28, 28), (14, 14)]),
        ((65, 33), [(65, 33), (33, 17), (17, 9)]),
    ],
)
def test_levels_halve_to_sixteen_pixels_and_add_up_to_the_image(
    size: tuple[int, int], sizes: list[tuple[int, int]]
) -> None:
    images = random(2, 3, *size)
    levels = patches.pyramid(images)
    assert [tuple(level.shape[2:]) for level in levels] == sizes
    whole = levels[-1]
    for level in reversed(levels[:-1]):
        whole = level + patches.enlarged(whole, level)
    assert (whole - images).abs().max() < 1e-15


def test_constant_images_have_empty_levels_but_the_last() -> None:
    levels = patches.pyramid(torch.full((1, 1, 37, 40), 0.3, dtype=torch.float64))
    assert all(level.abs().max() < 1e-15 for level in levels[:-1])
    assert (levels[-1] - 0.3).abs().max() < 1e-15


def test_hashes_are_those_of_split_mix() -> None:
    """The first outputs of SplitMix64 from the state 0, as published with its reference code."""
    states = torch.tensor([patches.STEP, 2 * patches.STEP % 2**64 - 2**64 * (2 * patches.STEP % 2**64 >= 2**63)])
    found = [value % 2**64 for value in patches.mixed(states).tolist()]
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_patches_are_cut_at_places_that_are_equally_likely() -> None:
    """The image holds the number of each pixel, so that a patch says where it was cut."""
    height, width, side = 9, 10, 7
    level = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width).expand(2000, 1, -1, -1)
    draws = patches.mixed(torch.arange(2000 * 5).view(2000, 5))
    found = patches.cut(level, draws, side)
    corner = found[..., 0, 0].long()
    top, left = corner // width, corner % width
    assert found.shape == (2000, 5, 1, 49)
    inside = (torch.arange(side)[:, None] * width + torch.arange(side)).flatten()
    assert torch.equal(found[:, :, 0], (corner[..., None] + inside).double())
    counts = torch.bincount((top * 4 + left).flatten(), minlength=12)
    assert len(counts) == 12 and (counts - 10_000 / 12).abs().max() < 4.5 * (10_000 / 12) ** 0.5


def test_where_there_are_few_places_they_take_turns() -> None:
    level = torch.arange(64.0).view(1, 1, 8, 8)
    found = patches.cut(level, torch.zeros(1, 8, dtype=torch.int64), 7)
    assert found[0, :, 0, 0].tolist() == [0, 1, 8, 9, 0, 1, 8, 9]


def test_places_depend_on_the_pixels_and_on_the_seed() -> None:
    images = random(2, 1, 40, 40)
    rows = patches.describe(images, 4, 0)
    assert torch.equal(rows, patches.describe(images, 4, 0))
    assert not torch.equal(rows, patches.describe(images, 4, 1))
    assert len({int(value) for seed in range(2) for value in patches.content(images, seed)}) == 4


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (7, 7)])
def test_images_smaller_than_a_patch_are_patches(size: tuple[int, int]) -> None:
    side = min(7, *size)
    assert patches.describe(random(2, 2, *size), 3, 0).shape == (2, 3, 1, 2, side**2)


def test_every_channel_of_every_level_is_normalized() -> None:
    rows = random(20, 6, 2, 3, 49) * torch.tensor([1.0, 2.0, 5.0]).view(3, 1) + 3
    rows[:, :, 0, 0] = 0.5  # A constant channel stays so.
    found = patches.normalized(rows).unflatten(3, (3, 49))  # type: ignore[no-untyped-call]
    var, mean = torch.var_mean(found, (1, 2, 4), correction=0)
    assert mean.abs().max() < 1e-12 and var.flatten().tolist() == pytest.approx([0, 1, 1, 1, 1, 1], abs=1e-12)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"images: must be of shape \(N, C, H, W\), got \(3, 8, 8\)"):
        patches.check_images(random(3, 8, 8))
    with pytest.raises(InputError, match=r"images: must be of floats, got torch\.uint8"):
        patches.check_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"in \[0, 1\], got 0 to 255; divide values of 0 to 255 by 255"):
        patches.check_images(torch.tensor([0.0, 255.0]).view(1, 1, 1, 2))
