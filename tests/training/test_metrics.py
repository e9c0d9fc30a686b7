"""The rows of a run, and trackers that fail or do not answer: the run goes on, and its numbers are in its folder."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

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


class Taker:
    """A tracker that takes images as those of accelerate do, and notes what it was given."""

    def __init__(self, name: str) -> None:
        self.name, self.taken = name, []  # type: ignore[var-annotated]

    def log_images(self, values: dict[str, object], step: int | None = None, **options: object) -> None:
        self.taken.append((values, step, options))


def test_each_tracker_gets_a_picture_in_the_form_that_it_takes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "grid.png")
    takers = [Taker(name) for name in ("tensorboard", "wandb", "aim")]
    accelerator = SimpleNamespace(is_main_process=True, trackers=[*takers, Broken(hangs=False)])
    metrics.Tracker(accelerator, "several", print).pictures({"samples": path}, 7)  # type: ignore[arg-type]
    (board, step, options), wandb, aim = (taker.taken[0] for taker in takers)
    assert step == 7 and options == {"dataformats": "NHWC"}
    assert np.array_equal(board["samples"], pixels[None])
    assert len(wandb[0]["samples"]) == 1 and np.array_equal(wandb[0]["samples"][0], pixels)
    assert np.array_equal(aim[0]["samples"], pixels) and wandb[2] == aim[2] == {}
    assert accelerator.trackers[-1].calls == 0, "one that takes none is left alone"


def test_a_tracker_of_images_among_numbers_gets_one_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Image=lambda pixels: ("image", pixels)))
    Image.new("RGB", (6, 4), (9, 8, 7)).save(path := tmp_path / "grid.png")
    taken: list[tuple[dict[str, tuple[str, np.ndarray]], int]] = []  # type: ignore[type-arg]
    trackio = SimpleNamespace(name="trackio", log=lambda values, step: taken.append((values, step)))
    accelerator = SimpleNamespace(is_main_process=True, trackers=[trackio])
    metrics.Tracker(accelerator, "trackio", print).pictures({"samples": path}, 7)  # type: ignore[arg-type]
    ((values, step),) = taken
    kind, pixels = values["samples"]
    assert (kind, step, pixels.shape) == ("image", 7, (4, 6, 3)) and (pixels == (9, 8, 7)).all()


def test_a_picture_that_a_tracker_does_not_take_ends_no_run(tmp_path: Path) -> None:
    said: list[str] = []
    accelerator = SimpleNamespace(is_main_process=True, trackers=[Taker("wandb")])
    metrics.Tracker(accelerator, "wandb", said.append).pictures({"samples": tmp_path / "gone.png"}, 7)  # type: ignore[arg-type]
    assert accelerator.trackers == [] and "wandb failed and gets no more numbers: FileNotFoundError" in said[0]
