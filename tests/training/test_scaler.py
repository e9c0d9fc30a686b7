"""Training in fp16: the scale of the loss is found, overflows cost a step and no more, and a resumed run has the same
scale.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffusion import config
from diffusion.config import Config
from diffusion.training import nonfinite, scaler
from diffusion.training.scaler import FIRST, INTERVAL, LARGEST, SMALLEST, LossScaler
from tests.conftest import tiny
from tests.faults.test_numbers import inject, scaled
from tests.training.test_trainer import assert_equal, go, losses, rows, start, weights

GOOD, BAD = torch.tensor(0.0), torch.tensor(1.0)


def half(shapes: Path, steps: int = 12, **sections: dict[str, object]) -> Config:
    training = {"precision": "fp16", "steps": steps, **sections.pop("training", {})}
    return tiny(shapes, training=training, **sections)


def test_it_halves_at_an_overflow_and_doubles_after_an_interval_without_one() -> None:
    found = LossScaler(torch.device("cpu"))
    assert float(found.scale) == FIRST
    for skip, expected in [
        (BAD, FIRST / 2),
        (BAD, FIRST / 4),
        *[(GOOD, FIRST / 4)] * (INTERVAL - 1),
        (GOOD, FIRST / 2),
    ]:
        found.update(skip)
        assert float(found.scale) == expected
    for skip in [*[GOOD] * (INTERVAL - 1), BAD, *[GOOD] * (INTERVAL - 1)]:
        found.update(skip)
    assert float(found.scale) == FIRST / 4, "an overflow begins the interval anew"
    assert float(found.overflows) == 3


def test_it_has_ends() -> None:
    found = LossScaler(torch.device("cpu"))
    for _ in range(40):
        found.update(BAD)
    assert float(found.scale) == SMALLEST
    found.load_state_dict({"scale": torch.tensor(LARGEST), "good": torch.tensor(INTERVAL - 1.0)})
    found.update(GOOD)
    assert float(found.scale) == LARGEST


def test_its_rules_are_those_of_torch() -> None:
    theirs = torch.amp.GradScaler("cpu")
    assert (theirs.get_growth_factor(), theirs.get_backoff_factor()) == (2.0, 0.5)
    assert (theirs.get_growth_interval(), theirs.get_scale()) == (INTERVAL, FIRST)


def test_unscaled_gradients_are_those_without_a_scale_to_the_last_bit() -> None:
    torch.manual_seed(0)
    network, x, found = nn.Linear(5, 3), torch.randn(7, 5), LossScaler(torch.device("cpu"))
    network(x).square().mean().backward()
    expected = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    (network(x).square().mean() * found.scale).backward()
    found.unscale_(network.parameters())
    assert all(
        torch.equal(p.grad, e) for p, e in zip(network.parameters(), expected, strict=True) if p.grad is not None
    )


def test_small_gradients_survive_in_fp16_by_the_scale() -> None:
    weight, found = torch.ones((), requires_grad=True), LossScaler(torch.device("cpu"))

    def gradient(scale: Tensor | float) -> float:
        weight.grad = None
        ((weight.half() * 1e-3).float() * 1e-5 * scale).backward()
        assert weight.grad is not None
        return float(weight.grad)

    assert gradient(1.0) == 0
    gradient(found.scale)
    found.unscale_([weight])
    assert weight.grad is not None and float(weight.grad) == pytest.approx(1e-8, rel=1e-3)


@pytest.mark.parametrize("stops", [(1,), (5, 9)])
def test_a_run_in_fp16_that_was_interrupted_ends_as_if_it_had_not_been(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    monkeypatch.setattr(scaler, "INTERVAL", 4)
    monkeypatch.setattr(scaler, "FIRST", 2.0**30)
    experiment = half(shapes, training={"accumulate": 2}, backbone={"dropout": 0.2}, report={"log": 3})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    go(experiment, whole, monkeypatch)
    for stop in (*stops, None):
        go(experiment, parts, monkeypatch, stop)
    assert_equal(weights(whole), weights(parts))
    numbers = [
        [{k: v for k, v in row.items() if k not in ("images_per_s", "data_wait")} for row in rows(run)]
        for run in (whole, parts)
    ]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 4
    assert 0 < numbers[0][0]["overflows"] < numbers[0][-1]["overflows"], "found, and tried again after an interval"


def test_overflows_while_the_scale_is_found_are_no_faults(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaler, "FIRST", LARGEST)
    assert go(half(shapes, 30), tmp_path, monkeypatch).exit_code == 0
    text, last = capsys.readouterr().out, rows(tmp_path)[-1]
    assert ", fp16, from step 0" in text
    assert last["overflows"] > nonfinite.LIMIT and last["loss_scale"] < LARGEST
    assert text.count("the gradient overflowed fp16") == 1 and "step 1: the gradient overflowed" in text
    assert "not finite" not in text and not (tmp_path / nonfinite.REPORT).exists()
    assert len(losses(tmp_path)) == 30, "the losses of skipped steps are finite"


def test_hundreds_of_steps_learn_as_in_float32_in_finite_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaler, "INTERVAL", 20)
    ends = {}
    for precision in ("fp16", "fp32"):
        points = {
            "data": {"source": "swiss_roll", "count": 1000},
            "backbone": {"name": "mlp", "width": 32, "blocks": 2},
            "training": {"precision": precision, "steps": 300, "batch": 64, "warmup": 2},
            "report": {"log": 75},
        }
        go(config.from_dict(points), tmp_path / precision, monkeypatch)
        found = rows(tmp_path / precision)
        assert len(found) == 4 and all(math.isfinite(value) for row in found for value in row.values())
        assert all(bool(value.isfinite().all()) for value in weights(tmp_path / precision).values())
        ends[precision] = found[-1]["loss"]
        assert ends[precision] < 0.95 * found[0]["loss"]
    # The same examples, levels and noise; fp16 has 11 digits.
    assert ends["fp16"] == pytest.approx(ends["fp32"], rel=0.02) and ends["fp16"] != ends["fp32"]


def test_gradients_are_clipped_and_logged_without_the_scale(shapes: Path, tmp_path: Path) -> None:
    norms = {}
    for precision in ("fp16", "fp32"):
        trainer = start(half(shapes, training={"precision": precision}), tmp_path / precision)
        norms[precision] = float(trainer.update(trainer.maker(0)))
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=0.01) and norms["fp16"] != norms["fp32"]


def test_a_loss_that_is_not_finite_is_the_fault_of_its_batch_in_fp16_too(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(monkeypatch, lambda batch, step: scaled(batch, math.nan) if step == 7 else batch)
    assert go(half(shapes), tmp_path, monkeypatch).exit_code == 0
    assert "step 7: the loss or the gradient is not finite; skipped the batch of " in capsys.readouterr().out


def test_a_gradient_that_is_not_finite_at_the_smallest_scale_either_ends_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaler, "FIRST", 8.0)
    trainer = start(half(shapes, 30), tmp_path)
    next(trainer.network.parameters()).register_hook(lambda gradient: gradient * math.nan)
    # Three steps find that no scale helps.
    with pytest.raises(FloatingPointError, match=f"step {3 + nonfinite.LIMIT}: .*{nonfinite.LIMIT} steps in a row"):
        trainer.train()
