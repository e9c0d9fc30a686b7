"""The images are the same from either kind of file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import cifar
from diffusion.errors import InputError


def rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)


def test_the_binary_version_is_read_in_its_order(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    parts = [rows(2, seed) for seed in range(5)]
    for number, part in enumerate(parts, 1):
        part.tofile(folder / f"data_batch_{number}.bin")
    rows(3, 9).tofile(folder / "test_batch.bin")
    train, test = (cifar.read(tmp_path, part) for part in ("train", "test"))
    assert train.values.shape == (10, 3, 32, 32) and test.values.shape == (3, 3, 32, 32)
    assert train.label.tolist() == [int(row[0]) for part in parts for row in part]
    assert train.values[3, 1, 2, 5] == parts[1][1][1 + 1024 + 2 * 32 + 5]


def test_a_zip_is_read_in_the_order_of_its_numbers_whatever_the_classes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("index.csv", "")
        for i, name in enumerate(("train/dog/10.png", "train/cat/9.png", "train/dog/2.png", "test/cat/0.png")):
            path = tmp_path / "one.png"
            Image.fromarray(pixels[i]).save(path)
            archive.write(path, name)
    train, test = (cifar.read(tmp_path, part) for part in ("train", "test"))
    assert train.label.tolist() == [1, 0, 1] and test.label.tolist() == [0]
    assert torch.equal(train.values, torch.from_numpy(pixels[[2, 1, 0]]).movedim(3, 1))


def test_a_folder_with_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data: must hold data_batch_.*bin or a zip"):
        cifar.read(tmp_path, "train")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("train/cat/readme.txt", "")
    with pytest.raises(InputError, match="must hold images in test/CLASS"):
        cifar.read(tmp_path, "test")
