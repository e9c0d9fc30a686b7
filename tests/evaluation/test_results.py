"""Results of other settings, models and examples have files of their own, and say what they are of."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli
from diffusion.data import Dataset, DataSpec, identity
from diffusion.data.sources import DataOptions
from diffusion.evaluation import BoundEstimator, Evaluation, Evaluator, FlowEstimator, Setting, results
from diffusion.evaluation.intervals import estimate
from diffusion.evaluation.results import Made
from tests.bad_images import solid

EXAMPLES = Dataset(
    np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2),
    DataSpec((1, 2, 2), 256),
    None,
    ["a.png", "b.png", "c.png"],
    left_out=(("bad.png", "the file is empty"),),
)
PHOTOS = DataOptions(path="/photos")


def evaluation(*values: float) -> Evaluation:
    numbers = torch.tensor(values, dtype=torch.float64)
    errors = tuple(0.1 * value for value in values)
    return Evaluation("bound", "toy", "bits/dim", len(values), {"total": estimate(numbers, {})}, values, (), errors)


def made(
    evaluator: Evaluator | None = None, setting: Setting | None = None, *, step: int = 5, name: str = results.HELD_OUT
) -> Made:
    return Made.of(evaluator or BoundEstimator(), setting or Setting(), EXAMPLES, PHOTOS, step, name)


def stored(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("evaluator", "setting", "name", "stem"),
    [
        (BoundEstimator(), Setting(), results.HELD_OUT, "evaluation"),
        (BoundEstimator(), Setting(limit=2), results.HELD_OUT, "evaluation-limit2"),
        (BoundEstimator(), Setting(limit=3), results.HELD_OUT, "evaluation"),
        (BoundEstimator(draws=4, seed=7), Setting(), "val", "evaluation-val-draws4-seed7"),
        (BoundEstimator(continuous=True), Setting(guidance=1.5), "val", "evaluation-val-guidance1.5-continuous"),
        (BoundEstimator(), Setting(dtype=torch.float64), results.HELD_OUT, "evaluation-float64"),
        (FlowEstimator(), Setting(), results.HELD_OUT, "evaluation-ode"),
        (
            FlowEstimator(tolerance=1e-3, dequantization="noise"),
            Setting(),
            results.HELD_OUT,
            "evaluation-ode-tolerance0.001-dequantization-noise",
        ),
    ],
)
def test_a_name_belongs_to_method_settings_and_examples(
    evaluator: Evaluator, setting: Setting, name: str, stem: str
) -> None:
    assert sorted(made(evaluator, setting, name=name).stem.split("-")) == sorted(stem.split("-"))
    assert made(evaluator, setting, name=name).stem.startswith(stem.split("-")[0])


def test_a_result_states_how_it_was_made(tmp_path: Path) -> None:
    named = results.named(evaluation(3, 1, 2), EXAMPLES, Setting(), EXAMPLES.spec)
    results.write(tmp_path, named, made(BoundEstimator(draws=4), Setting(guidance=2.0)))
    found = stored(tmp_path / "evaluation-guidance2-draws4.json")
    assert found["settings"] == {
        "limit": None, "guidance": 2.0, "float64": False, "draws": 4, "steps": None, "continuous": False, "seed": 0,
        "repeats": 2,
    }  # fmt: skip
    assert found["step"] == 5
    assert found["data"] == {
        "name": "held-out",
        "path": "/photos",
        "examples": 3,
        "hash": identity.digest(identity.hashes_of(EXAMPLES)),
        "left_out": [{"file": "bad.png", "reason": "the file is empty"}],
    }
    assert (found["names"], found["values"]) == (["a.png", "b.png", "c.png"], [3, 1, 2])


def test_the_table_has_the_largest_first_with_names_and_errors(tmp_path: Path) -> None:
    setting = Setting(limit=2)
    named = results.named(evaluation(1.5, 2.5), EXAMPLES, setting, EXAMPLES.spec)
    (line,) = results.write(tmp_path, named, made(setting=setting))
    assert line == f"{tmp_path}: evaluation-limit2.json, evaluation-limit2.csv, evaluation-limit2.png"
    with (tmp_path / "evaluation-limit2.csv").open(newline="") as file:
        assert [*csv.reader(file)] == [["file", "bits/dim", "standard error"], ["c.png", "2.5", "0.25"], [
            "a.png", "1.5", "0.15000000000000002"]]  # fmt: skip
    without = replace(named, value_errors=(), names=("x,\n.png", "y.png"))
    assert results.table(without) == 'file,bits/dim,standard error\ny.png,2.5,\n"x,\n.png",1.5,\n'


def test_values_that_are_not_one_for_each_example_get_no_names() -> None:
    assert results.named(evaluation(1, 2), EXAMPLES, Setting(), EXAMPLES.spec).names == ()


def test_the_same_evaluation_is_replaced_and_keeps_its_comparison(tmp_path: Path) -> None:
    results.write(tmp_path, evaluation(1, 2), made(), evaluation(8, 9))
    (line,) = results.write(tmp_path, evaluation(1, 3), made())
    assert line == f"{tmp_path}: evaluation.json"
    found = stored(tmp_path / "evaluation.json")
    assert found["values"] == [1, 3] and found["training"]["values"] == [8, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "evaluation.png"]


def test_an_earlier_model_s_is_kept_under_its_step_with_all_its_files(tmp_path: Path) -> None:
    for step in (5, 9, 5, 9):
        named = results.named(evaluation(step, 2, 3), EXAMPLES, Setting(), EXAMPLES.spec)
        lines = results.write(tmp_path, named, made(step=step))
    assert lines[0] == f"{tmp_path}: evaluation.json of step 5 is kept as evaluation-step5-2.json"
    kept = {name: stored(tmp_path / f"{name}.json")["step"] for name in (
        "evaluation", "evaluation-step5", "evaluation-step9", "evaluation-step5-2")}  # fmt: skip
    assert [*kept.values()] == [9, 5, 9, 5]
    assert len([*tmp_path.iterdir()]) == 12, "each has a table and a figure"


@pytest.mark.parametrize("text", ['{"values": [1.0]}', "[", "[1]"])
def test_results_of_unknown_origin_are_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    line, _ = results.write(tmp_path, evaluation(1, 2), made())
    assert line == f"{tmp_path}: evaluation.json of unknown settings is kept as evaluation-earlier.json"
    assert (tmp_path / "evaluation-earlier.json").read_text() == text
    assert stored(tmp_path / "evaluation.json")["values"] == [1, 2]


def test_folders_of_one_name_have_files_of_their_own(tmp_path: Path) -> None:
    one = made(name="val")
    other = replace(one, data={**one.data, "path": "/b/val", "hash": "0123456789"})
    for each, value in ((one, 1.0), (other, 2.0), (one, 3.0), (other, 4.0)):
        results.write(tmp_path, evaluation(value, 0), each, figure=False)
    assert stored(tmp_path / "evaluation-val.json")["values"] == [3, 0]
    assert stored(tmp_path / "evaluation-val-012345.json")["values"] == [4, 0]
    assert len([*tmp_path.iterdir()]) == 2


def test_a_full_result_does_not_replace_that_of_a_part(tmp_path: Path) -> None:
    """The last numbers of a run are of some examples, and have the plain name."""
    results.write(tmp_path, evaluation(1, 2), made(setting=Setting(limit=2)), stem="evaluation", figure=False)
    results.write(tmp_path, evaluation(1, 2, 3), made(), figure=False)
    assert stored(tmp_path / "evaluation.json")["values"] == [1, 2, 3]
    assert stored(tmp_path / "evaluation-step5.json")["settings"]["limit"] == 2


@dataclass(frozen=True)
class Toy(Evaluator):
    """An evaluator with options of several kinds."""

    pair: tuple[int, int] = (1, 2)
    metric: str = "l2"
    name = "toy"

    def __call__(self, model: object, examples: Dataset, setting: Setting) -> Evaluation:
        raise NotImplementedError


def test_options_of_any_evaluator_make_names(tmp_path: Path) -> None:
    one = made(Toy(pair=(3, 4), metric="a/b c"))
    assert one.stem == "evaluation-toy-pair-_3_4_-metric-a_b_c"
    results.write(tmp_path, replace(evaluation(1, 2), method="toy"), one)
    assert one.same(stored(tmp_path / f"{one.stem}.json"))


def test_the_command_names_every_example_and_every_file_left_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    (folder / "disk").mkdir(parents=True)
    for i in range(5):
        solid((40 * i, 90, 120), (8, 8)).save(folder / "disk" / f"{i}.png")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "disk" / "noise.png")
    (folder / "disk" / "3.png").write_bytes(b"no image")
    assert cli.main(["evaluate", str(run), "--data", str(folder), "--draws", "2"]) == 0
    with (run / "evaluation-mixed-draws2.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "bits/dim", "standard error"] and len(rows) == 5
    values = [float(value) for _, value, _ in rows]
    assert values == sorted(values, reverse=True) and all(float(error) > 0 for *_, error in rows)
    found = stored(run / "evaluation-mixed-draws2.json")
    assert dict(zip(found["names"], found["values"], strict=True)) == {name: float(value) for name, value, _ in rows}
    assert [each["file"] for each in found["data"]["left_out"]] == ["disk/3.png"]
    text = capsys.readouterr().out
    assert f"largest: {rows[0][0]} {values[0]:.4f}, {rows[1][0]} {values[1]:.4f}, " in text
    assert "left out: 1 of 6 files, named in the results with the reasons" in text
