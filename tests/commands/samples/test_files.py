"""The files of numbered samples: whole, by number, in every format, and in memory that does not grow."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.commands.samples.files import (
    ABANDONED,
    ImageFiles,
    PointFiles,
    SampleFiles,
    files_in,
    foreign,
    pack,
    sweep,
)
from diffusion.data import DataSpec
from diffusion.errors import InputError

GRAY, DEEP = DataSpec((1, 2, 3), 256), DataSpec((2, 2, 3), 65536)
FLOATS = DataSpec((1, 2, 3), None, value_range=(-100.0, 100.0))
PLANE = DataSpec((2,), None)


def images(n: int, spec: DataSpec) -> torch.Tensor:
    x = torch.rand(n, *spec.shape, generator=torch.Generator().manual_seed(0))
    return x if spec.levels is None else (x * spec.top).round() / spec.top


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (GRAY, ".png"),
        (GRAY, ".npy"),
        (DEEP, ".tif"),
        (DEEP, ".npy"),
        (FLOATS, ".npy"),
        (FLOATS, ".tif"),
        (PLANE, ".npy"),
    ],
    ids=str,
)
def test_samples_are_read_as_they_were_written(spec: DataSpec, kind: str, tmp_path: Path) -> None:
    files, x = files_in(tmp_path, spec, kind, 5), images(4, spec)
    files.write(range(3, 7), x, {"seed": 1})
    assert sorted(files.numbers()) == [3, 4, 5, 6] and files.first(2) == [3, 4]
    assert [number in files for number in (2, 3, 6, 7)] == [False, True, True, False]
    for number, expected in zip(range(3, 7), x, strict=True):
        assert torch.allclose(files.read(number), expected, rtol=0, atol=1e-6)


def test_only_what_is_missing_is_written(tmp_path: Path) -> None:
    files, x = ImageFiles(tmp_path, GRAY), images(4, GRAY)
    files.write(range(4), x, {})
    files.path(2).unlink()
    kept = files.path(1).stat().st_mtime_ns
    files.write(range(4), 1 - x, {})
    assert torch.allclose(files.read(2), 1 - x[2], atol=1e-6) and files.path(1).stat().st_mtime_ns == kept


def test_points_fill_the_gaps_between_their_files(tmp_path: Path) -> None:
    files, x = PointFiles(tmp_path), images(10, PLANE)
    files.write(range(2, 4), x[2:4], {})
    files.write(range(6, 7), x[6:7], {})
    files.write(range(10), x, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"points-{i:05d}.npy" for i in (0, 2, 4, 6, 7)]
    assert np.array_equal(np.concatenate([np.load(tmp_path / name) for name in names]), x.numpy())
    again = PointFiles(tmp_path)
    assert sorted(again.numbers()) == list(range(10)) and 10 not in again and -1 not in again
    assert torch.equal(again.read(7), x[7])


def test_what_other_processes_wrote_is_seen_after_looking_again(tmp_path: Path) -> None:
    files = PointFiles(tmp_path)
    PointFiles(tmp_path).write(range(3), images(3, PLANE), {})
    assert 1 not in files
    files.refresh()
    assert 1 in files


def test_other_files_are_no_samples(tmp_path: Path) -> None:
    for name in ("samples.png", "film.gif", "1.png", "00002.tif", "points-x.npy", ".tmp-00003.png-17"):
        (tmp_path / name).write_bytes(b"")
    assert list(ImageFiles(tmp_path, GRAY).numbers()) == [] and list(PointFiles(tmp_path).numbers()) == []


@pytest.mark.parametrize("spec", [GRAY, PLANE], ids=["images", "points"])
def test_one_file_holds_all_of_a_range_in_the_values_of_files(spec: DataSpec, tmp_path: Path) -> None:
    files, x = files_in(tmp_path, spec, ".png", 5), images(5, spec)
    files.write(range(5), x, {})
    pack(files, range(1, 4), tmp_path / "samples.npz")
    found = np.load(tmp_path / "samples.npz")["arr_0"]
    expected = x[1:4].numpy() if spec is PLANE else (x[1:4] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_a_file_that_cannot_be_written_is_not_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: SampleFiles = ImageFiles(tmp_path, GRAY)
    files.write(range(2), images(2, GRAY), {})
    monkeypatch.setattr(ImageFiles, "values", lambda self, number: np.zeros((2, 3, 1)) / (1 - number))
    monkeypatch.setattr(np, "ascontiguousarray", lambda x: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        pack(files, range(2), tmp_path / "samples.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "00001.png"]


def test_a_folder_is_free_if_nothing_that_counts_lies_in_it(tmp_path: Path) -> None:
    assert foreign(tmp_path / "gone") is None and foreign(tmp_path) is None
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert foreign(tmp_path) is None
    (tmp_path / "b.txt").write_bytes(b"")
    assert foreign(tmp_path) == "b.txt"
    with pytest.raises(InputError, match=r"--out: .*b\.txt is a file; name a folder"):
        foreign(tmp_path / "b.txt")


def test_what_was_left_half_written_long_ago_is_removed(tmp_path: Path) -> None:
    for name, age in ((".tmp-old", ABANDONED + 60), (".tmp-new", 10), ("old.png", ABANDONED + 60)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-new", "old.png"]
