"""What is said of restorations is what their numbers mean."""

from __future__ import annotations

import pytest
import torch

from diffusion.commands.photographs import remarks
from diffusion.model.planning import Plan
from diffusion.model.restoration import Diagnostics
from diffusion.restoration.methods import Guided


@pytest.mark.parametrize(
    ("hidden", "text"),
    [(1, "1 pixel filled"), (99, "99 pixels filled"), (100, "1% filled"), (5000, "50% filled")],
)
def test_a_small_hole_is_told_in_pixels(hidden: int, text: str) -> None:
    known = torch.ones(1, 100, 100, dtype=torch.bool)
    known.view(-1)[:hidden] = False
    assert remarks.filled(known) == text


def test_a_pixel_counts_as_filled_if_a_channel_is() -> None:
    known = torch.ones(3, 4, 4, dtype=torch.bool)
    known[1, 0, 0] = known[2, 0, 0] = known[0, 3, 3] = False
    assert remarks.filled(known) == "12% filled"


def test_the_residual_stands_in_the_line_where_there_is_noise() -> None:
    found = Diagnostics(Guided(), 4, 0, 1.25, 0.987, windows=3)
    line = remarks.done("x.png", found, 2, 7, 0.1, "9% filled")
    assert line == "x.png restored 2 times by mmps in 3 windows, 9% filled in 1.2 s, seed 7, residual 0.99"
    assert "residual" not in remarks.done("x.png", found, 2, 7, 0.0)


def test_noise_that_cannot_be_right_is_named_with_what_it_likely_is() -> None:
    assert remarks.noise_warning(0.1, 1.0, 10_000) == ""
    assert "miss the image by 13.9 times" in remarks.noise_warning(0.001132, 13.9, 10_000)
    assert "the noise is likely about 0.016 (--noise 0.016)" in remarks.noise_warning(0.001132, 13.9, 10_000)
    assert "the noise is likely about 0.4 or less" in remarks.noise_warning(25.0, 0.016, 10_000)
    # Few steps miss an image as well, and no image has noise of 0.8.
    few = remarks.noise_warning(0.022, 37.0, 10_000, 3)
    assert few.endswith("the noise of 0.022: 3 steps are too few (--steps), or the image was degraded in another way")
    assert "(--noise 0.1), or 8 steps are too few (--steps), or the image" in remarks.noise_warning(0.02, 5, 900, 8)
    # Without noise, of few values, and of the rounding of a file there is nothing to say.
    assert remarks.noise_warning(0.0, 5.0, 10_000) == remarks.noise_warning(0.5, 0.1, 20) == ""
    assert remarks.noise_warning(remarks.ROUNDING, 0.2, 10_000) == ""


def test_the_work_is_told_where_it_is_more_than_one_window() -> None:
    many = Plan(50, 2961, 12000, 1234567, 400.0)
    assert remarks.work(many, (32, 64), 8) == "2,961 windows of 64x32 in 50 places, 8 times, about 6.7 min"
    assert remarks.work(Plan(1, 1, 30, 32, 100.0), (8, 8), 8) == ""
    assert remarks.work(Plan(1, 2, 30, 64), (8, 8), 1) == "2 windows of 8x8"
