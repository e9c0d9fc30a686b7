"""Orders of checkpoints by distances: ranks, agreement, and a tiny training from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import checkpoints, judge
from benchmarks.checkpoints import agreement, goals_of, ranks
from benchmarks.judge import Judge
from diffusion.distances import Comparison, Interval


def comparison(value: float, half_width: float = 0.1) -> Comparison:
    interval = Interval(value, value - half_width, value + half_width)
    return Comparison(interval, interval, interval, 10, 0.95)


def test_ranks_begin_with_the_smallest_distance() -> None:
    assert ranks([comparison(3), comparison(1), comparison(2)]) == [3, 1, 2]


def test_only_differences_beyond_their_intervals_count_as_disagreements() -> None:
    falling = [comparison(value) for value in (3, 2, 1)]
    assert agreement(falling, falling) == (1, 0)
    assert agreement(falling, falling[::-1]) == (-1, 3)
    last_two = [comparison(3), comparison(1), comparison(1.1)]
    assert agreement(falling, last_two) == (pytest.approx(1 / 3), 0)
    assert agreement(falling, [comparison(3), comparison(1), comparison(1.3)]) == (pytest.approx(1 / 3), 1)


def test_the_goals_are_of_the_distances_of_patches_alone() -> None:
    falling = [comparison(value) for value in (3, 2, 1)]
    found = {"sliced_wasserstein": falling, "patch_mmd": falling[::-1], "kernel": falling[::-1], "frechet": falling}
    goals, rows = goals_of(found)
    assert [goal.met for goal in goals] == [True, False] and len(rows) == 4


def test_a_tiny_training_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for i in range(8):
            values = rng.integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "data" / str(label) / f"{i}.png")
    trainings: list[int] = []
    monkeypatch.setattr(judge, "train", lambda given: (trainings.append(len(given.values)), Judge().eval())[1])
    arguments = ["checkpoints", "configs/fashion_mnist.toml", "--data", str(tmp_path / "data")]
    arguments += [
        "--judge",
        str(tmp_path),
        "--steps",
        "1",
        "3",
        "--samples",
        "6",
        "--out",
        str(tmp_path / "out.json"),
        "--set",
    ]
    small = ["backbone.channels=[4,4]", "backbone.attention=[]", "training.batch=4", "training.precision=fp32"]
    monkeypatch.setattr(sys, "argv", [*arguments, *small, "data.held_out=0.2", "sampling.precision=fp32"])
    torch.manual_seed(0)
    checkpoints.main()
    checkpoints.main()
    tables = json.loads((tmp_path / "out.json").read_text())["tables"]
    first = next(iter(tables.values()))
    assert [row["step"] for row in first] == [1, 3, "floor"] and len(trainings) == 1
    assert {"sliced_wasserstein", "patch_mmd", "kernel", "frechet"} < first[0].keys()
    assert (tmp_path / "out" / "step-00003.png").is_file() and "floor" in capsys.readouterr().out
