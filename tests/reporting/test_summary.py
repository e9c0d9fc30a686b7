"""Summaries and curves against rows with known answers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from diffusion.reporting.run_folder import RunFolder
from diffusion.reporting.summary import NORMAL_95, POINTS, curves, summary, thinned
from diffusion.training import lock

BITS = "held_out/total_bits_per_dim"


def write(run: Path, *rows: dict[str, object]) -> RunFolder:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolder(run)


def test_the_summary_of_a_finished_run(trained: Path) -> None:
    found = summary(run := RunFolder(trained))
    assert {key: found[key] for key in ("name", "state", "step", "steps", "incidents", "left_s")} == {
        "name": "trained",
        "state": "finished",
        "step": 40,
        "steps": 40,
        "incidents": 0,
        "left_s": None,
    }
    assert found["grids"] == len(run.grids) >= 2
    assert found["shape"] == [3, 8, 8] and found["classes"] == ["disk", "square"] and found["has_model"] is True
    assert run.evaluation is not None
    total = run.evaluation["terms"]["total"]
    assert found["bits"] == {"value": total["mean"], "half": total["half_width"], "unit": "bits/dim", "step": 40}
    last = [row for row in run.rows if "loss" in row][-1]
    assert (found["loss"], found["images_per_s"]) == (last["loss"], last["images_per_s"])
    json.dumps(found, allow_nan=False)


def test_the_curves_of_a_run(trained: Path) -> None:
    found, rows = curves(run := RunFolder(trained)), RunFolder(trained).rows
    assert found["loss"] == {"x": [*range(1, 41)], "y": [row["loss"] for row in rows if "loss" in row]}
    assert found["images_per_s"]["x"] == [*range(1, 41)]
    bound = [row for row in run.rows if BITS in row]
    assert found["bits"]["x"] == [20, 40] and found["bits"]["unit"] == "bits/dim"
    assert found["bits"]["y"] == [row[BITS] for row in bound]
    assert found["bits"]["half"] == [NORMAL_95 * row[f"{BITS}_se"] for row in bound]
    learned = [row["training/total_bits_per_dim"] for row in bound]
    assert found["training_bits"]["y"] == learned and found["training_bits"]["unit"] == "bits/dim"
    assert found["training_bits"]["half"] == [NORMAL_95 * row["training/total_bits_per_dim_se"] for row in bound]


def test_the_step_since_which_a_run_remembers_is_a_fact_of_it(tmp_path: Path) -> None:
    assert summary(write(tmp_path, {"step": 10, BITS: 3.0}))["remembers"] is None
    assert summary(write(tmp_path, {"step": 20, BITS: 3.0, "gap/opened": 20.0}, {"step": 30}))["remembers"] == 20


def test_an_empty_run_has_empty_curves(tmp_path: Path) -> None:
    nothing = {"x": [], "y": []}
    assert curves(RunFolder(tmp_path)) == {
        "loss": nothing,
        "images_per_s": nothing,
        "bits": {**nothing, "half": [], "unit": ""},
        "training_bits": {**nothing, "half": [], "unit": ""},
    }
    found = summary(RunFolder(tmp_path))
    assert found["state"] == "empty" and found["bits"] is found["loss"] is found["step"] is found["updated"] is None


def test_numbers_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        {"step": 1, "loss": 0.5, "lr": 1},
        {"step": 2, "loss": math.nan, "lr": 1},
        {"step": 3, "lr": 1},  # As training writes it: what is not finite is left out.
        {"step": 4, "loss": math.inf, "lr": 1, BITS: math.nan},
        {"step": 5, "loss": "much", "lr": 1},
        {"step": 6, "loss": 0.25, "lr": 1},
        {"step": 6, "held_out/prior_bits_per_dim": 1.0},
    )
    found = curves(run)
    assert found["loss"] == {"x": [1, 2, 3, 4, 5, 6], "y": [0.5, None, None, None, None, 0.25]}
    assert found["bits"] == {"x": [4], "y": [None], "half": [None], "unit": "bits/dim"}
    assert summary(run)["loss"] == 0.25 and summary(run)["bits"] is None
    json.dumps([found, summary(run)], allow_nan=False)


def test_steps_that_were_taken_again_count_once(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": float(step)} for step in (1, 2, 3, 4)]
    again = [{"step": step, "loss": 10.0 * step} for step in (3, 4, 5)]
    found = curves(write(tmp_path, *rows, *again))
    assert found["loss"] == {"x": [1, 2, 3, 4, 5], "y": [1.0, 2.0, 30.0, 40.0, 50.0]}


def test_bounds_of_another_unit_are_another_curve(tmp_path: Path) -> None:
    run = write(
        tmp_path,
        {"step": 2, "held_out/total_bits_per_vector": 9.0, "held_out/total_bits_per_vector_se": 0.1},
        {"step": 4, f"{BITS}_se": 0.2, BITS: 3.0},
        {"step": 6, BITS: 2.5},
    )
    assert curves(run)["bits"] == {"x": [4, 6], "y": [3.0, 2.5], "half": [NORMAL_95 * 0.2, None], "unit": "bits/dim"}
    assert summary(run)["bits"] == {"value": 2.5, "half": None, "unit": "bits/dim", "step": 6}


def test_the_newer_of_validation_and_evaluation_counts(tmp_path: Path) -> None:
    run = write(tmp_path, {"step": 40, BITS: 3.0, f"{BITS}_se": 0.1})
    total = {"terms": {"total": {"mean": 3.1, "half_width": None}}, "unit": "bits/dim"}
    for step, value in ((39, 3.0), (40, 3.1), (50, 3.1)):
        (tmp_path / "evaluation.json").write_text(json.dumps({**total, "step": step}))
        assert summary(run)["bits"]["value"] == value
    for damaged in ({}, {"terms": {"total": 3}, "step": 50}, {"terms": [], "step": 50}, {**total, "step": None}):
        (tmp_path / "evaluation.json").write_text(json.dumps(damaged))
        assert summary(run)["bits"]["step"] == 40


def test_long_curves_keep_their_ends_extremes_and_gaps() -> None:
    rng = np.random.default_rng(0)
    points: list[tuple[int, float | None]] = [*enumerate(rng.normal(size=100_000).tolist())]
    points[12_345], points[67_890], points[55_555] = (12_345, 99.0), (67_890, -99.0), (55_555, None)
    kept = thinned(points)
    assert POINTS * 0.7 < len(kept) <= POINTS and set(kept) <= set(points)
    assert [x for x, _ in kept] == sorted({x for x, _ in kept})
    assert {points[0], points[-1], points[12_345], points[67_890], points[55_555]} <= set(kept)
    for start in range(0, 100_000, 500):
        some = [y for _, y in points[start : start + 500] if y is not None]
        values = {y for x, y in kept if start <= x < start + 500}
        assert {min(some), max(some)} <= values
    assert thinned(points[:POINTS]) == points[:POINTS] and thinned([]) == []
    assert len(thinned(points[: POINTS + 1])) <= POINTS


def test_a_run_of_many_rows_has_short_curves(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1 / step, BITS: 1.0 + step, f"{BITS}_se": step * 1.0} for step in range(1, 5001)]
    found = curves(write(tmp_path, *rows))
    for name in ("loss", "bits"):
        assert found[name]["x"][0] == 1 and found[name]["x"][-1] == 5000 and len(found[name]["x"]) <= POINTS
    assert found["bits"]["half"] == [NORMAL_95 * x for x in found["bits"]["x"]]


@pytest.mark.parametrize(
    ("speeds", "left"),
    [
        ({100: 50.0}, 900 * 8 / 50),
        ({100: 50.0, 200: 100.0, 300: 25.0}, 700 * 8 * (1 / 100 + 1 / 25) / 2),
        ({100: 50.0, 200: math.nan}, 800 * 8 / 50),
        ({100: 50.0, 1200: 50.0}, 0.0),
        ({100: 0.0}, None),
        ({}, None),
    ],
)
def test_the_time_that_is_left(speeds: dict[int, float], left: float | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"training": {"steps": 1000, "batch": 8}}')
    run = write(tmp_path, *({"step": step, "images_per_s": speed} for step, speed in speeds.items()))
    assert summary(run)["left_s"] is None
    with lock.held(tmp_path, print):
        assert summary(run)["left_s"] == (None if left is None else pytest.approx(left))
