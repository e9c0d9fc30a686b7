"""The bands of a photograph in other colors, at its own depth."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from diffusion.commands.photographs.recolor import FEWEST_LEVELS, deepened, is_neutral, to_gray, to_rgb
from diffusion.data.images.bands import Bands

COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_gray_is_the_luma_at_the_depth_of_the_colors() -> None:
    eight = to_gray(Bands(COLORS, "rgb"))
    assert eight.kind == "gray" and np.array_equal(
        eight.values[:, :, 0], np.asarray(Image.fromarray(COLORS).convert("L"))
    )
    deep = to_gray(Bands(COLORS.astype(np.uint16) * 257, "rgb")).values
    exact = COLORS.astype(float) @ [0.299, 0.587, 0.114] * 257
    assert deep.dtype == np.uint16 and np.abs(deep[:, :, 0] - exact).max() <= 0.5001
    alpha = np.dstack([COLORS, COLORS[:, :, :1]])
    assert np.array_equal(to_gray(Bands(alpha, "rgb", alpha=True)).values[:, :, 1], COLORS[:, :, 0])


def test_gray_becomes_three_equal_colors_and_keeps_its_alpha() -> None:
    made = to_rgb(Bands(COLORS[:, :, :2], "gray", alpha=True))
    assert made.kind == "rgb" and np.array_equal(made.values, COLORS[:, :, [0, 0, 0, 1]])


@pytest.mark.parametrize(("white", "dtype", "top"), [(1, "u1", 255), (255, "u1", 255), (256, "u2", 65535)])
def test_a_darker_white_becomes_that_of_the_depth(white: int, dtype: str, top: int) -> None:
    made, told = deepened(Bands(np.array([[[0], [white]]], np.uint16), "gray", white=white), white)
    assert made.values.dtype == dtype and made.values.ravel().tolist() == [0, top] and made.white is None
    assert bool(told) == (white != top)


def test_a_photograph_is_gray_if_all_known_pixels_of_enough_levels_are() -> None:
    gray = np.repeat(np.arange(48, dtype=np.uint8).reshape(6, 8, 1), 3, 2)
    known = np.ones((6, 8, 1), bool)
    known[2, 3] = False
    assert is_neutral(Bands(gray, "rgb"), None) and is_neutral(Bands(gray, "rgb"), known)
    drawn = gray.copy()
    drawn[2, 3] = (255, 0, 255)  # What is hidden may have any color.
    assert is_neutral(Bands(drawn, "rgb"), known) and not is_neutral(Bands(drawn, "rgb"), None)
    paper = np.minimum(gray, FEWEST_LEVELS - 2)
    assert not is_neutral(Bands(paper, "rgb"), None), "a white margin says nothing of what was cut out"
    assert not is_neutral(Bands(gray, "rgb"), np.zeros((6, 8, 1), bool))
