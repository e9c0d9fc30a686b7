"""The benchmark of learned restoration beside guidance, on networks of a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learned
from benchmarks.posterior import Tally
from diffusion.model import load

OPTIONS = ["--limit", "2", "--steps", "3", "--n", "19"]
SMALL = [
    "data.size=12",
    "backbone.channels=[8,16]",
    "backbone.fourier=0",
    "training.batch=8",
    "training.precision=fp32",
]


def compared(folder: Path, *options: str) -> list[dict[str, Any]]:
    """The rows of the benchmark on digits, with small networks, written into a folder."""
    out = folder / "learned.json"
    learned.main(
        [
            "configs/digits.toml",
            "--data",
            str(folder / "digits"),
            *OPTIONS,
            "--out",
            str(out),
            *options,
            "--set",
            *SMALL,
        ]
    )
    rows: list[dict[str, Any]] = next(iter(json.loads(out.read_text())["tables"].values()))
    for row in rows:
        assert (out.with_suffix("") / f"{row['task']}.png").is_file()
    return rows


def test_both_networks_train_for_the_same_time_and_restore_the_same_images(tmp_path: Path) -> None:
    rows = compared(tmp_path, "--minutes", "0.01")
    tasks = {row["task"] for row in rows}
    assert {"box", "half", "random", "box in noise"} == tasks
    for task in tasks:
        found = {row["method"]: row for row in rows if row["task"] == task}
        assert list(found) == ["guided", "repaint", "learned"]
        assert found["learned"]["NFE"] == 3 and found["learned"]["backward"] == 0 and found["guided"]["backward"] > 0
    models = [load(tmp_path / "learned" / name) for name in ("guided", "learned")]
    assert [model.config.mapped for model in models] == [False, True]
    # Networks that are trained already are compared as they are.
    again = compared(tmp_path, "--runs", str(tmp_path / "learned"), "--tasks", "half")
    seconds = "seconds, 8 variants"
    assert [row | {seconds: 0} for row in again] == [row | {seconds: 0} for row in rows if row["task"] == "half"]


def test_an_operator_is_learned_instead_of_masks(tmp_path: Path) -> None:
    rows = compared(tmp_path, "--minutes", "0.01", "--operator", "downsample:factor=2", "--noise", "0.05")
    assert [row["method"] for row in rows] == ["guided", "ddnm", "learned"]
    assert rows[2]["NFE"] == 3 and rows[2]["backward"] == 0
    assert load(tmp_path / "learned/learned").config.condition.noise == 0.05


def test_images_too_small_to_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        learned.main(["configs/digits.toml", "--data", str(tmp_path), "--out", str(tmp_path / "learned.json")])
    assert "configs/digits.toml: must be of images of at least 11x11, got (8, 8)" in capsys.readouterr().err


def test_goals_compare_with_guidance() -> None:
    tallies = {name: Tally() for name in ("guided", "learned")}
    shared = {"coverage": 0.9, "seam": 1.0}
    tallies["guided"].add(**{"PSNR of the mean": 20.0, "energy score": 1.0, "seconds, 8 variants": 10.0, **shared})
    tallies["learned"].add(**{"PSNR of the mean": 19.0, "energy score": 0.9, "seconds, 8 variants": 1.0, **shared})
    met = {str(goal.name): goal.met for goal in learned.goals("box", tallies)}
    assert not met.pop("box: PSNR of the mean, beside guidance") and all(met.values())
