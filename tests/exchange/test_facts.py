"""What a run knows of its model is read from its files: data, beginnings, and numbers of this step alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffusion import checkpoint, config
from diffusion.checkpoint import Part, Retention
from diffusion.config import Config
from diffusion.exchange.facts import Facts, Measured, Restored, base_of, facts_of
from tests.conftest import tiny


def put(path: Path, **values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def experiment(**data: object) -> Config:
    return config.from_dict({"data": {"source": "folder", **data}})


def evaluation(path: Path, step: int, mean: object, half: object = 0.1, method: str = "bound") -> None:
    total = {"mean": mean, "half_width": half}
    put(
        path,
        method=method,
        kind=f"kind of {method}",
        unit="bits/dim",
        examples=12,
        step=step,
        terms={"prior": {"mean": 9.0, "half_width": 9.0}, "total": total},
        data={"name": "held-out"},
    )


def test_a_finished_run_tells_its_data_and_its_bound(trained: Path, shapes: Path) -> None:
    stored = json.loads((trained / "evaluation.json").read_text())
    total = stored["terms"]["total"]
    found = facts_of(trained, tiny(shapes), 40)
    measured = Measured(
        "bound", "upper bound on -log p", "bits/dim", total["mean"], total["half_width"], stored["examples"], "held-out"
    )
    assert found == Facts("images", "", 40, "", (measured,), ())
    assert facts_of(trained, tiny(shapes), 20).measured == ()


def test_totals_of_the_step_count_those_of_the_bound_first(tmp_path: Path) -> None:
    evaluation(tmp_path / "evaluation-aaa.json", 5, 2.0, None, "ode")
    evaluation(tmp_path / "evaluation.json", 5, 3.0)
    evaluation(tmp_path / "evaluation-old.json", 4, 1.0)
    evaluation(tmp_path / "evaluation-bad.json", 5, "nan")
    (tmp_path / "evaluation-cut.json").write_text('{"step": 5')
    put(tmp_path / "evaluation-none.json", step=5, terms=None)
    found = facts_of(tmp_path, experiment(), 5).measured
    assert [(each.method, each.value, each.half_width) for each in found] == [("bound", 3.0, 0.1), ("ode", 2.0, None)]


def test_restorations_are_averaged_by_operator_and_method(tmp_path: Path) -> None:
    for number, (step, operator, coverage) in enumerate(
        [(5, "gray", 0.8), (5, "gray", 1.0), (5, "blur", 0.7), (4, "gray", 0)]
    ):
        place = tmp_path / "restored-x" / f"image-{number}" / "restoration.json"
        put(place, step=step, operator=operator, method="mmps", coverage_90=coverage, psnr_of_mean=20.0 + number)
    put(tmp_path / "restored" / "restoration.json", step=5, method="learned", psnr_of_mean=30.0)
    put(tmp_path / "restored-y" / "restoration.json", step=5, method="learned")
    found = set(facts_of(tmp_path, experiment(), 5).restored)
    assert found == {
        Restored("gray", "mmps", 2, 0.9, 20.5),
        Restored("blur", "mmps", 1, 0.7, 22.0),
        Restored("inpaint", "learned", 1, None, 30.0),
    }


def test_results_of_a_checkpoint_lie_beside_the_checkpoints(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 3, {"model": Part({}, {})}, keep=Retention(1))
    evaluation(tmp_path / "step-00000003" / "evaluation.json", 3, 1.0)
    put(tmp_path / "sources.json", data={"path": "/x/photos", "examples": 7})
    found = facts_of(tmp_path / "step-00000003", experiment(), 3)
    assert (found.data, found.examples, len(found.measured)) == ("photos", 7, 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"path": "hf://owner/name:train"}, ("hf://owner/name:train", "owner/name")),
        ({"path": "hf://datasets/owner/name"}, ("hf://datasets/owner/name", "owner/name")),
        ({"path": "/home/jane/photos"}, ("photos", "")),
        ({"source": "dead_leaves", "channels": 1}, ("dead_leaves", "")),
        ({}, ("", "")),
    ],
)
def test_data_have_a_name_and_on_the_hub_a_repository(
    data: dict[str, Any], expected: tuple[str, str], tmp_path: Path
) -> None:
    found = facts_of(tmp_path, experiment(**data), 0)
    assert (found.data, found.repository) == expected and found.examples is None


def test_the_model_on_the_hub_that_a_run_began_from_is_found_by_way_of_others(tmp_path: Path) -> None:
    put(tmp_path / "imported" / "import.json", source="hf://google/ddpm-x@v1")
    put(tmp_path / "second" / "config.json", training={"init": str(tmp_path / "imported")})
    put(tmp_path / "third" / "config.json", training={"init": str(tmp_path / "second" / "checkpoints")})
    (tmp_path / "second" / "checkpoints").mkdir()
    assert [base_of(tmp_path / name) for name in ("imported", "second", "third")] == ["google/ddpm-x"] * 3
    put(tmp_path / "direct" / "config.json", training={"init": "hf://jane/shapes"})
    assert base_of(tmp_path / "direct") == "jane/shapes"


@pytest.mark.parametrize("init", ["", "gone", "$NOWHERE/x", 3])
def test_a_run_that_began_anew_or_from_what_is_gone_has_none(init: object, tmp_path: Path) -> None:
    put(tmp_path / "run" / "config.json", training={"init": init})
    assert base_of(tmp_path / "run") == "" == base_of(tmp_path / "nothing")
    put(tmp_path / "circle" / "config.json", training={"init": str(tmp_path / "circle")})
    put(tmp_path / "circle" / "import.json", source="/home/jane/model")
    assert base_of(tmp_path / "circle") == ""
