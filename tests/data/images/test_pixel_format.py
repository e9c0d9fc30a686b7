from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.data import DataSpec
from diffusion.data.images.pixel_format import PixelFormat, levels_between, to_tensor


@pytest.mark.parametrize(
    ("value_range", "levels"),
    [
        *(((0, 4095), 4096), ((16, 235), 220), ((-1024, 3071), 4096), ((0, 65535), 65536)),
        *(((0, 65536), None), ((0, 0.5), None), ((0.5, 7.5), None), ((-3e38, 3e38), None)),
    ],
)
def test_levels_are_the_whole_numbers_of_a_range(value_range: tuple[float, float], levels: int | None) -> None:
    assert levels_between(value_range) == levels


@pytest.mark.parametrize(("levels", "dtype"), [(2, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (None, "f4")])
def test_pixels_have_the_smallest_type_that_holds_the_levels(levels: int | None, dtype: str) -> None:
    assert PixelFormat(levels=levels).dtype == np.dtype(dtype)


def test_values_become_levels_and_are_clipped() -> None:
    form = PixelFormat(1, value_range=(100, 4195), levels=4096)
    values = np.array([0, 99, 100, 101, 4195, 4196, 65535], np.uint16)
    assert form.stored(values, (100, 4195)).tolist() == [0, 0, 0, 1, 4095, 4095, 4095]


def test_values_between_levels_go_to_the_nearest() -> None:
    form = PixelFormat(1, levels=256)
    values = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(form.stored(values, (0, 65535)), (values.astype(int) + 128) // 257)


def test_continuous_values_reach_beyond_the_range() -> None:
    form = PixelFormat(1, value_range=(-2, 2), levels=None)
    assert form.stored(np.array([-4.0, -2.0, 0.0, 3.0]), (-2, 2)).tolist() == [-0.5, 0, 0.5, 1.25]


@pytest.mark.parametrize("levels", [8, 256, 4096, 65536])
def test_units_run_from_zero_to_one_at_any_depth(levels: int) -> None:
    form = PixelFormat(2, levels=levels)
    pixels = np.array([[[0, levels - 1], [1, levels // 2]]], form.dtype)
    units = to_tensor(pixels, form)
    assert units.dtype == torch.float32
    exact = torch.tensor([[[0, 1]], [[levels - 1, levels // 2]]], dtype=torch.float64) / (levels - 1)
    assert torch.allclose(units.double(), exact, rtol=0, atol=1e-7)


def test_units_of_continuous_pixels_are_the_pixels() -> None:
    form = PixelFormat(1, levels=None)
    assert to_tensor(np.array([[[-0.5], [1.5]]], np.float32), form).tolist() == [[[-0.5, 1.5]]]


def test_the_format_of_a_model_is_that_of_its_data() -> None:
    spec = DataSpec((5, 8, 8), 4096, value_range=(0.0, 4095.0))
    assert PixelFormat.of(spec, (1, 2, 3)) == PixelFormat(5, (1, 2, 3), (0.0, 4095.0), 4096)
    assert PixelFormat.of(DataSpec((3, 8, 8), 256)) == PixelFormat()


def test_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"data\.channels: must be 1 to 16, got 0"):
        PixelFormat(0)
    with pytest.raises(ValueError, match=r"data\.range: must be an increasing pair, got \[3, 3\]"):
        PixelFormat(value_range=(3, 3))
    with pytest.raises(ValueError, match=r"levels: .*got 1"):
        PixelFormat(levels=1)
