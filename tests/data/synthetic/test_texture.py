"""Crops of a photograph come from all places equally often, and never from its hole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import DataOptions, ImageError, PixelFormat, open_source, texture
from diffusion.data.images.scan import FolderError
from diffusion.data.synthetic.texture import Places

SIZE = 4, 5


def save(path: Path, height: int = 9, width: int = 12, first: int = 0) -> np.ndarray:
    """A gray image whose pixels are all different."""
    pixels = (first + np.arange(height * width, dtype=np.uint8)).reshape(height, width)
    Image.fromarray(pixels).save(path)
    return pixels


def silent(text: str) -> None: ...


def crops(path: Path, n: int = 6000, seed: int = 0, hole: int = 0) -> torch.Tensor:
    data = texture(path, n, seed, size=SIZE, pixel_format=PixelFormat(1), hole=hole, log=silent)
    return data.batch(range(n))[0][:, 0]


def test_crops_are_parts_of_the_photograph_and_every_place_is_equally_likely(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png")
    found = crops(tmp_path / "a.png")
    corners = found[:, 0, 0].numpy()
    for crop, corner in zip(found[:200].numpy(), corners, strict=False):
        row, column = divmod(int(corner), 12)
        assert np.array_equal(crop, pixels[row : row + 4, column : column + 5])
    _, counts = np.unique(corners, return_counts=True)
    expected = len(found) / (6 * 8)
    assert len(counts) == 6 * 8
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 47 + 4 * np.sqrt(2 * 47)


@pytest.mark.parametrize("hole", [1, 2, 3])
def test_no_crop_touches_the_hole_and_all_others_occur(tmp_path: Path, hole: int) -> None:
    pixels = save(tmp_path / "a.png", 13, 17)
    top, left = (13 - hole) // 2, (17 - hole) // 2
    inside = set(pixels[top : top + hole, left : left + hole].ravel().tolist())
    found = crops(tmp_path / "a.png", hole=hole)
    assert not inside & set(found.flatten().tolist())
    allowed = [
        (row, column)
        for row in range(10)
        for column in range(13)
        if not inside & set(pixels[row : row + 4, column : column + 5].ravel().tolist())
    ]
    places = Places((13, 17), SIZE, hole)
    assert sorted(places(i) for i in range(places.count)) == allowed
    assert len(np.unique(found[:, 0, 0])) == len(allowed)


def test_a_crop_is_a_function_of_the_seed_and_its_number(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    few, many = crops(tmp_path / "a.png", 20), crops(tmp_path / "a.png", 50)
    assert torch.equal(few, many[:20])
    assert not torch.equal(few, crops(tmp_path / "a.png", 20, seed=1))


def test_of_a_folder_larger_images_give_more_crops_and_one_is_held_out_whole(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 4, 6)
    save(tmp_path / "b.png", 9, 12, first=100)
    save(tmp_path / "small.png", 3, 12)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    log: list[str] = []
    options = DataOptions(source="texture", path=str(tmp_path), size=SIZE, channels=1, count=2000)
    data = open_source(options, log.append)
    assert any("small.png" in line for line in log)
    values, _ = data.batch(range(2000))
    of_a = (values[:, 0, 0, 0] < 100).float().mean()
    assert float(of_a) == pytest.approx(2 / (2 + 6 * 8), abs=0.02)
    sides = [set((part.batch(range(len(part)))[0][:, 0, 0, 0] < 100).tolist()) for part in data.split(0.1, 0)]
    assert sorted(map(sorted, sides)) == [[False], [True]]


def test_with_one_photograph_nothing_is_held_out(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    data = open_source(DataOptions(source="texture", path=str(tmp_path / "a.png"), size=SIZE, channels=1), silent)
    training, held_out = data.split(0.1, 0)
    assert len(training) == len(data) and len(held_out) == 0
    x = data.spec.encode(data.batch(range(4000))[0])
    assert abs(float(x.mean())) < 0.03 and float(x.std()) == pytest.approx(1, abs=0.03)


def test_what_cannot_be_cropped_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(FolderError, match=re.escape("data.size: no image at")):
        texture(tmp_path / "a.png", 5, 0, size=(10, 5), pixel_format=PixelFormat(1), log=silent)
    with pytest.raises(FolderError, match=re.escape("beside a hole of 6")):
        texture(tmp_path / "a.png", 5, 0, size=(4, 5), pixel_format=PixelFormat(1), hole=6, log=silent)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=re.escape("b.png")):
        texture(tmp_path / "b.png", 5, 0, size=SIZE, log=silent)
    with pytest.raises(FolderError, match=re.escape("data.path: is not set")):
        open_source(DataOptions(source="texture"), silent)
