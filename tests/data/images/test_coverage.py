"""What is missing of damaged images, in closed form: halves, single pixels, places that nobody has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.coverage import Coverage, cover
from diffusion.data.images.scan import scan


def covered(folder: Path, masks: list[np.ndarray], size: tuple[int, int] = (16, 16)) -> Coverage:
    """The coverage of images whose alpha is that of masks (H, W) of 1 for seen."""
    for number, mask in enumerate(masks):
        pixels = np.dstack([np.full((*mask.shape, 3), 90, np.uint8), (255 * mask).astype(np.uint8)])
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return cover(scan(folder, labels=False, masks="alpha", progress=False), size, progress=False)


def left_half(side: int = 16) -> np.ndarray:
    return np.arange(side)[None, :].repeat(side, 0) < side // 2


def test_one_half_is_always_missing(tmp_path: Path) -> None:
    """Pairs of 64 places of which 32 were seen: all but 32 · 31 of 64 · 63 were never seen together."""
    found = covered(tmp_path, [left_half()] * 3)
    assert np.array_equal(found.places, (np.arange(8) < 4)[None].repeat(8, 0))
    assert found.never == pytest.approx(1 - 32 * 31 / (64 * 63), abs=1e-12) and (found.shares == 0.5).all()
    lines = found.lines((16, 16))
    assert lines[0] == "missing   50.0% of the pixels at 16x16; of an image 50.0% in the median, 50.0% at worst: 0.png"
    assert lines[2] == "          100 100 100 100   0   0   0   0" and len(lines) == 11
    assert lines[-1] == (
        "pairs     75.4% of the pairs of 64 places were never seen together in any image, for 32 of the places were "
        "never seen; how they belong together cannot be learned"
    )


def test_one_half_or_the_other_is_missing(tmp_path: Path) -> None:
    """Every place was seen, and no place together with one of the other half: 2 · 32 · 32 pairs of 64 · 63."""
    found = covered(tmp_path, [left_half(), ~left_half(), left_half(), ~left_half()])
    assert (found.places == 0.5).all() and found.never == pytest.approx(2 * 32 * 32 / (64 * 63), abs=1e-12)
    assert found.lines((16, 16))[-1] == (
        "pairs     50.8% of the pairs of 64 places were never seen together in any image; how they belong together "
        "cannot be learned"
    )
    whole = covered(tmp_path, [left_half(), ~left_half(), left_half(), ~left_half(), np.ones((16, 16), bool)])
    assert whole.never == 0 and whole.lines((16, 16))[-1].endswith(
        "0.0% of the pairs of 64 places were never seen together in any image"
    )


def test_single_pixels_that_are_missing_at_random_leave_no_pair_out(tmp_path: Path) -> None:
    """Of pairs, a share (1 - p²)ⁿ is never seen together, p = 0.7 that of seen pixels in n images, within 4 errors."""
    rng = np.random.default_rng(0)
    found = covered(tmp_path, [rng.random((16, 16)) < 0.7 for _ in range(6)])
    expected = (1 - 0.7**2) ** 6
    assert abs(found.never - expected) < 4 * (expected / (64 * 63 / 2)) ** 0.5 * 3
    assert abs(found.places.mean() - 0.7) < 0.05


def test_images_count_as_they_are_trained(tmp_path: Path) -> None:
    """The crop of the size is looked at alone, in its pixels; images that are unusable do not count."""
    wide = np.zeros((16, 48), bool)
    wide[:, 16:32] = True
    found = covered(tmp_path, [wide, np.zeros((16, 16), bool), np.ones((32, 32), bool)])
    assert found.names == ("0.png", "2.png") and (found.shares == 1).all() and found.never == 0
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    again = cover(scan(tmp_path, labels=False, masks="alpha", progress=False), (8, 24), progress=False)
    assert again.names == ("0.png",) and again.shares[0] == pytest.approx(1 / 3)
    assert np.abs(again.places.mean(0) - np.array([0, 0, 1 / 3, 1, 1, 1 / 3, 0, 0])).max() < 1e-12


def test_a_size_below_the_grid_has_its_own_pixels_as_places(tmp_path: Path) -> None:
    found = covered(tmp_path, [left_half()], size=(4, 4))
    assert found.places.shape == (4, 4) and found.never == pytest.approx(1 - 8 * 7 / (16 * 15))
    nothing = covered(tmp_path, [np.zeros((16, 16), bool)], size=(4, 4))
    assert nothing.lines((4, 4)) == ["missing   of no image it could be told what is missing"]
