"""What is measured and filled is the square that no crop of the training touches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.experiments import texture
from benchmarks.experiments.setting import Setting
from diffusion.data.synthetic.texture import Places
from diffusion.errors import InputError
from diffusion.evaluation import Estimate
from tests.benchmarks.experiments.conftest import Shrink


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "b.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 53), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("size", "side"), [((40, 53), 12), ((41, 30), 13), ((20, 20), 1)])
def test_the_square_is_what_no_crop_touches_and_every_other_pixel_may_be_seen(size: tuple[int, int], side: int) -> None:
    seen = np.zeros(size, bool)
    places = Places(size, (4, 5), side)
    for number in range(places.count):
        row, column = places(number)
        seen[row : row + 4, column : column + 5] = True
    square = texture.hole(size, side)
    assert not seen[square].any() and (~seen).sum() == side**2


def test_the_crops_are_the_corners() -> None:
    image = torch.arange(10 * 12).reshape(1, 10, 12)
    crops = texture.corners(image, (7, 8))
    assert [int(crop[0, 0, 0]) for crop in crops] == [0, 4, 36, 40]
    assert torch.equal(crops[3], image[:, 3:, 4:])
    assert torch.equal(texture.corners(image, (10, 12)), image[None])


def test_a_photograph_is_a_file_or_the_first_of_a_folder(photo: Path) -> None:
    Image.new("L", (2, 2)).save(photo.with_name("a.png"))
    assert texture.photograph(photo) == photo
    assert texture.photograph(photo.parent).name == "a.png"
    with pytest.raises(InputError, match="--data: must hold an image file"):
        texture.photograph(Path(__file__).parent / "none")


def test_the_hole_is_filled_and_its_surroundings_kept(
    photo: Path, setting: Setting, shrink: Shrink, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink("data.size=8", "data.hole=12", "data.count=50", "backbone.channels=[8,8]", "training.batch=4")
    monkeypatch.setattr(texture, "DRAWS", 4)
    monkeypatch.setattr(texture, "STEPS", 2)
    given = Setting(setting.folder, setting.minutes, photo.parent)
    tables, goals = texture.run(given)
    ((title, rows),) = tables.items()
    assert "crops of 8x8" in title and goals == []
    k, over, bits = (rows[0][column] for column in ("K, bits/pixel", "K − L_null", "bits/dim"))
    assert isinstance(k, Estimate) and isinstance(over, Estimate) and isinstance(bits, Estimate)
    assert over.mean - k.mean == pytest.approx(2.0471, abs=1e-3) and 4 < bits.mean < 40
    with Image.open(setting.folder / "texture.png") as picture:
        # Damaged, mask, two restorations, mean, deviation, original: each 40 x 53, twice enlarged; two methods.
        assert picture.width > 7 * 2 * 53 and picture.height > 2 * 2 * 40
    assert {path.name for path in setting.folder.glob("texture-*.png")} == {
        "texture-forward.png",
        "texture-reverse.png",
    }


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data: must name a photograph.*, got nothing"):
        texture.run(Setting(tmp_path))
