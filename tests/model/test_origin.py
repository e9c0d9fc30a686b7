"""What a run learns from is recorded by content, and read again wherever it lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.config import DistillationConfig
from diffusion.data import identity, open_source
from diffusion.model import load, origin
from tests.conftest import tiny


def test_a_run_states_its_examples_and_their_place(trained: Path, shapes: Path) -> None:
    dataset = open_source(tiny(shapes).data, lambda line: None)
    found = origin.recorded(trained)["data"]
    hashes = identity.hashes_of(dataset)
    assert found == {"path": str(shapes), "examples": 40, "hash": identity.digest(hashes)}
    known = origin.examples_of(trained)
    assert known is not None and np.array_equal(known, hashes)
    change = origin.change_since(trained, dataset.subset(np.arange(5, 40)))
    assert change == identity.Change(0, 5, 35, reordered=False)


@pytest.mark.parametrize("damage", ["no record", "no hashes", "another hash", "no JSON", "another list", "cut"])
def test_a_damaged_record_is_none(run: Path, shapes: Path, damage: str) -> None:
    if damage == "no record":
        (run / origin.SOURCES).unlink()
    elif damage == "no hashes":
        (run / origin.EXAMPLES).unlink()
    elif damage == "another hash":
        np.save(run / origin.EXAMPLES, np.arange(40, dtype=np.uint64))
    elif damage == "cut":
        (run / origin.EXAMPLES).write_bytes((run / origin.EXAMPLES).read_bytes()[:-8])
    else:
        (run / origin.SOURCES).write_text("{" if damage == "no JSON" else "[1]")
    assert origin.examples_of(run) is None
    assert origin.change_since(run, open_source(tiny(shapes).data, lambda line: None)) is None


def test_the_weights_of_other_runs_are_those_of_the_model_file(trained: Path, shapes: Path, tmp_path: Path) -> None:
    step = trained / "checkpoints" / "step-00000040"
    expected = json.loads((step / "manifest.json").read_text())["files"]["model.safetensors"]["sha256"]
    weights = {"path": str(trained), "step": 40, "sha256": expected}
    assert origin.model_at(str(trained)) == weights == origin.model_at(str(trained), step)
    assert origin.model_at(f"{step}/") == {**weights, "path": str(step)}
    assert origin.model_at("hf://a/b", trained) == {**weights, "path": "hf://a/b"}
    assert origin.model_at(str(tmp_path / "none")) == {"path": str(tmp_path / "none"), "sha256": ""}
    experiment = tiny(shapes, training={"init": str(trained)})
    experiment = replace(experiment, distillation=DistillationConfig(f"{trained}/"))
    assert origin.models_of(experiment) == {"training.init": str(trained), "distillation.teacher": f"{trained}/"}


def test_records_of_models_stay_until_others_take_their_place(run: Path, shapes: Path) -> None:
    experiment, (one, two) = tiny(shapes), ({"path": "/runs/a", "sha256": "1f"}, {"path": "/runs/b", "sha256": "2f"})
    dataset = open_source(experiment.data, lambda line: None)
    for key, record in (("training.init", one), ("distillation.teacher", one), ("distillation.teacher", two)):
        origin.record(run, experiment, dataset, {key: record})
    assert origin.recorded(run)["models"] == {"training.init": one, "distillation.teacher": two}


def test_what_weights_are_those_of_the_first_model_that_is_named() -> None:
    record = {"path": "hf://a/b", "commit": "0a1b2c", "step": 25000, "sha256": "0123456789abcdef"}
    said = "hf://a/b, commit 0a1b2c, step 25,000 (sha256 0123456789ab)"
    assert origin.said_of_models({"training.init": record}) == f"the weights of {said}"
    assert origin.said_of_models({"distillation.teacher": record}) == f"the weights of its teacher {said}"
    assert origin.said_of_models({"training.init": {"path": "/a", "sha256": ""}}) == "the weights of /a"
    assert origin.said_of_models({}) == "new weights"


def test_a_record_of_an_earlier_version_is_read_under_the_names_of_today(run: Path) -> None:
    found = json.loads((run / origin.SOURCES).read_text())
    weights = {"path": "/runs/a", "sha256": "1f"}
    models = {"training.start": weights, "distillation.teacher": weights}
    (run / origin.SOURCES).write_text(json.dumps({**found, "models": models}))
    assert origin.recorded(run) == {**found, "models": {"training.init": weights, "distillation.teacher": weights}}
    (run / origin.SOURCES).write_text(json.dumps({**found, "models": []}))
    assert origin.recorded(run) == {}


def test_the_data_of_a_run_are_those_it_was_last_trained_on(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load(run, device="cpu").config
    assert origin.data_of(run, experiment) == experiment.data
    tree = json.loads((run / origin.RESOLVED).read_text())
    tree["data"]["path"] = str(tmp_path)
    (run / origin.RESOLVED).write_text(json.dumps(tree))
    assert origin.data_of(run, experiment) == replace(experiment.data, path=str(tmp_path))
    tree["data"]["path"] = "images"  # As it was written in another working folder.
    (run / origin.RESOLVED).write_text(json.dumps(tree))
    assert origin.data_of(run, experiment).path == str(shapes)
    monkeypatch.chdir(shapes.parent)
    assert origin.data_of(run, experiment).path == "images"
    (run / origin.RESOLVED).unlink()
    (run / origin.SOURCES).unlink()
    assert origin.data_of(run, experiment) == experiment.data


def test_masks_are_found_where_the_run_was_trained_on_them(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks in a relative folder are known from another folder; alpha and a color are no places."""
    monkeypatch.chdir(tmp_path)
    for image in shapes.rglob("*.png"):
        mask = tmp_path / "masks" / image.relative_to(shapes)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 255).save(mask)
    experiment = tiny(shapes, data={"masks": "masks"})
    (tmp_path / "run").mkdir()
    origin.record(tmp_path / "run", experiment, open_source(experiment.data, lambda line: None), {})
    assert origin.recorded(tmp_path / "run")["data"]["masks"] == str(tmp_path / "masks")
    assert origin.data_of(tmp_path / "run", experiment) == experiment.data
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert origin.data_of(tmp_path / "run", experiment).masks == str(tmp_path / "masks")
    painted = tiny(shapes, data={"masks": "#ff00ff"})
    assert origin.data_of(tmp_path / "run", painted).masks == "#ff00ff"


def test_models_differ_by_their_weights() -> None:
    weights = {"a": torch.zeros(3), "b": torch.ones(2, dtype=torch.float64)}
    same = {"b": torch.ones(2, dtype=torch.float64), "a": torch.zeros(3)}
    assert origin.weights_hash(weights) == origin.weights_hash(same)
    others = [
        {**weights, "a": torch.tensor([0.0, 0.0, 1e-9])},
        {**weights, "a": torch.zeros(3, 1)},
        {"a": torch.zeros(3)},
    ]
    assert len({origin.weights_hash(each) for each in (weights, *others)}) == 4
