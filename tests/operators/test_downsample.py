"""Downsampling keeps constants and is the interpolation of torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from diffusion.operators import Downsample
from tests.operators.conftest import normal


@pytest.mark.parametrize("filter", ["area", "bicubic"])
def test_downsampling_keeps_constants_and_interpolates_as_torch_does(filter: str) -> None:
    x = normal(2, 3, 12, 8)
    small = Downsample(4, filter)(x)  # type: ignore[arg-type]
    expected = F.interpolate(x, scale_factor=0.25, mode=filter, **({"antialias": True} if filter == "bicubic" else {}))
    assert torch.allclose(small, expected, rtol=0, atol=1e-12)
    assert torch.allclose(Downsample(4, filter)(torch.ones_like(x)), torch.ones_like(small))  # type: ignore[arg-type]


def test_sides_that_the_factor_does_not_divide_are_named() -> None:
    with pytest.raises(ValueError, match="downsample:factor=4: must be given sides that it divides, got 10x8"):
        Downsample(4)(normal(1, 1, 10, 8))
