"""Downsampling by any factor keeps constants, takes exact means, and is the interpolation of torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from diffusion.errors import InputError
from diffusion.operators import JPEG, Composition, Downsample, GaussianBlur, compose, parse
from tests.operators.conftest import normal


@pytest.mark.parametrize("filter", ["area", "bicubic"])
def test_downsampling_keeps_constants_and_interpolates_as_torch_does(filter: str) -> None:
    x = normal(2, 3, 12, 8)
    small = Downsample(4, filter)(x)  # type: ignore[arg-type]
    expected = F.interpolate(x, scale_factor=0.25, mode=filter, **({"antialias": True} if filter == "bicubic" else {}))
    assert torch.allclose(small, expected, rtol=0, atol=1e-12)
    assert torch.allclose(Downsample(4, filter)(torch.ones_like(x)), torch.ones_like(small))  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [1.0, 1.5, 2.5, math.pi, 7.0])
def test_the_mean_over_an_area_is_the_integral_of_the_image_over_it(factor: float) -> None:
    """The integral of a line over a pixel of the small image is known: that of x² / 2 between its edges, with x
    constant in each pixel it is the sum of its parts. A line cumulated at any place is linear between its pixels."""
    x = normal(1, 1, 1, 22)
    small = Downsample((1.0, factor))(x)[0, 0, 0]
    edges = torch.linspace(0, 22, len(small) + 1, dtype=torch.float64)
    total = torch.cat([torch.zeros(1, dtype=torch.float64), x[0, 0, 0].cumsum(0)])
    low = edges.floor().clamp_max(21).long()
    integral = total[low] + (edges - low) * x[0, 0, 0][low]
    assert torch.allclose(small, integral.diff() * len(small) / 22, rtol=0, atol=1e-12)


def test_sides_that_the_factor_does_not_divide_are_rounded() -> None:
    assert Downsample(4)(normal(1, 1, 10, 8)).shape == (1, 1, 3, 2)
    assert Downsample(4)(normal(1, 1, 1, 9)).shape == (1, 1, 1, 2)
    ones = torch.ones(1, 1, 10, 8, dtype=torch.float64)
    assert torch.allclose(Downsample(4)(ones), ones[..., :3, :2])


@pytest.mark.parametrize("factor", [1.0, 1.3, 1.5, 2.0, 2.5, 3.99, 4.0])
def test_an_image_of_the_size_before_becomes_one_of_the_size_observed(factor: float) -> None:
    operator = Downsample(factor)
    for side in range(1, 40):
        before = operator.size_before((side, 2 * side))
        assert operator(torch.zeros(1, 1, *before)).shape[-2:] == (side, 2 * side)


def test_a_stated_size_is_that_of_the_large_image() -> None:
    stated = parse("downsample:size=13x7")
    assert stated.size_before((3, 4)) == (7, 13)
    operator = stated.resolved((3, 4))
    assert operator == Downsample((7 / 3, 13 / 4)) and operator(torch.zeros(1, 1, 7, 13)).shape == (1, 1, 3, 4)
    with pytest.raises(InputError, match=r"downsample\.size: must be resolved by the size of the small image"):
        stated(torch.zeros(1, 1, 7, 13))
    with pytest.raises(InputError, match=r"downsample\.size: must be at least 5x3, that of the small image, got 13x2"):
        parse("downsample:size=13x2").resolved((3, 5))


def test_a_stated_size_is_resolved_within_compositions() -> None:
    both = compose(GaussianBlur(1.0), parse("downsample:size=8x8")).resolved((4, 2))
    assert both == Composition(GaussianBlur(1.0), Downsample((2.0, 4.0)))
    rounded = compose(JPEG(30), parse("downsample:size=8x8")).resolved((4, 2))
    assert rounded(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 4, 2)
    twice = compose(Downsample(2), parse("downsample:size=16x16")).resolved((4, 4))
    assert twice == Composition(Downsample(2), Downsample((2.0, 2.0)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("downsample:size=640", "downsample.size: must be WIDTHxHEIGHT in pixels, as in 640x480, got '640'"),
        ("downsample:size=0x4", "downsample.size: must be WIDTHxHEIGHT in pixels, as in 640x480, got '0x4'"),
        ("downsample:factor=0.5", "downsample.factor: must be at least 1, got 0.5"),
    ],
)
def test_sizes_and_factors_that_cannot_be_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)
