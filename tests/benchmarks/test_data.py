from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from benchmarks import data
from benchmarks.common import Spread
from benchmarks.data import Options

OPTIONS = Options(images=30, side=48, size=16, batch=8, workers=0, rounds=1, grow=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generated") / "images"
    data.write_images(path, OPTIONS.images, OPTIONS.side)
    return path


def test_both_loaders_deliver_the_same_images(folder: Path, tmp_path: Path) -> None:
    dataset = data.ours(folder, tmp_path / "cache", OPTIONS.size)
    theirs = data.image_folder(folder, OPTIONS, flip=False).dataset
    assert len(theirs) == len(dataset) == OPTIONS.images
    values, labels = dataset.batch(range(len(dataset)))
    assert labels is not None
    assert labels.tolist() == [label for _, label in theirs]
    pixels = torch.stack([x for x, _ in theirs]) * 127.5 + 127.5
    # One side shrinks by Lanczos, the other by a triangle; 48 to 16 leaves some of the noise of 20 levels.
    assert float((pixels - values).abs().mean()) < 4
    assert float((pixels - values).mean().abs()) < 0.5


def test_an_epoch_has_every_image_once_and_half_of_them_mirrored(folder: Path, tmp_path: Path) -> None:
    dataset = data.ours(folder, tmp_path / "cache", OPTIONS.size)
    mirrored = 0
    stored = dataset.spec.encode(dataset.batch(range(OPTIONS.images))[0])
    for epoch in range(4):
        seen = torch.cat([x for x, _ in data.our_batches(dataset, OPTIONS.batch, epoch)]).cpu()
        same, flipped = ((seen[:, None] == other).flatten(2).all(2) for other in (stored, stored.flip(-1)))
        assert (same | flipped).sum(0).tolist() == [1] * OPTIONS.images
        mirrored += int(flipped.sum())
    assert abs(mirrored - 60) < 4 * 30**0.5
    theirs = data.their_batches(data.image_folder(folder, OPTIONS))
    assert data.count_images(theirs) == OPTIONS.images


def test_the_folder_grows_by_links(folder: Path, tmp_path: Path) -> None:
    data.link_images(folder, tmp_path / "grown", 3)
    paths = [*(tmp_path / "grown").rglob("*.jpg")]
    assert len(paths) == 3 * OPTIONS.images
    assert len({path.stat().st_ino for path in paths}) == OPTIONS.images
    assert len(data.ours(tmp_path / "grown", tmp_path / "cache", 16)) == 3 * OPTIONS.images


def test_the_shards_hold_the_images_of_the_folder(folder: Path, tmp_path: Path) -> None:
    data.write_shards(folder, tmp_path / "shards")
    whole, sharded = (data.ours(path, tmp_path / "cache", OPTIONS.size) for path in (folder, tmp_path / "shards"))
    expected, found = (dataset.batch(range(OPTIONS.images)) for dataset in (whole, sharded))
    assert torch.equal(expected[0], found[0])
    assert expected[1] is not None and found[1] is not None and torch.equal(expected[1], found[1])


def test_every_figure_is_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PACKED_IMAGES", 60)
    data.write_shards(folder, tmp_path / "shards")
    rates = data.throughput(folder, OPTIONS, tmp_path)
    assert len(rates) == 5
    assert all(len(values) == 1 and values[0] > 0 and math.isfinite(values[0]) for values in rates.values())
    for task in ("pack", "packed", "imagefolder"):
        used = data.child(task, folder, tmp_path / "small", OPTIONS)
        assert used.keys() == {"own", "mapped", "peak"}
        assert 0 < used["own"] <= used["own"] + used["mapped"] < 1.5 * used["peak"]


def test_the_tables_hold_medians_and_memory_by_images() -> None:
    found = data.tables(
        {"ours, packed": [3.0, 1.0, 2000.0]}, {"stepped": [4.0]}, [{"images": 600.0, "packed, own": 200.4}]
    )
    assert found["From a folder to batches"] == [{"loader": "ours, packed", "images/s": Spread(3.0, 2.0, 1001.5)}]
    assert found["MiB of memory"] == [{"images": 600, "packed, own": 200.4}]
