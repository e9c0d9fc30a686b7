"""What a run learns from is recorded by content, and read again wherever it lies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import checkpoint
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
    assert origin.weights_hash(str(trained)) == origin.weights_hash(f"{step}/") == expected
    assert origin.weights_hash(str(tmp_path / "none")) == ""
    experiment = tiny(shapes, training={"start": str(trained)})
    experiment = replace(experiment, distillation=DistillationConfig(f"{trained}/"))
    assert origin.models_of(experiment) == {"training.start": str(trained), "distillation.teacher": f"{trained}/"}
    (tmp_path / "run").mkdir()
    origin.record(tmp_path / "run", experiment, open_source(experiment.data, lambda line: None))
    weights = {"path": str(trained), "sha256": expected}
    assert origin.recorded(tmp_path / "run")["models"] == {"training.start": weights, "distillation.teacher": weights}


def test_the_weights_that_a_run_began_from_stay_recorded_when_they_are_gone(run: Path, shapes: Path) -> None:
    source = Path(shutil.copytree(run, run.with_name("source")))
    experiment = tiny(shapes, training={"start": str(source)})
    dataset = open_source(experiment.data, lambda line: None)
    (run / "checkpoints").rename(run / "aside")
    origin.record(run, experiment, dataset)
    before = origin.recorded(run)["models"]
    assert before["training.start"]["sha256"]
    (run / "aside").rename(run / "checkpoints")
    shutil.rmtree(source)
    origin.record(run, experiment, dataset)
    assert checkpoint.folders(run) and origin.recorded(run)["models"] == before


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
    origin.record(tmp_path / "run", experiment, open_source(experiment.data, lambda line: None))
    assert origin.recorded(tmp_path / "run")["data"]["masks"] == str(tmp_path / "masks")
    assert origin.data_of(tmp_path / "run", experiment) == experiment.data
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert origin.data_of(tmp_path / "run", experiment).masks == str(tmp_path / "masks")
    painted = tiny(shapes, data={"masks": "#ff00ff"})
    assert origin.data_of(tmp_path / "run", painted).masks == "#ff00ff"
