from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion.data import Dataset, FolderError, open_folder
from diffusion.data.images.open_folder import FEW_BAD
from tests.bad_images import FOUND_BY_DECODING, GOOD, GREEN, RED, solid


def test_the_worst_folder_becomes_a_dataset_and_a_log(zoo: Path) -> None:
    lines: list[str] = []
    dataset = open_folder(zoo, size=(8, 12), margin=2, log=lines.append, progress=False)
    assert len(dataset) == len(GOOD)
    assert dataset.spec.shape == (3, 8, 12)
    values, labels = dataset.batch([0, 1])
    assert (values.shape, labels) == ((2, 3, 12, 16), None)
    assert dataset.center(values).shape == (2, 3, 8, 12)
    text = "\n".join(lines)
    assert text.startswith(f"folder    {zoo}")
    assert "enlarged  9 images, smaller than 16x12" in text
    for name in FOUND_BY_DECODING:
        assert f"left out  {name}: " in text


def test_labels_and_copies(tmp_path: Path) -> None:
    lines: list[str] = []
    for name, color in (("cat", RED), ("dog", GREEN)):
        (tmp_path / name).mkdir()
        for i in range(4):
            solid(color).save(tmp_path / name / f"{i}.png")
    dataset = open_folder(tmp_path, size=(4, 4), labels=True, cache=tmp_path.parent / "c", log=lines.append)
    assert isinstance(dataset, Dataset)
    assert dataset.spec.classes == ("cat", "dog")
    assert np.array_equal(dataset.labels, [0] * 4 + [1] * 4)
    assert lines[-1].startswith("copies    6 files repeat another")


def test_many_bad_files_stop_it_unless_allowed(tmp_path: Path) -> None:
    for i in range(30):
        solid((8 * i, 0, 0)).save(tmp_path / f"{i}.png")
    options = {"size": (4, 4), "cache": tmp_path.parent / "bad", "progress": False}
    for i in range(FEW_BAD):
        (tmp_path / f"bad{i}.png").write_bytes(b"")
    assert len(open_folder(tmp_path, **options)) == 30
    (tmp_path / "one_more.png").write_bytes(b"")
    with pytest.raises(FolderError, match=r"11 of 41 files .* cannot be used, .* data\.max_bad, 0\.01; "):
        open_folder(tmp_path, **options)
    assert len(open_folder(tmp_path, **options, max_bad=0.3)) == 30


def test_too_few_images(tmp_path: Path) -> None:
    solid(RED).save(tmp_path / "a.png")
    cache = tmp_path.parent / "few"
    with pytest.raises(FolderError, match=r"1 images in .*, at least 8 are needed.*data\.min_images=1"):
        open_folder(tmp_path, size=(4, 4), cache=cache, log=lambda line: None)
    assert len(open_folder(tmp_path, size=(4, 4), cache=cache, log=lambda line: None, min_images=1)) == 1


def test_what_the_crop_does_is_said_before_the_images_are_packed(tmp_path: Path) -> None:
    lines: list[str] = []
    for i in range(8):
        solid((8 * i, 0, 0), (160, 40)).save(tmp_path / f"{i}.png")
    open_folder(tmp_path, size=(32, 32), margin=2, cache=tmp_path.parent / "c", log=lines.append, progress=False)
    assert (
        "crop      36x36 (height x width) from the middle cuts off 75% of the area, more than half of 8 images" in lines
    )


def test_a_single_image_is_a_folder_of_one(tmp_path: Path) -> None:
    for name, color in (("a.png", RED), ("b.png", GREEN)):
        solid(color).save(tmp_path / name)
    cache, silent = tmp_path.parent / "single", lambda line: None
    dataset = open_folder(tmp_path / "b.png", size=(4, 4), cache=cache, min_images=1, log=silent, progress=False)
    assert dataset.names == ("b.png",)
    assert dataset.batch([0])[0][0, :, 0, 0].tolist() == [*GREEN]
