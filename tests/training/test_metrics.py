"""The rows of a run, and trackers that fail or do not answer: the run goes on, and its numbers are in its folder."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from diffusion.training import metrics
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
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.05)
    broken, trainer = Broken(hangs=hangs), start(tiny(shapes, training={"steps": 3}), tmp_path)
    monkeypatch.setattr(trainer.tracker, "name", "broken")
    monkeypatch.setattr(trainer.tracker, "open", lambda *values: None)
    monkeypatch.setattr(trainer.accelerator, "trackers", [broken])
    monkeypatch.setattr(trainer, "_show", lambda samples, evaluation: None)
    assert trainer.train().exit_code == 0
    said = "TimeoutError('it does not answer')" if hangs else "ConnectionError('the server is gone')"
    assert capsys.readouterr().out.count(f"report.tracker: broken failed and gets no more numbers: {said}") == 1
    assert broken.calls == 1 and [step for step, _ in losses(tmp_path)] == [1, 2, 3]


def test_a_tracker_that_hangs_at_the_end_is_left(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.05)
    trainer = start(tiny(shapes), tmp_path)
    monkeypatch.setattr(trainer.accelerator, "trackers", [Broken(hangs=True)])
    trainer.tracker.close()
    assert "does not answer" in capsys.readouterr().out and trainer.accelerator.trackers == []


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_rows_after_a_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3, 3, 4, 5):
        metrics.append(path, {"step": step, "loss": step / 3})
    before = path.read_text().splitlines()
    metrics.truncate_after(path, 3)
    assert path.read_text() == "\n".join(before[:4]) + "\n"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, {"step": 1})
    for half in ('{"step": 2, "lo', '{"loss": 3}', "3", "null", '{"step": "x"}'):
        with path.open("a") as file:
            file.write(half)
        metrics.truncate_after(path, 10)
        assert steps(path) == [1]
    metrics.append(path, {"step": 2})
    assert steps(path) == [1, 2]


def test_without_a_file_there_is_nothing_to_do(tmp_path: Path) -> None:
    metrics.truncate_after(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_bounds_are_found_by_their_step_whatever_their_unit(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert metrics.bounds(path) == {} and metrics.best(path, [1, 2]) is None
    metrics.append(path, {"step": 1, "loss": 0.5})
    for step, total in ((2, 5.0), (4, 3.0), (6, 4.0)):
        metrics.append(
            path, {"step": step, "held_out/total_bits_per_dim_se": 0.1, "held_out/total_bits_per_dim": total}
        )
    metrics.append(path, {"step": 8, "held_out/total_bits_per_vector": 9.0, "held_out/total_bits_per_vector_se": 0.1})
    assert metrics.bounds(path) == {2: 5.0, 4: 3.0, 6: 4.0, 8: 9.0}
    assert metrics.best(path, [1, 2, 6, 8, 10]) == 6 and metrics.best(path, [1, 3]) is None
