"""Pictures keep every pixel where their share allows it, and fit it in any case."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.reporting.pictures import embedded, facts, listed, spread


def opened(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def drawn(path: Path, side: int, *, flat: bool = False) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    values = np.full_like(values, 7) if flat else values
    Image.fromarray(values).save(path)
    return values


@pytest.mark.parametrize(("side", "flat"), [(8, False), (64, False), (300, True)])
def test_a_picture_within_its_share_keeps_every_pixel(tmp_path: Path, side: int, flat: bool) -> None:
    values = drawn(path := tmp_path / "a.png", side, flat=flat)
    picture = embedded(path, 20_000)
    assert picture is not None and len(picture.url) <= 20_000 and (picture.width, picture.height) == (side, side)
    assert (opened(picture.url) == values).all()


@pytest.mark.parametrize("most", [60_000, 20_000, 3_000])
def test_a_picture_that_no_encoder_makes_small_fits_its_share(tmp_path: Path, most: int) -> None:
    drawn(path := tmp_path / "a.png", 256)
    picture = embedded(path, most)
    assert picture is not None and most / 4 < len(picture.url) <= most and picture.width == 256


def test_lossy_pictures_look_the_same(tmp_path: Path) -> None:
    """A smooth picture with small noise, whose pixels are four wide as in a grid: above 38 dB."""
    small = np.random.default_rng(0).normal(0, 6, (64, 64, 3)) + np.linspace(40, 200, 64)[:, None, None]
    values = np.kron(small.clip(0, 255).round(), np.ones((4, 4, 1))).astype(np.uint8)
    Image.fromarray(values).save(path := tmp_path / "a.png")
    picture = embedded(path, path.stat().st_size)
    assert picture is not None
    error = ((opened(picture.url) - values.astype(float)) ** 2).mean()
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 38


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    drawn(path := tmp_path / "a.png", 8)
    first = embedded(path, 9_000)
    drawn(path, 8, flat=True)
    os.utime(path, ns=(1, 1))
    assert embedded(path, 9_000) != first


def test_missing_and_damaged_files_are_none(tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert embedded(None, 999) is None and embedded(tmp_path / "b.png", 999) is None and embedded(path, 999) is None
    assert facts(path) == {} and facts(None) == {}


def test_spread_keeps_the_ends_and_ever_fewer_between() -> None:
    assert spread([3, 5], 60) == [3, 5] and spread([], 60) == []
    steps = [*range(10, 10_010, 10)]
    found = spread(steps, 60)
    assert (found[0], found[-1]) == (10, 10_000) and 50 <= len(found) <= 60 and found == sorted(set(found))
    gaps = np.diff(found)
    assert gaps[0] == 10 and gaps[-1] > 50 * gaps[0]


def test_many_names_are_counted() -> None:
    assert listed(["a", "b"]) == "a, b" and listed([str(i) for i in range(20)], 2) == "0, 1 and 18 more"
