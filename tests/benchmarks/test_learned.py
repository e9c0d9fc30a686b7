"""The benchmark of learned restoration beside guidance, on networks of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import learned
from benchmarks.posterior import Tally
from diffusion.model import load


def test_both_networks_train_for_the_same_time_and_restore_the_same_images(tmp_path: Path) -> None:
    out = tmp_path / "learned.json"
    options = ["--minutes", "0.01", "--limit", "2", "--steps", "3", "--n", "19", "--out", str(out)]
    small = [
        "data.size=12",
        "backbone.channels=[8,16]",
        "backbone.fourier=0",
        "training.batch=8",
        "training.precision=fp32",
    ]
    learned.main(["configs/digits.toml", "--data", str(tmp_path / "digits"), *options, "--set", *small])
    rows = next(iter(json.loads(out.read_text())["tables"].values()))
    tasks = {row["task"] for row in rows}
    assert {"box", "half", "random", "box in noise"} == tasks
    for task in tasks:
        found = {row["method"]: row for row in rows if row["task"] == task}
        assert list(found) == ["guided", "repaint", "learned"]
        assert found["learned"]["NFE"] == 3 and found["learned"]["backward"] == 0 and found["guided"]["backward"] > 0
        assert (out.with_suffix("") / f"{task}.png").is_file()
    models = [load(out.with_suffix("") / name) for name in ("guided", "learned")]
    assert [model.config.mapped for model in models] == [False, True]


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
