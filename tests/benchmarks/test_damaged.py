"""The benchmark of learning from images with holes, on networks of a few steps."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks import damaged, judge, timed
from benchmarks.damaged import Bench
from benchmarks.timed import RECORD
from diffusion.model import load

SMALL = [
    "data.source=folder",
    "data.held_out=0.2",
    "backbone.channels=[4,8]",
    "backbone.attention=[]",
    "backbone.fourier=0",
    "training.batch=8",
    "training.precision=fp32",
    "training.em_steps=2",
    "sampling.steps=2",
]


def options(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["configs/digits.toml", "--data", str(folder), "--minutes", "0", "--limit", "4", "--steps", "2"]
    return [*given, "--out", str(out), *more, "--set", *SMALL]


def idx(folder: Path, part: str, count: int) -> None:
    """Writes images and classes as the original files of Fashion-MNIST have them."""
    rng = np.random.default_rng(count)
    for name, values in (
        ("images-idx3", rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)),
        ("labels-idx1", rng.integers(0, 10, count, dtype=np.uint8)),
    ):
        head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few samples, held-out images and steps of the trial, and a judge that is not trained."""
    monkeypatch.setattr(damaged, "SAMPLES", 70)
    monkeypatch.setattr(damaged, "MEASURED", 2)
    monkeypatch.setattr(damaged, "COLUMNS", 2)
    monkeypatch.setattr(timed, "seconds_per_step", lambda trainer, steps: 1.0)
    monkeypatch.setattr(judge, "train", lambda images: judge.Judge().eval())


def test_all_contestants_learn_from_the_same_images_and_are_compared(shapes: Path, tmp_path: Path) -> None:
    idx(tmp_path, "train", 100)
    idx(tmp_path, "t10k", 80)
    out = tmp_path / "damaged.json"
    more = ["--laws", "pixels", "--missing", "0.3", "--em", "1", "--judge", str(tmp_path)]
    damaged.main(options(shapes, out, *more))
    record = json.loads(out.read_text())
    (title, rows), *_ = record["tables"].items()
    assert [row["trained on"] for row in rows] == ["complete", "mean", "nearest", "ours", "em"]
    assert "32 images of 8x8, floor" in title
    for row in rows:
        assert {"bits/dim", "bits/seen dim", "Fréchet distance"} < set(row) and row["missing"] == 0.3
        assert (damaged.THROUGH in row) == (row["trained on"] in (damaged.OURS, damaged.EM))
        assert ("coverage" in row) == (row["trained on"] in damaged.COMPLETING)
    folder = out.with_suffix("")
    assert (folder / "pixels-0.3.png").is_file() and (folder / "pixels-0.3" / "em" / "em.json").is_file()
    masks = {path.parent.name: load(path.parent).config.data.masks for path in folder.rglob(RECORD)}
    assert masks == {"complete": "", "mean": "", "nearest": "", "ours": "alpha", "em": "alpha"}
    assert len(record["goals"]) == 4


def test_finished_runs_are_not_trained_again(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command goes on with what is missing: other laws, runs that were not finished or have other settings."""
    trained: list[str] = []
    train = timed.train

    def watched(experiment: object, data: object, run: Path, seconds: float) -> object:
        trained.append(f"{run.parent.name}/{run.name}")
        return train(experiment, data, run, seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(timed, "train", watched)
    monkeypatch.setattr(Bench, "figures", lambda *given: {damaged.COVERED: 0.9})
    monkeypatch.setattr(damaged, "picture", lambda *given: None)
    out = tmp_path / "damaged.json"
    first = ["--laws", "pixels", "--missing", "0.3"]
    damaged.main(options(shapes, out, *first))
    names = ["damaged/complete", *(f"pixels-0.3/{name}" for name in ("mean", "nearest", "ours"))]
    assert trained == names
    trained.clear()
    (out.with_suffix("") / "pixels-0.3" / "nearest" / RECORD).unlink()
    damaged.main(options(shapes, out, "--laws", "pixels", "--missing", "0.3", "0.5"))
    assert trained == ["pixels-0.3/nearest", *(f"pixels-0.5/{name}" for name in ("mean", "nearest", "ours"))]
    trained.clear()
    damaged.main([*options(shapes, out, *first), "training.seed=1"])
    assert trained == names
    trained.clear()
    damaged.main([*options(shapes, out, *first, "--again"), "training.seed=1"])
    assert trained == names


def test_the_goals_are_those_of_what_is_missing() -> None:
    found = {"complete": {damaged.DISTANCE: 10.0}, "mean": {damaged.DISTANCE: 40.0}}
    found["ours"] = {damaged.DISTANCE: 13.0, damaged.COVERED: 0.9}
    for share, met in ((0.3, [False, True, True, True]), (0.6, [True] * 4), (0.5, [True] * 3)):
        assert [goal.met for goal in damaged.goals("boxes", share, found)] == met
    found["ours"] = {damaged.DISTANCE: 21.0, damaged.COVERED: 0.8}
    assert [goal.met for goal in damaged.goals("boxes", 0.6, found)] == [False, False, False, True]
    found["ours"] = {damaged.COVERED: 0.95}
    assert [goal.met for goal in damaged.goals("boxes", 0.6, found)] == [True, False], "without a judge"


def test_options_out_of_range_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        (["--missing", "1.0"], "--missing: must be between 0 and 1, got [1.0]"),
        (["--n", "9"], "--n: must be at least 19, the fewest with a 90 % interval, got 9"),
    ):
        with pytest.raises(SystemExit):
            damaged.main(options(tmp_path, tmp_path / "damaged.json", *more))
        assert message in capsys.readouterr().err
