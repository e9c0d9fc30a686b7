"""Drawing into a folder: batch by batch, in constant memory, on from where a signal ended it."""

from __future__ import annotations

import gc
import os
import signal
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import distributed
from diffusion.commands.samples.files import ImageFiles, PointFiles
from diffusion.commands.samples.sampling import PICTURED, PLOTTED, Job
from diffusion.data import DataSpec
from diffusion.figures import read_info
from tests.conftest import image_of

PLANE, GRAY = DataSpec((2,), None), DataSpec((1, 2, 2), 256)
INFO = {"step": 7, "seed": 0}


def values(numbers: range) -> torch.Tensor:
    return torch.tensor([[float(i), -float(i)] for i in numbers])


def job(folder: Path, numbers: range, batch: int, **options: object) -> Job:
    files = PointFiles(folder)
    given = {"draw": values, "picture": False, **options}
    return Job(folder, files, numbers, batch, spec=PLANE, info=INFO, **given)  # type: ignore[arg-type]


def test_of_a_hundred_thousand_samples_one_batch_is_held(tmp_path: Path) -> None:
    """Of each batch nothing is left when the next one is drawn."""
    alive: list[weakref.ref[torch.Tensor]] = []

    def draw(numbers: range) -> torch.Tensor:
        gc.collect(0)
        assert sum(ref() is not None for ref in alive) <= 1
        x = torch.zeros(len(numbers), 2)
        alive.append(weakref.ref(x))
        return x

    assert job(tmp_path, range(100_000), 1000, draw=draw).run() == 0
    assert len(alive) == 100 and sum(len(np.load(path)) for path in tmp_path.iterdir()) == 100_000


def test_the_memory_is_that_of_a_batch_whatever_the_number(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000, 12_000):
        (tmp_path / str(n)).mkdir()
        tracemalloc.start()
        assert job(tmp_path / str(n), range(n), 1000, draw=lambda some: torch.zeros(len(some), 2)).run() == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000, "ten thousand numbers alone would take 280,000 bytes"


def test_batches_begin_at_multiples_of_their_size_whatever_is_there(tmp_path: Path) -> None:
    drawn: list[range] = []

    def draw(numbers: range) -> torch.Tensor:
        drawn.append(numbers)
        return values(numbers)

    job(tmp_path, range(5, 7), 4, draw=draw).run()
    job(tmp_path, range(0, 13), 4, draw=draw).run()
    assert drawn == [range(5, 7), range(4), range(4, 8), range(8, 12), range(12, 13)]
    job(tmp_path, range(0, 13), 4, draw=draw).run()
    assert len(drawn) == 5
    assert np.array_equal(np.stack([PointFiles(tmp_path).values(i) for i in range(13)]), values(range(13)).numpy())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_leaves_whole_files_and_says_how_far_it_came(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(numbers: range) -> torch.Tensor:
        if 6 in numbers:
            os.kill(os.getpid(), number)
        return values(numbers)

    assert job(tmp_path, range(10), 3, draw=draw).run() == 128 + number
    assert f"{tmp_path}: stopped with 6 of 10 samples written; the same command goes on" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points-00000.npy", "points-00003.npy"]
    assert job(tmp_path, range(10), 3).run() == 0
    assert ", 6 of them there already, seed 0" in capsys.readouterr().out


def test_processes_divide_the_batches_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, list[range]] = {0: [], 1: []}
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "largest", lambda number: number)
    for rank in (1, 0):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        job(tmp_path, range(10), 2, draw=lambda some, rank=rank: drawn[rank].append(some) or values(some)).run()
    assert drawn == {0: [range(0, 2), range(4, 6), range(8, 10)], 1: [range(2, 4), range(6, 8)]}
    assert sorted(PointFiles(tmp_path).numbers()) == list(range(10))


def test_the_picture_shows_the_first_of_what_the_folder_holds(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, GRAY)

    def shades(numbers: range) -> torch.Tensor:
        return torch.tensor([i / 255 for i in numbers]).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)

    for numbers in (range(100), range(3)):
        Job(tmp_path, files, numbers, 50, shades, GRAY, INFO).run()
        shown = image_of(tmp_path / "samples.png")[0].unique().tolist()
        assert [value for value in shown if value < 228] == list(range(PICTURED)), "228 is the paper between the tiles"
    assert read_info(tmp_path / "samples.png")["step"] == 7


def test_images_of_any_number_of_channels_and_many_points_have_a_picture(tmp_path: Path) -> None:
    for channels, kind in ((2, ".npy"), (6, ".npy")):
        spec = DataSpec((channels, 8, 8), 256)
        (folder := tmp_path / str(channels)).mkdir()
        files = ImageFiles(folder, spec, kind)
        Job(folder, files, range(2), 2, lambda some, spec=spec: torch.rand(2, *spec.shape), spec, INFO).run()
        assert (folder / "samples.png").exists()
    (tmp_path / "points").mkdir()
    assert job(tmp_path / "points", range(PLOTTED + 500), 1000, picture=True).run() == 0
    assert (tmp_path / "points" / "samples.png").exists()
