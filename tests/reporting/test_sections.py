"""The parts of a report against folders with known contents."""

from __future__ import annotations

import json
from pathlib import Path

from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.sections import commands, head, incident_list, numbers_by_step, trained_s


def run(path: Path, *rows: dict[str, object]) -> RunFolder:
    (path / "config.json").write_text(json.dumps({"training": {"batch": 10}}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolder(path)


def test_the_time_of_training_is_that_of_its_steps(tmp_path: Path) -> None:
    rows = {"step": 4, "images_per_s": 20.0}, {"step": 5, "loss": 1.0}, {"step": 10, "images_per_s": 5.0}
    assert trained_s(run(tmp_path, *rows)) == 4 * 10 / 20 + 6 * 10 / 5
    assert trained_s(run(tmp_path)) is None


def test_numbers_by_step_are_a_table_with_intervals(tmp_path: Path) -> None:
    bound = {"held_out/total_bits_per_dim": 3.25, "held_out/total_bits_per_dim_se": 0.1}
    text = numbers_by_step(run(tmp_path, {"step": 1000, **bound}))
    assert "held-out bound (bits/dim)" in text and "<td>1,000</td>" in text and "3.25 ± 0.20" in text
    text = numbers_by_step(run(tmp_path, {"step": 7, "loss": 0.5}))
    assert "training loss" in text and '<td>7</td><td class="number">0.5</td>' in text
    assert "Nothing measured yet" in numbers_by_step(run(tmp_path))


def test_the_head_says_since_when_a_run_remembers(tmp_path: Path) -> None:
    assert "remembers" not in head(run(tmp_path, {"step": 1200}), "training", 0.0)
    text = head(run(tmp_path, {"step": 1200, "gap/opened": 1200.0}), "training", 0.0)
    assert "1,200" in text and "step since which it remembers training examples" in text


def test_commands_wait_for_weights(tmp_path: Path, trained: Path) -> None:
    assert "no weights yet" in commands(run(tmp_path), "runs/a")
    text = commands(RunFolder(trained), "runs/my birds")
    assert "diffusion sample &#x27;runs/my birds&#x27; --n 64 --seed 0" in text and "--label disk" in text


def test_the_last_incidents_are_shown(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert "no step was skipped" in incident_list(found)
    lines = "".join(json.dumps({"step": i, "line": f"line {i}."}) + "\n" for i in range(300))
    (tmp_path / "incidents.jsonl").write_text(lines)
    text = incident_list(found)
    assert "The last 200 of 300." in text and "line 99." not in text and "line 100." in text and "line 299." in text
