"""The problem of each image, with what is shown and noted of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.commands.options import Inpaint, Restore
from diffusion.commands.photographs import tasks
from diffusion.commands.photographs.images import Marking
from diffusion.commands.photographs.listing import ImageFile
from diffusion.model import Model, load
from diffusion.operators import Mask
from tests.photographs import hole, photo


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained)


def files(folder: Path) -> ImageFile:
    photo().save(folder / "x.png")
    hole().save(folder / "x_mask.png")
    return ImageFile(folder / "x.png", folder / "x_mask.png", Path("x"), beside=True)


def test_what_is_unknown_is_shown_gray_and_told(model: Model, tmp_path: Path) -> None:
    found = tasks.masked(model, Inpaint(tmp_path, ()), files(tmp_path), Marking())
    known = np.asarray(hole()) > 0
    assert found.known is not None and np.array_equal(found.known[0].numpy(), known)
    assert isinstance(found.problem.operator, Mask) and found.problem.noise == 0
    assert np.array_equal((found.damaged * 255).round().numpy()[:, known], np.asarray(photo())[known].T)
    assert (found.damaged[:, torch.tensor(~known)] == 0.5).all()
    assert found.note == {"mask": "x_mask.png", "noise": 0.0, "filled": pytest.approx(1 - known.mean())}
    assert any("x_mask.png" in line for line in found.notices), "the mask was not named"


def test_an_image_is_damaged_by_noise_of_its_number(model: Model, tmp_path: Path) -> None:
    command = Restore(tmp_path, (), operator="denoise", noise=0.1, damage=True)
    first, again, second = (tasks.damaged(model, command, number, files(tmp_path)) for number in (0, 0, 1))
    assert torch.equal(first.damaged, again.damaged) and not torch.equal(first.damaged, second.damaged)
    assert first.original is not None and torch.equal(first.original, again.original)
    noise = first.damaged - first.original
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert first.note == {"operator": "denoise", "noise": 0.1, "damage": True}


def test_what_was_degraded_tells_its_size_before(model: Model, tmp_path: Path) -> None:
    command = Restore(tmp_path, (), operator="downsample:factor=2", noise=0.02)
    found = tasks.degraded(model, command, 0, files(tmp_path))
    assert found.problem.shape == (3, 96, 128) and found.damaged.shape == (3, 48, 64) and found.known is None
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal((found.damaged * 255).round().permute(1, 2, 0).numpy(), np.asarray(image))
