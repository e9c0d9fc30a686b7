"""Masks, crops, gray and matrices do to examples what their names say."""

from __future__ import annotations

import pytest
import torch

from diffusion.operators import Crop, Grayscale, Mask, Matrix, Selection
from tests.operators.conftest import normal


def test_gray_is_luma() -> None:
    x = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    assert float(Grayscale()(x)) == pytest.approx(0.299)


def test_a_crop_is_the_middle() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    assert torch.equal(Crop(3, 2)(x), x[..., 1:4, 2:4]) and torch.equal(Crop(2, 3)(x), x[..., 1:3, 1:4])


def test_a_selection_lists_what_a_mask_keeps() -> None:
    known, x = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.6, normal(2, 3, 4, 5)
    values = Selection(known)(x)
    assert values.shape == (2, int(known.sum())) and torch.equal(values[1], Mask(known)(x)[1][known])
    assert torch.equal(Selection(known).adjoint(values, x), Mask(known)(x))


def test_examples_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"crop: must be given an image of at least 5x6, got \(4, 8\)"):
        Crop(5, 6)(normal(1, 1, 4, 8))
    with pytest.raises(ValueError, match="gray: must be given 3 channels, got 1"):
        Grayscale()(normal(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"mask: must be of a shape that broadcasts to \(3, 4, 4\), got \(1, 4, 5\)"):
        Mask(torch.ones(1, 4, 5, dtype=torch.bool))(normal(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"matrix: must be \(m, 48\) for examples \(3, 4, 4\), got \(5, 16\)"):
        Matrix(normal(5, 16))(normal(2, 3, 4, 4))
