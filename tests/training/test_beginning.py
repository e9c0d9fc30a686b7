"""What a run begins from: which models, in whose units, and what is said and recorded of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffusion import checkpoint, config
from diffusion.checkpoint import Part, Retention
from diffusion.data import open_source
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, evaluate
from diffusion.model import build, describe, load, origin
from diffusion.training.beginning import check_init, first_line, in_units_of_init, open_init, records
from diffusion.training.trainer import Trainer
from tests.conftest import tiny
from tests.model.test_transfer import SPEC


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_refused(trained: Path, shapes: Path, channels: int) -> None:
    experiment = tiny(shapes, data={"channels": channels}, training={"init": str(trained)})
    rule = f"data.channels: must be 3, for which the first and the last layer of training.init = {trained} were trained"
    with pytest.raises(InputError, match=rf"^{rule}, got {channels}$"):
        check_init(experiment)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"backbone": {"channels": [8, 8]}}, r"backbone\.channels: \(8, 16\), here \(8, 8\)"),
        ({"backbone": {"name": "mlp", "channels": None}}, r"backbone\.name: 'UNetConfig', here 'MLPConfig'"),
        ({"parameterization": {"name": "eps"}}, r"parameterization\.name: 'EDMPrecond', here 'Eps'"),
        (
            {"model": {"learned_variance": True}, "training": {"hybrid": 0.1, "init": "x"}},
            r"model\.learned_variance: False, here True",
        ),
    ],
)
def test_weights_of_another_network_are_refused_with_what_differs(
    trained: Path, shapes: Path, changed: dict[str, dict[str, object]], line: str
) -> None:
    experiment = tiny(shapes)
    tree = config.to_dict(experiment)
    for section, values in changed.items():
        tree[section] = values if "name" in values else {**tree[section], **values}
        tree[section] = {key: value for key, value in tree[section].items() if value is not None}
    tree["training"]["init"] = str(trained)
    with pytest.raises(InputError, match=rf"training\.init: .*trained has another network(.|\n)*{line}"):
        check_init(config.from_dict(tree))


def test_dropout_schedule_rate_and_batch_are_free(trained: Path, shapes: Path) -> None:
    free = tiny(
        shapes,
        backbone={"dropout": 0.2},
        schedule={"name": "cosine"},
        training={"lr": 0.5, "batch": 4, "init": str(trained)},
    )
    assert open_init(free).step == 40


def test_what_is_no_model_is_refused_by_the_name_of_the_key(trained: Path, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^training\.init: .*none: no such run folder"):
        check_init(tiny(shapes, training={"init": str(tmp_path / "none")}))
    with pytest.raises(InputError, match=r"^training\.init: must be empty for a student"):
        check_init(tiny(shapes, training={"init": str(trained)}, distillation={"teacher": str(trained)}))
    check_init(tiny(shapes))
    student = replace(load(trained, device="cpu").config, distillation=config.DistillationConfig("runs/teacher"))
    parts = {"model": Part(build(student, SPEC).state_dict(), describe(student, SPEC, 3))}
    checkpoint.write(tmp_path / "student", 3, parts, keep=Retention(1))
    with pytest.raises(InputError, match=r"was distilled .*; begin from its teacher, runs/teacher"):
        check_init(tiny(shapes, training={"init": str(tmp_path / "student")}))


def test_a_checkpoint_may_be_the_beginning(trained: Path, shapes: Path) -> None:
    path = trained / "checkpoints" / "step-00000020"
    assert open_init(tiny(shapes, training={"init": str(path)})).step == 20


def test_the_bound_before_the_first_step_is_that_of_the_source_to_the_last_digit(
    trained: Path, shapes: Path, tmp_path: Path
) -> None:
    experiment = tiny(shapes, training={"init": str(trained), "seed": 4})
    dataset = in_units_of_init(open_source(experiment.data, lambda line: None), experiment, tmp_path)
    training, held_out = dataset.split(0.2, 0)
    trainer = Trainer(experiment, training, held_out, tmp_path)
    own, source = (
        evaluate(model, held_out, method=BoundEstimator(draws=2)) for model in (trainer.model, load(trained))
    )
    assert trainer.step == 0 and own.values == source.values and own.terms == source.terms
    assert len(own.values) == len(held_out) > 8


def test_a_run_says_and_records_what_it_begins_from(trained: Path, shapes: Path, tmp_path: Path) -> None:
    run, manifest = tmp_path / "run", json.loads((checkpoint.find(trained)[0] / "manifest.json").read_text())
    experiment = tiny(shapes, training={"init": str(trained)})
    digest = manifest["files"]["model.safetensors"]["sha256"]
    assert records(experiment, run) == {"training.init": {"path": str(trained), "step": 40, "sha256": digest}}
    said = f"from the weights of {trained}, step 40 (sha256 {digest[:12]})"
    assert first_line(experiment, run) == f"{run}: begins {said}"
    assert first_line(tiny(shapes), run) == f"{run}: begins from new weights"
    student = replace(tiny(shapes), distillation=config.DistillationConfig(str(trained)))
    assert first_line(student, run) == f"{run}: begins {said.replace('of ', 'of its teacher ')}"


def test_a_run_that_goes_on_says_what_it_began_from_when_that_is_gone(run: Path, shapes: Path) -> None:
    source = Path(shutil.copytree(run, run.with_name("source")))
    experiment = tiny(shapes, training={"init": str(source)})
    (run / "checkpoints").rename(run / "aside")
    before = first_line(experiment, run)
    origin.record(run, experiment, open_source(experiment.data, lambda line: None), records(experiment, run))
    (run / "aside").rename(run / "checkpoints")
    shutil.rmtree(source)
    assert first_line(experiment, run) == before.replace("begins", "began")
    (run / origin.SOURCES).unlink()
    assert first_line(experiment, run) == f"{run}: began from the weights of {source}", (
        "an earlier version recorded none"
    )
