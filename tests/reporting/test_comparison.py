"""Runs are told apart by as much of their paths as that takes."""

from __future__ import annotations

import json
from pathlib import Path

from diffusion.reporting.comparison import differences, names
from diffusion.reporting.run_folder import RunFolder


def run(path: Path, **training: object) -> RunFolder:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"training": training}))
    return RunFolder(path)


def test_names_tell_runs_apart() -> None:
    assert names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert names([Path("runs/x/digits"), Path("runs/y/digits")]) == ["x/digits", "y/digits"]


def test_differences_have_a_column_for_each_run(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a", lr=0.1, steps=5), run(tmp_path / "b", lr=0.2, steps=5, ema=0.5)
    text = differences([("a", first), ("b", second)])
    assert '<th scope="row" class="key">training.lr</th><td>0.1</td><td>0.2</td>' in text
    assert (
        '<th scope="row" class="key">training.ema</th><td>—</td><td>0.5</td>' in text and "training.steps" not in text
    )
    assert "the same" in differences([("a", first), ("c", first)])
