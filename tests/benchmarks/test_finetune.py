"""The benchmark of fine-tuning, on networks of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import finetune
from diffusion.data import open_source
from diffusion.evaluation import Evaluation, evaluate
from diffusion.evaluation.intervals import Estimate
from diffusion.model import load

SMALL = [
    "backbone.channels=[8,16]",
    "backbone.blocks=1",
    "backbone.attention=[]",
    "training.batch=8",
    "training.precision=fp32",
]


def evaluation(mean: float, width: float, *values: float) -> Evaluation:
    return Evaluation("bound", "", "bits/dim", len(values), {"total": Estimate(mean, width, {})}, values)


def test_letters_are_drawn_in_the_levels_of_the_digits_and_are_all_different(tmp_path: Path) -> None:
    finetune.letters(tmp_path, 8, 3)
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 200 and {path.parent.name for path in files} == set("ABCDEFGHIJ")
    images = np.stack([np.asarray(Image.open(path)) for path in files])
    assert images.shape == (200, 8, 8, 3) and len(np.unique(images.reshape(200, -1), axis=0)) > 195
    levels = np.unique(images)
    assert len(levels) == 17 and np.abs(levels - np.arange(17) * 255 / 16).max() < 1
    inks = images.reshape(10, 20, -1).mean((1, 2))
    assert inks.min() > 20 and inks.std() > 2, "letters differ in their ink"


def test_a_configuration_is_trained_first_and_letters_are_drawn_in_its_size(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "EACH", 2)
    monkeypatch.setattr(finetune.timed, "TRIAL", 2)
    out = tmp_path / "tuned.json"
    values = [f"data.path={shapes}", "data.size=8", "training.steps=3", *SMALL]
    finetune.main(["folder64", "--minutes", "0.01", "--out", str(out), "--set", *values])
    folder = out.with_suffix("")
    tables = json.loads(out.read_text())["tables"]
    assert list(tables) == [f"{minutes} minutes on {folder / 'letters'}" for minutes in (0.01,)]
    assert load(folder / "source").step == 3 and len(list((folder / "letters").rglob("*.png"))) == 20
    scratch, tuned = (load(folder / f"{name}-0.01") for name in ("from-scratch", "fine-tuned"))
    assert scratch.spec.shape == tuned.spec.shape == (3, 8, 8) and len(tuned.spec.classes) == 10
    assert (scratch.config.training.init, tuned.config.training.init) == ("", str(folder / "source"))
    assert tuned.config.training.lr == pytest.approx(0.3 * scratch.config.training.lr)
    assert tuned.spec.mean == load(folder / "source").spec.mean != scratch.spec.mean, "each keeps its units"


def test_a_run_and_a_folder_may_be_given(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a learning rate of almost zero, the fine-tuned network is the source."""
    monkeypatch.setattr(finetune.timed, "TRIAL", 2)
    out = tmp_path / "tuned.json"
    options = ["--minutes", "0.005", "--lr", "1e-9", "--out", str(out)]
    finetune.main([str(trained), "--data", str(shapes), *options])
    (rows,) = json.loads(out.read_text())["tables"].values()
    assert [row["weights"] for row in rows] == ["from scratch", "fine-tuned"]
    assert "±" in rows[1]["better by"] and "better by" not in rows[0]
    data = load(trained).config.data
    held_out = open_source(data, lambda line: None).split(finetune.HELD_OUT, data.seed)[1]
    assert rows[1]["bits/dim"] == pytest.approx(evaluate(load(trained), held_out).mean["total"], abs=0.02)
    assert rows[0]["bits/dim"] != rows[1]["bits/dim"] and all(row["± 95 %"] > 0 for row in rows)


def test_fine_tuning_has_to_be_better_by_more_than_both_intervals() -> None:
    scratch, tuned = evaluation(3.0, 0.1, 2.0, 4.0), evaluation(2.8, 0.05, 1.9, 3.7)
    found = finetune.goal(scratch, tuned, 2)
    assert found.met and (found.value, found.bound) == (pytest.approx(0.2), pytest.approx(0.15))
    assert not finetune.goal(scratch, evaluation(2.8, 0.11), 2).met
    # Better by 0.1 and by 0.3: by 0.2 ± 12.7 · 0.1.
    assert finetune.difference(scratch, tuned) == "0.2000 ± 1.2706"
