from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.pixel_format import PixelFormat
from diffusion.data.images.resizing import resize_and_crop

GENERATOR = np.random.default_rng(0)
TWELVE = PixelFormat(1, value_range=(0, 4095), levels=4096)


def smooth(height: int, width: int, count: int, top: float) -> np.ndarray:  # type: ignore[type-arg]
    y, x = np.mgrid[:height, :width]
    phases = GENERATOR.uniform(0, 6, count)
    return np.stack([top * (0.5 + 0.4 * np.sin(x / 9 + p) * np.cos(y / 7 - p)) for p in phases], 2)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(12, 16), (60, 80)])
def test_8_bits_are_resized_by_pillow_bit_for_bit(count: int, size: tuple[int, int]) -> None:
    image = GENERATOR.integers(0, 256, (36, 48, count), dtype=np.uint8)
    kernel = Image.Resampling.LANCZOS if size[0] < 36 else Image.Resampling.BICUBIC
    picture = Image.fromarray(image[:, :, 0] if count == 1 else image)
    expected = np.asarray(picture.resize(size[::-1], kernel, box=(0, 0, 48, 36)))
    assert np.array_equal(resize_and_crop(image, size).squeeze(), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize("size", [(12, 16), (60, 80), (12, 12)])
def test_every_depth_and_number_of_bands_is_resized_alike(count: int, size: tuple[int, int]) -> None:
    exact = smooth(36, 48, count, 1.0)
    eight = resize_and_crop(np.rint(exact * 255).astype(np.uint8), size, alpha=False) / 255
    twelve = resize_and_crop(np.rint(exact * 4095).astype(np.uint16), size, TWELVE) / 4095
    floats = resize_and_crop(exact.astype(np.float32), size, PixelFormat(1, levels=None))
    assert eight.shape == twelve.shape == floats.shape == (*size, count)
    # Values are rounded before and after, those of 8 bits between the axes too.
    assert np.abs(twelve - floats).max() < 1.3 / 4095
    assert np.abs(eight - floats).max() < 2 / 255


def test_what_rings_stays_within_the_levels() -> None:
    edge = np.zeros((32, 32, 1), np.uint16)
    edge[:, 16:] = 4095
    small = resize_and_crop(edge, (13, 13), TWELVE)
    assert small.dtype == np.uint16 and (small.min(), small.max()) == (0, 4095)
    part = np.minimum(edge, 219).astype(np.uint8)
    assert resize_and_crop(part, (13, 13), PixelFormat(1, value_range=(16, 235), levels=220)).max() == 219
    continuous = resize_and_crop(edge.astype(np.float32), (13, 13), PixelFormat(1, levels=None))
    assert continuous.max() > 4095 and continuous.min() < 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_band_does_not_weigh_the_others(dtype: type) -> None:
    image = np.zeros((32, 32, 4), dtype)
    image[:, :16, 0], image[:, 16:, 3] = 200, 255
    small = resize_and_crop(image, (8, 8), PixelFormat(4, levels=256), alpha=False)
    alone = resize_and_crop(image[:, :, :1], (8, 8), PixelFormat(1, levels=256))
    assert np.array_equal(small[:, :, :1], alone)


def test_deep_alpha_keeps_hidden_colors_hidden() -> None:
    image = np.zeros((64, 64, 4), np.uint16)
    image[:, :32] = (0, 4095, 0, 4095)
    image[:, 32:] = (4095, 0, 0, 0)
    small = resize_and_crop(image, (9, 9), TWELVE, alpha=True)
    assert small[..., 0].max() == 0
    assert (small[:, :4, 1] == 4095).all()
