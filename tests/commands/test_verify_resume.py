"""`diffusion verify-resume`: what it prints, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion import cli, config
from diffusion.config import Config
from diffusion.training import verify
from tests.conftest import fails


@pytest.fixture
def written(tmp_path: Path, shapes: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(f"[data]\npath = '{shapes}'\nsize = 8\n")
    return path


RESUMED = "resumed from step 4 of 9, with training.deterministic = true: "


@pytest.mark.parametrize(
    ("differences", "code", "text"),
    [
        ([], 0, f"{RESUMED}the same to the last bit\n"),
        (["model/w differs", "step 5: loss"], 1, f"{RESUMED}not the same\nmodel/w differs\nstep 5: loss\n"),
    ],
)
def test_differences_are_printed_and_make_the_exit_code_1(
    written: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    differences: list[str],
    code: int,
    text: str,
) -> None:
    asked: list[tuple[Config, int]] = []

    def verify_resume(experiment: Config, steps: int) -> list[str]:
        asked.append((experiment, steps))
        return differences

    monkeypatch.setattr(verify, "verify_resume", verify_resume)
    assert cli.main(["verify-resume", str(written), "training.batch=8", "--steps", "9"]) == code
    assert capsys.readouterr().out == text
    assert asked == [(config.load(written, ["training.batch=8"]), 9)]


def test_one_step_cannot_be_interrupted(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "verify-resume", written, "--steps", "1") == "error: steps: must be at least 2, got 1\n"


def test_an_override_that_would_change_nothing_is_refused(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "verify-resume", "training.steps=40", written)
    assert message == "error: training.steps: has no effect here; give the steps of the two runs by --steps\n"
