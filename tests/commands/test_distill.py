"""`diffusion distill`: the student that it trains, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion import cli, training
from diffusion.config import Config
from diffusion.training.distill import student
from tests.conftest import fails


def test_the_student_is_trained_beside_its_teacher_unless_told_otherwise(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[Config, Path]] = []

    def train(experiment: Config, run: Path) -> int:
        taught.append((experiment, run))
        return 7

    monkeypatch.setattr(training, "train", train)
    overrides = ["training.steps=5", "distillation.substeps=2"]
    assert cli.main(["distill", str(trained), *overrides]) == 7, "the exit code of training"
    assert cli.main(["distill", str(trained), "--nfe", "2", "--out", str(tmp_path / "fast")]) == 7
    assert taught == [
        (student(trained, 4, overrides), trained.with_name("trained-4")),
        (student(trained, 2, ()), tmp_path / "fast"),
    ]
    first = taught[0][0]
    assert first.training.steps == 5 and first.distillation.substeps == 2 and first.sampling.steps == 4
    assert first.distillation.teacher and taught[1][0].sampling.steps == 2


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such run folder" in fails(capsys, "distill", tmp_path / "gone")


def test_the_student_of_a_checkpoint_lies_beside_the_run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[tuple[Config, Path]] = []
    monkeypatch.setattr(training, "train", lambda experiment, run: taught.append((experiment, run)) or 0)
    assert cli.main(["distill", str(trained / "checkpoints" / "step-00000020")]) == 0
    monkeypatch.chdir(trained)
    assert cli.main(["distill", "."]) == 0
    (first, beside), (_, here) = taught
    assert beside == trained.with_name("trained-step-00000020-4") and here == trained.with_name("trained-4")
    assert first == student(trained / "step-00000020", 4)


def test_the_evaluations_are_given_once(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "distill", trained, "--nfe", "4", "sampling.steps=8")
    assert message == "error: sampling.steps: are the network evaluations of a student; give them by --nfe\n"
