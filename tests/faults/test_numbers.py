"""Losses and gradients that are not finite, and losses that jump: weights and moments never see the first."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import checkpoint
from diffusion.config import Config
from diffusion.objectives import Batch
from diffusion.training import nonfinite
from diffusion.training.batches import BatchMaker
from diffusion.training.trainer import Trainer
from tests.conftest import tiny
from tests.training.test_trainer import assert_equal, go, losses, rows, start, weights

Fault = Callable[[Batch, int], Batch]


def inject(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Changes batches by their step, counted from 1."""
    real = BatchMaker.on_device
    monkeypatch.setattr(BatchMaker, "on_device", lambda self, host: fault(real(self, host), host.step + 1))


def scaled(batch: Batch, factor: float) -> Batch:
    return replace(batch, x=batch.x * factor)


def memory(trainer: Trainer) -> dict[str, Tensor]:
    """Weights, average and everything that the optimizer remembers."""
    found = {f"network/{k}": v.clone() for k, v in trainer.network.state_dict().items()}
    found |= {f"average/{k}": v.clone() for k, v in trainer.ema.network.state_dict().items()}
    for name, parameter in trainer.network.named_parameters():
        found |= {f"{name}/{key}": value.clone() for key, value in trainer.optimizer.state[parameter].items()}
    return found


def small(shapes: Path, **training: object) -> Config:
    return tiny(
        shapes,
        backbone={"design": "group_norm"},
        training={"steps": 30, "weight_decay": 0.1, **training},
        report={"checkpoint": 10},
    )


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_changes_nothing(
    shapes: Path, tmp_path: Path, value: float, accumulate: int
) -> None:
    trainer = start(small(shapes, accumulate=accumulate), tmp_path)
    for step in range(3):
        trainer.update(trainer.maker(step))
    before, batch = memory(trainer), trainer.maker(3)
    x = batch.x.clone()
    x[-1, 0, 0, 0] = value  # One pixel of one image, in the last part.
    norm = trainer.update(replace(batch, x=x))
    after = memory(trainer)
    assert not math.isfinite(float(norm)) and trainer.guard.look(4) == 1
    moments = [name for name in before if not name.startswith(("network/", "average/"))]
    assert moments
    assert_equal({name: before[name] for name in moments}, {name: after[name] for name in moments})
    for name in (name for name in before if name.startswith("network/")):
        # Weights of unit norm are put back onto their sphere after every step, which rounds.
        torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-7)
        assert name.startswith("network/embed.") or torch.equal(after[name], before[name]), name
    assert all(bool(value.isfinite().all()) for value in after.values())
    trainer.update(trainer.maker(4))
    assert not torch.equal(memory(trainer)["network/stem.weight"], after["network/stem.weight"])


def test_a_gradient_that_is_not_finite_behind_a_finite_loss_changes_nothing(shapes: Path, tmp_path: Path) -> None:
    trainer = start(small(shapes), tmp_path)
    trainer.update(trainer.maker(0))
    before = memory(trainer)
    parameter = next(trainer.network.parameters())
    handle = parameter.register_hook(lambda gradient: gradient * math.inf)
    trainer.update(trainer.maker(1))
    handle.remove()
    assert trainer.guard.look(2) == 1
    assert torch.equal(memory(trainer)["network/stem.weight"], before["network/stem.weight"])


def test_a_loss_that_is_not_finite_behind_finite_gradients_changes_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(small(shapes), tmp_path)
    trainer.update(trainer.maker(0))
    before, real = memory(trainer), type(trainer.objective).loss
    monkeypatch.setattr(type(trainer.objective), "loss", lambda *values: real(*values) + math.inf)
    trainer.update(trainer.maker(1))
    assert trainer.guard.look(2) == 1
    assert torch.equal(memory(trainer)["network/stem.weight"], before["network/stem.weight"])


def test_skipped_batches_are_named_and_the_run_goes_on(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(monkeypatch, lambda batch, step: scaled(batch, math.nan) if step in (7, 9) else batch)
    assert go(small(shapes), tmp_path, monkeypatch).exit_code == 0
    text = capsys.readouterr().out
    names = start(small(shapes), tmp_path / "other").maker.names(6)
    for step in (7, 9):
        assert f"step {step}: the loss or the gradient is not finite; skipped the batch of " in text
    assert f"{names[0]}, {names[1]}, {names[2]} and 5 more" in text
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())
    logged = [step for step, _ in losses(tmp_path)]
    assert logged == [step for step in range(1, 31) if step not in (7, 9)]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text() and len(rows(tmp_path)) == 30


def test_a_fault_that_passes_costs_the_way_back_and_nothing_else(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(small(shapes), tmp_path / "whole", monkeypatch)
    seen: list[int] = []

    def passing(batch: Batch, step: int) -> Batch:
        broken = 13 <= step < 13 + nonfinite.LIMIT and seen.count(step) == 0
        seen.append(step)
        return scaled(batch, math.inf) if broken else batch

    inject(monkeypatch, passing)
    assert go(small(shapes), tmp_path / "parts", monkeypatch).exit_code == 0
    assert f"step 17: {nonfinite.LIMIT} steps in a row were skipped; going back, once" in capsys.readouterr().out
    assert seen == [*range(1, 18), *range(11, 31)]
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_a_fault_that_stays_ends_the_run_with_a_report(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, lambda batch, step: scaled(batch, math.nan) if step > 12 else batch)
    with pytest.raises(FloatingPointError, match=r"step 17: .* 5 steps in a row .*lower training\.lr") as caught:
        go(small(shapes), tmp_path, monkeypatch)
    report = json.loads((tmp_path / nonfinite.REPORT).read_text())
    trainer = start(small(shapes), tmp_path / "other")
    assert report["learning_rate"] == pytest.approx(trainer.learning_rate(16))
    assert list(report["batches"]) == ["13", "14", "15", "16", "17"]
    last = report["batches"]["17"]
    assert last["examples"] == trainer.maker.names(16) and last["examples"][0] in str(caught.value)
    expected = trainer.objective.log_snr(trainer.maker(16).u, trainer.config.schedule)
    assert last["log_snr"] == pytest.approx(expected.tolist())
    folder, problems = checkpoint.find(tmp_path)
    assert problems == [] and checkpoint.step_of(folder) == 10
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())


def test_without_a_checkpoint_to_go_back_to_the_run_ends_at_once(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, lambda batch, step: scaled(batch, math.nan))
    with pytest.raises(FloatingPointError, match="step 5: "):
        go(small(shapes), tmp_path, monkeypatch)
    assert checkpoint.folders(tmp_path) == []


def test_a_loss_that_jumps_is_named(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(monkeypatch, lambda batch, step: scaled(batch, 1000.0) if step == nonfinite.FEWEST + 2 else batch)
    go(small(shapes), tmp_path, monkeypatch)
    lines = [line for line in capsys.readouterr().out.splitlines() if "jumped" in line]
    assert len(lines) == 1 and lines[0].startswith(f"step {nonfinite.FEWEST + 2}: the loss jumped to ")
    assert ".png" in lines[0]
