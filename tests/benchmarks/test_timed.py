"""A training ends with its steps, or with its time."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import timed, training
from diffusion.backbones import UNetConfig
from diffusion.config import Config, TrainingConfig
from diffusion.model import Model, load

SMALL = Config(backbone=UNetConfig(channels=(8, 8, 8)), training=TrainingConfig(steps=3, batch=4, precision="fp32"))


def test_without_a_limit_it_takes_the_steps_of_the_experiment(tmp_path: Path) -> None:
    data = training.dataset(8, 3, 8)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    model, seconds = timed.train(SMALL, data, tmp_path / "run")
    assert model.step == load(tmp_path / "run").step == 3 and seconds > 0
    assert not (tmp_path / "run" / "old").exists()


def test_with_a_limit_the_steps_follow_from_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seconds that pass as told: 40 of 2 s leave 20 of 100 s, of which 94 % hold 9 more."""
    now = 0.0
    monkeypatch.setattr(timed.time, "perf_counter", lambda: now)

    def trial(trainer: object, steps: int) -> float:
        nonlocal now
        now += 2 * steps
        return 2.0

    monkeypatch.setattr(timed, "seconds_per_step", trial)
    model, _ = timed.train(SMALL, training.dataset(8, 3, 8), tmp_path / "run", 100.0)
    assert model.step == model.config.training.steps == 9


def test_a_finished_run_of_the_same_settings_is_not_made_again(tmp_path: Path) -> None:
    made: list[float] = []

    def make() -> tuple[Model, float]:
        made.append(3.5 + len(made))
        return timed.train(SMALL, training.dataset(8, 3, 8), tmp_path / "run")[0], made[-1]

    settings = {"minutes": 2, "sizes": (8, 8)}
    first, again = (timed.reused(tmp_path / "run", settings, make) for _ in range(2))
    assert made == [3.5] and first[1] == again[1] == 3.5 and again[0].step == first[0].step == 3
    timed.reused(tmp_path / "run", settings | {"minutes": 3}, make)
    timed.reused(tmp_path / "run", settings | {"minutes": 3}, make, again=True)
    assert made == [3.5, 4.5, 5.5]

    def stopped() -> tuple[Model, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timed.reused(tmp_path / "run", settings, stopped)
    timed.reused(tmp_path / "run", settings | {"minutes": 3}, make)
    assert len(made) == 4, "what was begun anew is not taken for what was there before"


def test_runs_are_known_by_their_configuration_data_and_time(tmp_path: Path) -> None:
    data = training.dataset(8, 3, 8)
    timed.once(SMALL, data, tmp_path / "run", math.inf)
    (tmp_path / "run" / "mark").touch()
    timed.once(SMALL, data, tmp_path / "run", math.inf)
    assert (tmp_path / "run" / "mark").exists()
    timed.once(SMALL, data.subset(range(7)), tmp_path / "run", math.inf)
    assert not (tmp_path / "run" / "mark").exists()
