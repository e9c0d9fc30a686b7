"""Training on a pretended device: 0 waits between two logs with every objective, network and precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor

from diffusion import config
from diffusion.config import Config
from diffusion.progress import Bar
from diffusion.training import distill
from diffusion.training.trainer import Trainer
from tests.conftest import tiny
from tests.pretended import pretended
from tests.training.test_trainer import assert_equal, go, losses, start, weights

Sections = dict[str, dict[str, Any]]
IMAGES: dict[str, Sections] = {
    "plain": {},
    "bf16": {"training": {"precision": "bf16"}},
    "fp16": {"training": {"precision": "fp16"}},
    "accumulated": {"training": {"accumulate": 2}},
    "checkpointed": {"training": {"accumulate": 2, "gradient_checkpointing": True}},
    "hybrid": {"model": {"learned_variance": True}, "training": {"hybrid": 0.1}},
    "measured": {"noise_levels": {"name": "measured", "bins": 4}, "weighting": {"name": "exact"}},
    "trajectory": {"training": {"trajectory": 4}},
    "observed": {"observed": {"share": 0.7, "noisy": 0.5}},
    "observed_bf16": {
        "observed": {"share": 0.7},
        "training": {"precision": "bf16", "accumulate": 2, "gradient_checkpointing": True},
    },
    "observed_measured": {
        "observed": {"share": 0.7},
        "noise_levels": {"name": "measured", "bins": 4},
        "weighting": {"name": "exact"},
    },
    "group_norm": {"backbone": {"design": "group_norm", "dropout": 0.1}},
}


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for shared in (PartialState, AcceleratorState):
        monkeypatch.setattr(shared, "_shared_state", {})
    monkeypatch.setattr(Trainer, "_show", lambda self, samples, evaluation: None)


def waits_before_logs(experiment: Config, run: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trains, and returns the waits between each log and the one before it."""
    waits: list[str] = []
    look, log = Trainer._goes_back, Trainer._log
    with pretended("cuda") as ledger:

        def looks(self: Trainer) -> bool:
            waits.append(str(ledger))
            return look(self)

        def logs(self: Trainer, norm: Tensor, waited: float, bar: Bar) -> None:
            log(self, norm, waited, bar)
            ledger.clear()

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_goes_back", looks)
            patch.setattr(Trainer, "_log", logs)
            trainer = start(experiment, run)
            ledger.clear()
            assert trainer.accelerator.device == ledger.device
            trainer.train()
    return waits


def on_the_cpu(experiment: Config, run: Path) -> list[float]:
    start(experiment, run).train()
    return [loss for _, loss in losses(run)]


@pytest.mark.parametrize("name", IMAGES)
def test_a_run_on_images_waits_for_nothing_between_two_logs(
    name: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = IMAGES[name]
    training = {"label_dropout": 0.3, **sections.get("training", {})}
    experiment = tiny(
        shapes,
        **{
            **sections,
            "data": {"flip": True, "margin": 1},
            "training": training,
            "backbone": {**sections.get("backbone", {})},
            "report": {"log": 4, "checkpoint": 100},
        },
    )
    assert waits_before_logs(experiment, tmp_path / "run", monkeypatch) == ["0 waits"] * 3
    assert len(losses(tmp_path / "run")) == 3


@pytest.mark.parametrize("share", [0.0, 0.7])
def test_a_run_on_a_gpu_loses_what_one_on_the_cpu_does(
    share: float, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(shapes, report={"log": 4, "checkpoint": 100}, observed={"share": share, "noisy": 0.5})
    expected = on_the_cpu(experiment, tmp_path / "cpu")
    waits_before_logs(experiment, tmp_path / "gpu", monkeypatch)
    assert [loss for _, loss in losses(tmp_path / "gpu")] == pytest.approx(expected, rel=1e-4)


def test_a_student_waits_for_nothing_but_the_path_of_its_teacher(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = distill.student(trained, 2, ["training.steps=12", "training.batch=8", "report.log=4"])
    assert waits_before_logs(student, tmp_path / "run", monkeypatch) == ["0 waits"] * 3


def test_a_run_on_apples_gpu_loses_what_one_on_the_cpu_does(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps of times have no float64 there."""
    experiment = tiny(shapes, report={"log": 4, "checkpoint": 100}, observed={"share": 0.7, "noisy": 0.5})
    expected = on_the_cpu(experiment, tmp_path / "cpu")
    with pretended("mps"):
        trainer = start(experiment, tmp_path / "gpu")
        assert trainer.accelerator.device.type == "mps"
        trainer.train()
    assert [loss for _, loss in losses(tmp_path / "gpu")] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("backbone", "share"),
    [
        ({"name": "mlp", "width": 16, "blocks": 1}, 0.0),
        ({"name": "mlp", "width": 16, "blocks": 1}, 0.7),
        ({"name": "rbf", "units": 4, "steps": 4}, 0.0),
    ],
)
def test_a_run_on_points_waits_for_nothing_between_two_logs(
    backbone: dict[str, Any], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = config.from_dict(
        {
            "data": {"source": "swiss_roll", "count": 64},
            "backbone": backbone,
            "observed": {"share": share},
            "training": {"steps": 12, "batch": 8, "precision": "fp32", "warmup": 2},
            "report": {"log": 4, "checkpoint": 100},
        }
    )
    assert waits_before_logs(experiment, tmp_path / "run", monkeypatch) == ["0 waits"] * 3


def test_a_run_that_was_stopped_on_a_gpu_goes_on_exactly(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(shapes, training={"precision": "fp16"})
    with pretended("cuda"):
        for stop in (5, None):
            go(experiment, tmp_path / "parts", monkeypatch, stop)
        go(experiment, tmp_path / "whole", monkeypatch)
    assert_equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
