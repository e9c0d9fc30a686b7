"""The state of a run: what is saved is what is loaded, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from diffusion import checkpoint
from diffusion.checkpoint import CheckpointError, Part, Retention
from diffusion.config import from_dict
from diffusion.training import state
from diffusion.training.trainer import Trainer
from tests.conftest import tiny
from tests.training.test_trainer import start


def resumed(run: Path) -> Trainer:
    return start(from_dict(json.loads((run / "config.json").read_text())), run)


def files(trainer: Trainer) -> dict[str, Part]:
    return state.state_dict(
        trainer.config,
        trainer.maker.dataset.spec,
        trainer.step,
        trainer.network,
        trainer.ema.network,
        trainer.optimizer,
        trainer.stateful,
        trainer.gradient.at_once,
    )


def test_the_state_of_a_resumed_run_is_that_of_its_checkpoint(run: Path) -> None:
    folder, _ = checkpoint.find(run)
    trainer = resumed(run)
    assert trainer.step == 40
    for name, part in files(trainer).items():
        saved = checkpoint.read(folder, name)
        assert json.loads(json.dumps(part.description)) == saved.description
        assert part.tensors.keys() == saved.tensors.keys()
        assert [key for key in saved.tensors if not torch.equal(saved.tensors[key], part.tensors[key])] == []


def test_every_parameter_has_its_moments_and_the_other_parts_have_a_place(run: Path) -> None:
    trainer = resumed(run)
    names = files(trainer)["training"].tensors.keys()
    parameters = [name for name, _ in trainer.network.named_parameters()]
    moments = {f"optimizer/{name}/{key}" for name in parameters for key in ("step", "exp_avg", "exp_avg_sq")}
    network = {f"network/{name}" for name in trainer.network.state_dict()}
    monitor = {f"monitor/{key}" for key in ("log_snr", "loss", "mean", "weight")}
    # The validations that those to come are compared with.
    validations = {f"generalization/0/{key}" for key in ("step", "training", "held_out", "gaps")}
    noted = {f"generalization/{key}" for key in ("examples", "numbers")}
    assert names == moments | network | monitor | validations | noted


def test_a_run_without_a_checkpoint_begins(shapes: Path, tmp_path: Path) -> None:
    trainer = start(tiny(shapes), tmp_path)
    said: list[str] = []
    found = state.load_state(
        tmp_path, trainer.network, trainer.ema.network, trainer.optimizer, trainer.stateful, said.append
    )
    assert found == (0, None) and said == [] and len(trainer.optimizer.state) == 0


def test_a_damaged_checkpoint_is_passed_over_by_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "step-00000040" / "training.safetensors").write_bytes(b"")
    assert resumed(run).step == 20
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("; using step-00000020 instead") and "training.safetensors has 0 bytes" in said[0]
    assert said[1] == f"resuming {run} from step 20"


@pytest.mark.parametrize("description", [{}, {"step": "x"}, {"step": 40, "at_once": "many"}])
def test_a_description_without_a_step_is_named_as_damage(run: Path, description: dict[str, object]) -> None:
    folder, _ = checkpoint.find(run)
    parts = {name: checkpoint.read(folder, name) for name in ("model", "training")}
    parts["training"] = Part(parts["training"].tensors, description)
    checkpoint.write(run, 40, parts, keep=Retention(1))
    with pytest.raises(CheckpointError, match="step-00000040: damaged checkpoint: its description: "):
        resumed(run)


def test_at_once_is_remembered_and_unknown_to_older_checkpoints(run: Path) -> None:
    folder, _ = checkpoint.find(run)
    parts = {name: checkpoint.read(folder, name) for name in ("model", "training")}
    for description, expected in (({"step": 40, "at_once": 2}, 2), ({"step": 40}, 8)):
        checkpoint.write(
            run, 40, {**parts, "training": Part(parts["training"].tensors, description)}, keep=Retention(1)
        )
        assert resumed(run).gradient.at_once == expected
