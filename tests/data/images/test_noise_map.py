"""Maps of noise are read as standard deviations where they are floats, and as shares of white where they are gray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.data.images.noise_map import read_noise_map
from diffusion.errors import InputError

LEVELS = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def test_floats_are_standard_deviations(tmp_path: Path) -> None:
    values = (LEVELS / 100).astype(np.float32)
    np.save(tmp_path / "map.npy", values.astype(np.float64))
    Image.fromarray(values).save(tmp_path / "map.tiff")
    for name in ("map.npy", "map.tiff"):
        found = read_noise_map(tmp_path / name)
        assert not found.gray and found.values.dtype == np.float32 and np.array_equal(found.values, values)


def test_gray_levels_are_shares_of_white(tmp_path: Path) -> None:
    images = {
        "L": Image.fromarray(LEVELS),
        "RGB": Image.fromarray(LEVELS).convert("RGB"),
        "I;16": Image.fromarray(LEVELS.astype(np.uint16) * 257),
        "P": Image.fromarray(LEVELS).convert("P"),
    }
    for mode, image in images.items():
        image.save(tmp_path / f"{mode[0]}.png")
        for found in (read_noise_map(tmp_path / f"{mode[0]}.png"), read_noise_map(image)):
            assert found.gray and np.allclose(found.values, LEVELS / 255, rtol=0, atol=1e-7), mode
    black = read_noise_map(Image.fromarray(LEVELS > 100))
    assert np.array_equal(black.values, LEVELS > 100)


def test_a_turned_image_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(LEVELS)
    exif = image.getexif()
    exif[0x0112] = 6  # Turned by a quarter.
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.allclose(read_noise_map(tmp_path / "turned.png").values, np.rot90(LEVELS, -1) / 255)


def test_what_is_no_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    np.save(tmp_path / "whole.npy", LEVELS)
    Image.fromarray(np.stack([LEVELS, LEVELS, 255 - LEVELS], 2)).save(tmp_path / "colors.png")
    Image.fromarray(LEVELS).convert("LA").save(tmp_path / "opaque.png")
    for name, message in (
        ("text.png", r"--noise-map: .*text.png cannot be read as an image or a .npy file \("),
        ("missing.npy", r"--noise-map: .*missing.npy cannot be read as an image or a .npy file \("),
        ("whole.npy", r"--noise-map: .*whole.npy must hold floats, standard deviations .*, got uint8"),
        ("colors.png", r"--noise-map: .*colors.png must be a gray image without transparency, or hold floats, got RGB"),
    ):
        with pytest.raises(InputError, match=message):
            read_noise_map(tmp_path / name, "--noise-map")
    assert read_noise_map(tmp_path / "opaque.png").gray
