"""The quality of a JPEG is that at which it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.commands.photographs.jpeg_quality import jpeg_quality


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 88, 95, 100])
def test_the_quality_of_libjpeg_is_found_exactly(tmp_path: Path, mode: str, quality: int) -> None:
    path = tmp_path / "a.jpg"
    Image.new(mode, (16, 16)).save(path, quality=quality)
    assert jpeg_quality(path) == quality


@pytest.mark.parametrize("steps", [8, 30])
def test_tables_of_another_kind_have_the_quality_that_is_nearest(tmp_path: Path, steps: int) -> None:
    """A flat table of 8 is finer than quality 50, whose steps are 16 to 121, and a table of 30 finer than one of 60."""
    qualities = []
    for step in (steps, 2 * steps):
        Image.new("L", (16, 16)).save(tmp_path / "a.jpg", qtables=[[step] * 64])
        qualities.append(jpeg_quality(tmp_path / "a.jpg"))
    assert qualities[0] is not None and qualities[1] is not None and 100 > qualities[0] > qualities[1] > 20


def test_a_progressive_file_has_its_quality_and_other_formats_have_none(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg", quality=42, progressive=True, optimize=True)
    assert jpeg_quality(tmp_path / "a.jpg") == 42
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    assert jpeg_quality(tmp_path / "a.png") is None


def test_arrays_which_pillow_does_not_open_have_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((16, 16, 3), np.uint8))
    assert jpeg_quality(tmp_path / "a.npy") is None
    with pytest.raises(FileNotFoundError):
        jpeg_quality(tmp_path / "gone.jpg")
