"""Images with holes at another size: areas and means in closed form, and nothing of what lies in a hole."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion.data.images.holes import SEEN, resize_seen, shares
from diffusion.data.images.pixel_format import RGB, PixelFormat
from diffusion.data.images.resizing import resize_and_crop

FORMATS = {
    "eight bits": RGB,
    "sixteen bits": PixelFormat(2, levels=65536, value_range=(0, 65535)),
    "continuous": PixelFormat(1, levels=None, value_range=(0, 1)),
}
SIZES = [(16, 16), (32, 32), (12, 20), (7, 9), (40, 48), (64, 64)]


def noise(form: PixelFormat, height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((height, width, form.channels))
    return form.stored(values, (0, 1))


def holed(height: int = 40, width: int = 48) -> np.ndarray:
    """Pixels that were seen (H, W, 1), but for a box, a thin stroke, and single pixels."""
    seen = np.random.default_rng(1).random((height, width, 1)) < 0.97
    seen[10:21, 13:30] = False
    seen[:, -8] = False
    return seen


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("alpha", [False, True])
def test_what_lies_in_a_hole_has_no_influence(name: str, size: tuple[int, int], alpha: bool) -> None:
    """Two images that differ in holes alone give the same values and masks, bit for bit, enlarged and shrunk."""
    form, seen = FORMATS[name], holed()
    one, other = (np.where(seen, noise(form), noise(form, seed=seed)) for seed in (5, 6))
    (first, known), (second, same) = (resize_seen(each, seen, size, form, alpha=alpha) for each in (one, other))
    assert np.array_equal(first, second) and np.array_equal(known, same)
    assert first.dtype == form.dtype and 0.3 < known.mean() < 1 and not first[~known[:, :, 0]].any()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_areas_and_means_are_those_of_whole_blocks(factor: int) -> None:
    """Where the scale is a whole number, a pixel is a block: its share and its mean are counted."""
    form, (h, w) = FORMATS["continuous"], (10, 12)
    image, seen = noise(form, h * factor, w * factor), holed(h * factor, w * factor)
    blocks = seen.reshape(h, factor, w, factor).mean((1, 3))
    assert np.abs(shares(seen, (h, w))[:, :, 0] - blocks).max() < 1e-12
    values, known = resize_seen(image, seen, (h, w), form)
    assert np.array_equal(known[:, :, 0], blocks >= SEEN)
    total = (image * seen).astype(np.float64).reshape(h, factor, w, factor).sum((1, 3))
    mixed = (blocks < 1) & known[:, :, 0]
    expected = total / np.maximum(blocks * factor**2, 1)
    assert mixed.sum() > 3 and np.abs(values[:, :, 0] - expected)[mixed].max() < 1e-7


def test_areas_of_parts_of_pixels_are_exact() -> None:
    """Shrunk by 2.5, the second of two pixels has half of the third one, whose row and column are a hole."""
    seen = np.ones((5, 5, 1), bool)
    seen[2] = False
    assert np.abs(shares(seen, (2, 2)) - 0.8).max() < 1e-15
    seen[:, 2] = False
    assert np.abs(shares(seen, (2, 2)) - 0.64).max() < 1e-15
    image = np.arange(25, dtype=np.float32).reshape(5, 5, 1)
    seen = np.ones((5, 5, 1), bool)
    seen[2, :2] = False
    values, known = resize_seen(image, seen, (2, 2), FORMATS["continuous"])
    # 1 of 6.25 is missing at each of the left pixels, half of the two pixels of the third row.
    weights = np.array([1, 1, 0.5])
    upper = np.outer(weights, weights) * seen[:3, :3, 0]
    assert known.all() and abs(upper.sum() / 6.25 - 0.84) < 1e-15
    assert abs(values[0, 0, 0] - (upper * image[:3, :3, 0]).sum() / upper.sum()) < 1e-6


def test_exactly_the_least_share_is_seen() -> None:
    seen = np.ones((4, 4, 1), bool)
    seen[0, 0] = False
    image = noise(RGB, 4, 4)
    assert resize_seen(image, seen, (2, 2))[1].all(), "three of four pixels"
    seen[0, 1] = False
    assert resize_seen(image, seen, (2, 2))[1].tolist() == [[[False], [True]], [[True], [True]]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORMATS)
def test_far_from_holes_the_values_are_those_of_undamaged_images(name: str, size: tuple[int, int]) -> None:
    form = FORMATS[name]
    image, seen = noise(form), np.ones((40, 48, 1), bool)
    whole = resize_and_crop(image, size, form, alpha=False)
    values, known = resize_seen(image, seen, size, form)
    assert known.all() and np.array_equal(values, whole)
    seen[:, :10] = False
    values, known = resize_seen(image, seen, size, form)
    # The scale is at most 5.3 and the kernel reaches 3 times as far: to the column 10 + 3.5 * 5.3 = 29 of 48.
    right = np.s_[:, size[1] * 7 // 8 :]
    assert np.array_equal(values[right], whole[right]) and not known[:, 0].any()


def test_colors_count_in_proportion_to_alpha() -> None:
    form = PixelFormat(4)
    image = np.zeros((8, 8, 4), np.uint8)
    image[..., 0], image[..., 3] = 200, 255
    image[0, 0], image[0, 1], image[1, 0] = (100, 0, 0, 51), (0, 0, 0, 0), (7, 7, 7, 7)
    seen = np.ones((8, 8, 1), bool)
    seen[1, 0] = False
    values, known = resize_seen(image, seen, (4, 4), form, alpha=True)
    color, opacity = (100 * 51 + 200 * 255) / (51 + 255), (51 + 255) / 3
    assert known.all() and values[0, 0].tolist() == [round(color), 0, 0, round(opacity)]


def test_an_image_that_is_only_cropped_keeps_its_pixels() -> None:
    image, seen = noise(RGB), holed()
    values, known = resize_seen(image, seen, (40, 20))
    assert np.array_equal(known, seen[:, 14:34])
    assert np.array_equal(values, np.where(seen, image, 0)[:, 14:34])


def test_the_means_of_what_was_seen_are_near_to_those_of_whole_pixels() -> None:
    """Of blurred noise with a painted box, the pixels at its rim miss the truth by a tenth of what the paint adds."""
    rng = np.random.default_rng(2)
    coarse = rng.integers(60, 190, (24, 24, 3), dtype=np.uint8)
    image = resize_and_crop(coarse, (192, 192))
    seen = np.ones((192, 192, 1), bool)
    seen[50:121, 33:97] = False
    painted = np.where(seen, image, np.array([255, 0, 255], np.uint8))
    values, known = resize_seen(painted, seen, (48, 48))
    truth = resize_and_crop(image, (48, 48)).astype(int)
    rim = known[:, :, 0] & (shares(seen, (48, 48))[:, :, 0] < 1)
    error, naive = (
        np.sqrt(np.square(found.astype(int) - truth)[rim].mean())
        for found in (values, resize_and_crop(painted, (48, 48)))
    )
    assert rim.sum() > 15 and error < 3 and naive > 10 * error
