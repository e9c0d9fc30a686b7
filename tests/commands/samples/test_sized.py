"""Images at the size of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.commands.samples.sized import read_sized
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
