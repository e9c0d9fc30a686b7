"""Blurs are the convolutions that their names say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.operators import BoxBlur, GaussianBlur, KernelBlur, MotionBlur
from tests.operators.conftest import normal


@pytest.mark.parametrize("border", ["reflect", "circular"])
def test_a_blur_is_the_convolution_it_says(border: str) -> None:
    kernel, x = normal(3, 5).abs(), normal(2, 3, 7, 9)
    padded = F.pad(x, (2, 2, 1, 1), mode=border)
    flipped = (kernel / kernel.sum()).flip(0, 1)[None, None].expand(3, 1, -1, -1)
    expected = F.conv2d(padded, flipped, groups=3)
    assert torch.allclose(KernelBlur(kernel, border)(x), expected, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def moments(kernel: Tensor) -> tuple[float, float, float]:
    """The mean square along rows and columns and the mean product of both offsets."""
    i, j = (torch.arange(side, dtype=torch.float64) - side // 2 for side in kernel.shape)
    return (
        float((kernel.sum(1) * i.square()).sum()),
        float((kernel.sum(0) * j.square()).sum()),
        float((kernel * torch.outer(i, j)).sum()),
    )


def test_kernels_have_the_variance_they_state() -> None:
    assert moments(GaussianBlur(2.0).kernel()) == pytest.approx((4, 4, 0), rel=2e-3, abs=1e-12)
    assert moments(BoxBlur(5).kernel()) == pytest.approx((2, 2, 0), abs=1e-12)
    # A segment of length L has variance L²/12 along itself; sharing points between pixels adds up to 1/4 to either.
    right = moments(MotionBlur(12.0, 0).kernel())
    assert right == pytest.approx((0, 12, 0), rel=0.03, abs=1e-12)
    down, across, both = moments(MotionBlur(12.0, 45).kernel())
    assert down == pytest.approx(across) and down == pytest.approx(6, rel=0.05)
    assert both == pytest.approx(-6, rel=0.05), "up as it goes right"
    for blur in (GaussianBlur(), BoxBlur(), MotionBlur(), MotionBlur(4.5, 70)):
        assert float(blur.kernel().sum()) == pytest.approx(1, abs=1e-12)


def test_an_image_smaller_than_the_reach_of_a_kernel_is_named() -> None:
    with pytest.raises(ValueError, match="blur: must be given an image larger than the kernel's reach of 8x8"):
        GaussianBlur(2.0)(normal(1, 1, 8, 20))
    assert math.isfinite(float(GaussianBlur(2.0, "circular")(normal(1, 1, 8, 8)).sum()))
