"""Blurs, downsampling, gray and JPEG do to images what their names say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.operators import (
    JPEG,
    BoxBlur,
    Crop,
    Downsample,
    GaussianBlur,
    Grayscale,
    Identity,
    KernelBlur,
    Mask,
    Matrix,
    MotionBlur,
    Standardized,
    compose,
    parse,
    standardized,
)
from diffusion.operators.jpeg import cosine_transform


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


def test_kernels_have_the_spread_they_state() -> None:
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


@pytest.mark.parametrize("filter", ["area", "bicubic"])
def test_downsampling_keeps_constants_and_interpolates_as_torch_does(filter: str) -> None:
    x = normal(2, 3, 12, 8)
    small = Downsample(4, filter)(x)  # type: ignore[arg-type]
    expected = F.interpolate(x, scale_factor=0.25, mode=filter, **({"antialias": True} if filter == "bicubic" else {}))
    assert torch.allclose(small, expected, rtol=0, atol=1e-12)
    assert torch.allclose(Downsample(4, filter)(torch.ones_like(x)), torch.ones_like(small))  # type: ignore[arg-type]


def test_gray_is_luma() -> None:
    x = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    assert float(Grayscale()(x)) == pytest.approx(0.299)


def test_jpeg_rounds_coefficients_to_multiples_and_a_second_time_changes_nothing() -> None:
    x = 0.5 + 0.15 * normal(2, 3, 16, 24)
    for quality in (10, 50, 95):
        once = JPEG(quality)(x)
        assert torch.allclose(JPEG(quality)(once), once, rtol=0, atol=1e-6)
        assert not torch.allclose(once, x, rtol=0, atol=1e-3)
    errors = [float((JPEG(quality)(x) - x).square().mean()) for quality in (5, 25, 75, 100)]
    assert errors == sorted(errors, reverse=True)
    gray = JPEG(50)(x[:, :1])
    cosines = cosine_transform()
    coefficients = cosines @ (255 * gray[0, 0, :8, 8:16] - 128) @ cosines.mT
    assert torch.allclose(coefficients / JPEG(50).steps[0], (coefficients / JPEG(50).steps[0]).round(), atol=1e-9)
    assert torch.allclose(cosines @ cosines.mT, torch.eye(8, dtype=torch.float64), atol=1e-14)


def test_jpeg_of_other_sides_and_its_derivative() -> None:
    x = 0.5 + 0.15 * normal(1, 3, 11, 13)
    assert JPEG(20)(x).shape == x.shape
    assert torch.allclose(JPEG(20).vjp(x, x), x, rtol=0, atol=1e-12)
    chain = compose(JPEG(20), Grayscale())
    v = normal(1, 1, 11, 13, seed=1)
    assert torch.allclose(chain.vjp(x, v), Grayscale().adjoint(v, x), rtol=0, atol=1e-12), "rounding comes last"


def test_units_of_the_data_are_those_of_the_operator() -> None:
    mean, std, x = 0.4, 0.25, 0.8 * normal(2, 3, 16, 16)
    assert standardized(GaussianBlur(1.0), mean, std) == GaussianBlur(1.0)
    operator = standardized(JPEG(30), mean, std)
    gray = JPEG(30)(torch.full((1, 3, 16, 16), mean).double())
    assert torch.allclose(gray + std * operator(x), JPEG(30)(mean + std * x), rtol=0, atol=1e-12)
    blurred = Standardized(GaussianBlur(1.0), mean, std)
    assert torch.allclose(blurred(x), GaussianBlur(1.0)(x), rtol=0, atol=1e-12), "exactly so for what is linear"
    assert torch.allclose(operator.vjp(x, x), x, rtol=0, atol=1e-12) and operator.linearized(x) == Identity()


def test_operators_are_named_in_words() -> None:
    assert parse("blur") == GaussianBlur() and parse("blur:sigma=3,border=circular") == GaussianBlur(3.0, "circular")
    assert parse("downsample:factor=2") == Downsample(2) and parse("jpeg:quality=30") == JPEG(30)
    x = normal(1, 3, 16, 16)
    both = parse("blur:sigma=1 + downsample:factor=4")
    assert torch.equal(both(x), Downsample(4)(GaussianBlur(1.0)(x)))
    assert parse("gray+jpeg:quality=30")(x).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blurr", "operator: must be one of denoise, gray, blur, box, motion, downsample, jpeg, got 'blurr'"),
        ("", "operator: must be one of"),
        ("blur:size=3", "operator blur: takes sigma=2.0, border=reflect; got 'size=3'"),
        ("denoise:sigma=1", "operator denoise: takes no options; got 'sigma=1'"),
        ("downsample:factor=1.5", "downsample.factor: must be a whole number, got '1.5'"),
        ("downsample:factor=0", "downsample.factor: must be at least 1, got 0"),
        ("downsample:filter=nearest", "downsample.filter: must be area or bicubic, got 'nearest'"),
        ("blur:sigma=nan", "blur.sigma: must be a number, got 'nan'"),
        ("blur:sigma=-1", "blur.sigma: must be a positive number, got -1"),
        ("blur:border=zero", "blur.border: must be reflect or circular, got 'zero'"),
        ("box:size=4", "box.size: must be an odd number of pixels, got 4"),
        ("jpeg:quality=0", "jpeg.quality: must be between 1 and 100, got 0"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}".replace("[", r"\[")):
        parse(text)


def test_a_crop_is_the_middle() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    assert torch.equal(Crop(3, 2)(x), x[..., 1:4, 2:4]) and torch.equal(Crop(2, 3)(x), x[..., 1:3, 1:4])


def test_images_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match="downsample:factor=4: must be given sides that it divides, got 10x8"):
        Downsample(4)(normal(1, 1, 10, 8))
    with pytest.raises(ValueError, match=r"crop: must be given an image of at least 5x6, got \(4, 8\)"):
        Crop(5, 6)(normal(1, 1, 4, 8))
    with pytest.raises(ValueError, match="gray: must be given 3 channels, got 1"):
        Grayscale()(normal(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"mask: must be of a shape that broadcasts to \(3, 4, 4\), got \(1, 4, 5\)"):
        Mask(torch.ones(1, 4, 5, dtype=torch.bool))(normal(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"matrix: must be \(m, 48\) for examples \(3, 4, 4\), got \(5, 16\)"):
        Matrix(normal(5, 16))(normal(2, 3, 4, 4))
    with pytest.raises(ValueError, match="blur: must be given an image larger than the kernel's reach of 8x8"):
        GaussianBlur(2.0)(normal(1, 1, 8, 20))
    assert math.isfinite(float(GaussianBlur(2.0, "circular")(normal(1, 1, 8, 8)).sum()))
