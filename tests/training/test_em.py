"""Rounds of completing and training: exact resumption, the decision about a round, and what is left in the run."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import checkpoint
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec
from diffusion.data.sources import SOURCES, DataOptions
from diffusion.errors import InputError
from diffusion.evaluation import Evaluation
from diffusion.evaluation.intervals import Estimate
from diffusion.interrupt import Interrupt, Stopped
from diffusion.model import Model, load
from diffusion.training import completions, em, train
from diffusion.training.batches import BatchMaker
from diffusion.training.em import Round, decided, rounds
from diffusion.training.report import Reporter, Validation
from diffusion.training.trainer import Outcome, Trainer
from tests.conftest import tiny
from tests.training.test_trainer import assert_equal, losses, weights

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _holes(monkeypatch: Patch) -> None:
    """Gives each image of a folder a hole, completes it in few steps, and leaves out pictures and numbers of a run."""
    opened = SOURCES["folder"]

    def holed(options: DataOptions, log: Callable[[str], None], spec: DataSpec | None = None) -> Dataset:
        dataset = opened(options, log, spec)
        seen = np.ones((len(dataset), 1, 8, 8), dtype=np.uint8)
        for number, mask in enumerate(seen):
            mask[:, number % 4 : number % 4 + 3, number % 5 : number % 5 + 4] = 0
        return replace(dataset, seen=seen, contents=None)

    monkeypatch.setitem(SOURCES, "folder", holed)
    monkeypatch.setattr("diffusion.model.model.RESTORATION_STEPS", 3)
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)
    monkeypatch.setattr(Reporter, "samples", lambda self, model: None)
    monkeypatch.setattr(Reporter, "validation", lambda self, model, losses: Validation())


def experiment(shapes: Path, rounds: int = 1, **training: object) -> Config:
    options = {"steps": 4, "em": rounds, "em_steps": 3, "em_draws": 2, **training}
    return tiny(shapes, training=options, observed={"share": 0.7})


def evaluation(*values: float) -> Evaluation:
    mean = sum(values) / len(values)
    return Evaluation("bound", "", "bits/dim", len(values), {"total": Estimate(mean, 0.1, {})}, values)


def judged(monkeypatch: Patch, *means: float) -> None:
    """Lets the evaluations of a run and of its rounds come out so."""
    results = iter([evaluation(mean - 0.01, mean, mean + 0.01) for mean in means])
    monkeypatch.setattr(em, "evaluate", lambda *args, **options: next(results))


def stopping(monkeypatch: Patch, folder: str, step: int) -> None:
    """Lets SIGINT come in a step of the run in a folder of that name."""

    def received(self: Trainer, interrupt: object) -> int:
        return signal.SIGINT if (self.run.name, self.step) == (folder, step) else 0

    monkeypatch.setattr(Trainer, "_signal", received)


def test_a_round_is_decided_by_the_differences_of_the_examples() -> None:
    """Three examples are better by 0.1, 0.2 and 0.3: by 0.2 on average, with a standard error of 0.1/√3."""
    before = evaluation(3.0, 5.0, 4.0)
    found = decided(2, 40, 12, before, evaluation(2.9, 4.8, 3.7))
    assert found.better == pytest.approx(0.2) and found.error == pytest.approx(0.1 / 3**0.5)
    assert found.kept and (found.follows, found.step) == (40, 52)
    assert str(found) == (
        "round 2: held-out bound 4.0000 -> 3.8000 bits/dim, better by 0.2000 with a standard error of 0.0577: kept as "
        "step 52"
    )
    # Better by 0.1 on average, with a standard error of 0.2/√3 = 0.115.
    lost = decided(1, 40, 12, before, evaluation(3.1, 4.9, 3.7))
    assert lost.better == pytest.approx(0.1) and not lost.kept and lost.step == 40
    assert str(lost).endswith("standard error of 0.1155: dropped; the run ends with step 40")


def test_the_model_of_a_round_that_is_kept_is_that_of_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    judged(monkeypatch, 4.0, 3.8, 3.9)
    kept: list[dict[str, torch.Tensor]] = []
    settle = em._settle

    def watched(config: Config, where: Path, found: Round) -> None:
        kept.append(weights(where / f"em-{found.number}"))
        settle(config, where, found)

    with monkeypatch.context() as patch:
        patch.setattr(em, "_settle", watched)
        assert train(experiment(shapes, 3), run) == 0
    assert [each.kept for each in rounds(run)] == [True, False], "the round after a dropped one is not begun"
    assert load(run).step == 7 and load(run).config == experiment(shapes, 3)
    assert_equal(weights(run), kept[0])
    text = capsys.readouterr().out
    assert "round 1: held-out bound 4.0000 -> 3.8000 bits/dim, better by 0.2000" in text
    assert (
        "round 2: held-out bound 3.8000 -> 3.9000 bits/dim, worse by 0.1000" in text
        and "dropped; the run ends with step 7" in text
    )
    for number in (1, 2):
        assert (run / f"em-{number}" / "metrics.jsonl").exists()
        assert not (run / f"em-{number}" / checkpoint.FOLDER).exists()
        assert not (run / f"em-{number}" / completions.FOLDER).exists()
    assert train(experiment(shapes, 3), run) == 0
    assert f"{run}: already at step 7, with round 2 dropped" in capsys.readouterr().out
    assert_equal(weights(run), kept[0])


def test_rounds_may_follow_a_run_that_ended_without(
    shapes: Path, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert train(experiment(shapes, 0), run) == 0
    base = weights(run)
    judged(monkeypatch, 4.0, 4.1)
    assert train(experiment(shapes, 1), run) == 0
    assert_equal(weights(run), base), "a round that is dropped leaves nothing"
    judged(monkeypatch, 4.0, 3.9)
    assert train(experiment(shapes, 1), whole) == 0
    capsys.readouterr()
    assert train(experiment(shapes, 1), whole) == 0
    assert "already at step 7, with round 1 kept; to go on, raise training.em" in capsys.readouterr().out
    judged(monkeypatch, 3.9, 3.8)
    assert train(experiment(shapes, 2), whole) == 0 and load(whole).step == 10
    with pytest.raises(InputError, match=r"training.steps: must be 4, after which the rounds of training.em began"):
        train(experiment(shapes, 2, steps=5), whole)


def interrupted_in_e_step(monkeypatch: Patch) -> None:
    def one(items: list[int], *args: object, **options: object) -> Iterator[int]:
        yield items[0]
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(completions, "track", one)


def interrupted_before_publishing(monkeypatch: Patch) -> None:
    def stopped(*args: object) -> None:
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(em, "_publish", stopped)


def test_a_run_with_a_round_goes_on_exactly_wherever_it_was_interrupted(
    shapes: Path, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Model, "batch_size", lambda self, **options: 7)
    config, whole, parts = experiment(shapes, 2), tmp_path / "whole", tmp_path / "parts"
    judged(monkeypatch, 4.0, 3.8, 3.7)
    assert train(config, whole) == 0
    judged(monkeypatch, 4.0, 3.8, 3.8, 3.7)
    for interrupt in (
        lambda patch: stopping(patch, "parts", 2),
        interrupted_in_e_step,
        interrupted_in_e_step,
        lambda patch: stopping(patch, "em-1", 2),
        interrupted_before_publishing,
        interrupted_in_e_step,
        lambda patch: stopping(patch, "em-2", 1),
    ):
        with monkeypatch.context() as patch:
            interrupt(patch)
            assert train(config, parts) == 130
            assert "the same command goes on from here" in capsys.readouterr().out
    assert train(config, parts) == 0
    assert_equal(weights(whole), weights(parts))
    assert rounds(whole) == rounds(parts) and load(parts).step == 10
    for folder in ("", "em-1", "em-2"):
        assert losses(whole / folder) == losses(parts / folder)


def test_what_a_round_learns_from(shapes: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    """Completions of the training images alone, and the holes that they had."""
    made: list[BatchMaker] = []
    monkeypatch.setattr(Trainer, "train", watched_train(made))
    judged(monkeypatch, 4.0, 4.0)
    train(experiment(shapes), tmp_path / "run")
    first, second = made
    assert first.holes is None and first.dataset.seen is not None and second.dataset.seen is not None
    assert np.array_equal(np.asarray(second.dataset.seen), np.tile(np.asarray(first.dataset.seen), (2, 1, 1, 1)))
    values, seen = np.asarray(first.dataset.values), np.asarray(first.dataset.seen) != 0
    completed = np.asarray(second.dataset.values).reshape(2, *values.shape)
    known = np.broadcast_to(seen, values.shape)
    assert all(np.array_equal(each[known], values[known]) for each in completed)
    assert (completed[0][~known] != completed[1][~known]).mean() > 0.9
    assert [*second.dataset.names] == 2 * [*first.dataset.names]
    assert second.dataset.labels is not None and first.dataset.labels is not None
    assert second.dataset.labels.tolist() == 2 * first.dataset.labels.tolist()
    assert second.dataset.spec == first.dataset.spec, "the run keeps its units"
    assert second.holes is not None and np.array_equal(np.asarray(second.holes.seen), np.asarray(first.dataset.seen))
    assert second.seed == first.seed + 1


def watched_train(made: list[BatchMaker]) -> Callable[..., Outcome]:
    train_ = Trainer.train

    def watched(self: Trainer, interrupt: Interrupt) -> Outcome:
        copied = replace(self.maker.dataset, values=np.array(self.maker.dataset.values))
        made.append(replace(self.maker, dataset=copied))
        return train_(self, interrupt)

    return watched


def test_a_round_that_was_begun_with_other_images_begins_again(
    shapes: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    folder, run = Path(shutil.copytree(shapes, tmp_path / "images")), tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping(patch, "em-1", 2)
        assert train(experiment(folder), run) == 130
    before = json.loads((run / "em-1" / completions.FOLDER / completions.MADE).read_text())
    for path in sorted((folder / "disk").glob("*.png"))[:6]:
        shutil.copy(path, path.with_name(f"more-{path.name}"))
    judged(monkeypatch, 4.0, 3.9)
    with monkeypatch.context() as patch:
        stopping(patch, "em-1", 1)
        assert train(experiment(folder), run) == 130
    after = json.loads((run / "em-1" / completions.FOLDER / completions.MADE).read_text())
    assert before["made"]["examples"] != after["made"]["examples"]
    assert [step for step, _ in losses(run / "em-1")] == [1], "from its first step"


def test_runs_without_holes_or_held_out_examples_are_refused_before_they_train(
    shapes: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    opened = SOURCES["folder"]

    def without(seen: np.ndarray | None) -> Callable[..., Dataset]:
        return lambda *args: replace(opened(*args), seen=seen, contents=None)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setitem(SOURCES, "folder", without(None))
        with pytest.raises(InputError, match=r"data.masks: must be set with training.em, to say what"):
            train(experiment(shapes), run)
        patch.setitem(SOURCES, "folder", without(np.ones((40, 1, 8, 8), dtype=np.uint8)))
        with pytest.raises(InputError, match=r"training.em: must be 0, as nothing of the training images is unseen"):
            train(experiment(shapes), run)
    few = replace(experiment(shapes), data=replace(experiment(shapes).data, held_out=1e-9))
    with pytest.raises(InputError, match=r"data.held_out: must be large enough to keep two examples"):
        train(few, run)
    assert not checkpoint.folders(run)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    assert rounds(tmp_path) == []
    (tmp_path / em.RECORD).write_text("[{")
    with pytest.raises(InputError, match=r"em.json: is damaged"):
        rounds(tmp_path)


def test_the_last_pictures_are_those_of_the_last_round_that_was_kept(
    shapes: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    shown: list[tuple[str, int]] = []
    monkeypatch.setattr(Reporter, "finish", lambda self, model: shown.append((self.run.name, model.step)))
    judged(monkeypatch, 4.0, 3.9, 4.0)
    train(experiment(shapes, 2), tmp_path / "run")
    assert shown == [("run", 4), ("em-1", 3), ("em-2", 3), ("run", 7)]


def test_a_round_ends_by_the_bound_of_the_held_out_images(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is pretended here: the decision is that of the numbers that are said."""
    run = tmp_path / "run"
    assert train(experiment(shapes, steps=30, em_steps=20, em_draws=1), run) == 0
    (found,) = rounds(run)
    assert str(found) in capsys.readouterr().out.splitlines()
    assert found.kept == (found.better > found.error) and found.error > 0
    assert load(run).step == (50 if found.kept else 30)
    assert found.better == pytest.approx(found.before - found.after, abs=0.05)
