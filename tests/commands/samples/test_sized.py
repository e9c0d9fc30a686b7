"""Images at the size of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.commands.samples.sized import parse_size, read_sized
from diffusion.data import DataSpec, resize_and_crop
from diffusion.errors import InputError
from diffusion.model import load
from tests.conftest import image_of

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_an_image_is_resized_and_cropped_as_in_training_and_that_is_said(trained: Path, tmp_path: Path) -> None:
    model = load(trained)
    Image.fromarray(PIXELS).save(tmp_path / "large.png")
    x, line = read_sized(tmp_path / "large.png", model)
    assert np.array_equal((x * 255).round().byte().permute(1, 2, 0), resize_and_crop(PIXELS, (8, 8)))
    assert line == "large.png: 30 x 20 pixels, resized and cropped to 8 x 8"
    Image.fromarray(PIXELS[:8, :8]).save(tmp_path / "fits.png")
    x, line = read_sized(tmp_path / "fits.png", model)
    assert line == "" and torch.equal((x * 255).round().byte(), image_of(tmp_path / "fits.png"))


def test_points_take_no_images(trained: Path, tmp_path: Path) -> None:
    model = replace(load(trained), spec=DataSpec((2,), None))
    with pytest.raises(InputError, match=r"x\.png: this model was trained on points, and takes no images"):
        read_sized(tmp_path / "x.png", model)


def test_a_size_is_a_height_and_a_width_or_one_number_for_both() -> None:
    assert [parse_size(text) for text in ("128x256", "64", "16X8", None)] == [(128, 256), (64, 64), (16, 8), None]
    for text in ("", "x", "12x", "1x2x3", "-4", "0x8", "8.5", "wide"):
        with pytest.raises(InputError, match="--size: must be a height and a width, as in 128x256, or one number"):
            parse_size(text)
