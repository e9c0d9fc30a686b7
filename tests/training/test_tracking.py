"""Trackers that fail or do not answer: the run goes on, and its numbers are in its folder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from diffusion.training import tracking
from tests.conftest import tiny
from tests.training.test_trainer import losses, start


class Broken:
    """A tracker that answers as it is told to."""

    def __init__(self, *, hangs: bool) -> None:
        self.name, self.hangs, self.calls = "broken", hangs, 0

    def log(self, *values: object, **options: object) -> None:
        self.calls += 1
        if self.hangs:
            time.sleep(60)
        raise ConnectionError("the server is gone")

    def finish(self) -> None:
        self.log()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_tracker_that_fails_or_hangs_does_not_end_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hangs: bool
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.05)
    broken, trainer = Broken(hangs=hangs), start(tiny(shapes, training={"steps": 3}), tmp_path)
    monkeypatch.setattr(trainer.tracking, "name", "broken")
    monkeypatch.setattr(trainer.tracking, "open", lambda *values: None)
    monkeypatch.setattr(trainer.accelerator, "trackers", [broken])
    monkeypatch.setattr(trainer, "_show", lambda samples, evaluation: None)
    assert trainer.train().exit_code == 0
    said = "TimeoutError('it does not answer')" if hangs else "ConnectionError('the server is gone')"
    assert capsys.readouterr().out.count(f"report.tracker: broken failed and gets no more numbers: {said}") == 1
    assert broken.calls == 1 and [step for step, _ in losses(tmp_path)] == [1, 2, 3]


def test_a_tracker_that_hangs_at_the_end_is_left(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.05)
    trainer = start(tiny(shapes), tmp_path)
    monkeypatch.setattr(trainer.accelerator, "trackers", [Broken(hangs=True)])
    trainer.tracking.close()
    assert "does not answer" in capsys.readouterr().out and trainer.accelerator.trackers == []
