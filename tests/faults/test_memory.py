"""Memory that runs out: fewer examples at once, in the same order, as if the run had been begun so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import memory
from diffusion.config import Config
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError
from diffusion.objectives import Batch, Objective
from diffusion.training.gradient import largest_divisor
from tests.conftest import tiny
from tests.training.test_trainer import assert_equal, go, losses, start, weights

Loss = Callable[..., Tensor]


def short(monkeypatch: pytest.MonkeyPatch, most: int, *, backward: bool = False, from_call: int = 0) -> list[int]:
    """Runs out of memory with more than `most` examples at once, after `from_call` calls; returns the sizes tried."""
    real, sizes = Objective.loss, []

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    def loss(self: Objective, denoiser: Denoiser, batch: Batch) -> Tensor:
        sizes.append(len(batch.x))
        values = real(self, denoiser, batch)
        if len(batch.x) <= most or len(sizes) <= from_call:
            return values
        if not backward:
            full()
        values.register_hook(full)
        return values

    monkeypatch.setattr(Objective, "loss", loss)
    return sizes


def experiment(shapes: Path, **sections: dict[str, object]) -> Config:
    measured = {"noise_levels": {"name": "measured", "bins": 4, "every": 2}, "weighting": {"name": "exact"}}
    return tiny(shapes, backbone={"dropout": 0.2}, **measured, **sections)


@pytest.mark.parametrize("backward", [False, True])
def test_a_step_begins_again_with_half_as_many_examples_at_once(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backward: bool
) -> None:
    go(experiment(shapes, training={"accumulate": 4}), tmp_path / "parts", monkeypatch)
    capsys.readouterr()
    sizes = short(monkeypatch, 2, backward=backward)
    go(experiment(shapes), tmp_path / "short", monkeypatch)
    said = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert said == [
        "step 1: out of memory with 8 examples at once; from here on 4, in 2 passes per step. Batches and their "
        "order stay the same",
        "step 1: out of memory with 4 examples at once; from here on 2, in 4 passes per step. Batches and their "
        "order stay the same",
    ]
    assert sizes == [8, 4] + [2] * 4 * 12
    assert losses(tmp_path / "short") == losses(tmp_path / "parts")
    assert_equal(weights(tmp_path / "short"), weights(tmp_path / "parts"))


def test_a_run_that_was_interrupted_goes_on_with_as_few(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, stop in (("whole", None), ("parts", 6)):
        with monkeypatch.context() as patch:
            short(patch, 4, from_call=3)
            go(experiment(shapes), tmp_path / name, patch, stop)
        assert "step 4: out of memory with 8 examples at once" in capsys.readouterr().out
    go(experiment(shapes), tmp_path / "parts", monkeypatch)
    assert "out of memory" not in capsys.readouterr().out
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_one_example_that_is_too_much_is_an_error_that_says_what_to_do(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(monkeypatch, 0)
    trainer = start(tiny(shapes), tmp_path)
    with pytest.raises(InputError, match=r"backbone: out of memory on cpu with one example .*gradient_checkpointing"):
        trainer.update(trainer.maker(0))


def test_other_errors_are_not_taken_for_it(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = start(tiny(shapes), tmp_path)
    monkeypatch.setattr(Objective, "loss", lambda *values: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trainer.update(trainer.maker(0))


def test_what_the_cpu_says_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.is_oom(caught.value)
    assert not memory.is_oom(RuntimeError("the size of tensor a must match"))


@pytest.mark.parametrize(("n", "most", "expected"), [(8, 8, 8), (8, 5, 4), (48, 10, 8), (7, 6, 1), (6, 0, 1)])
def test_the_largest_divisor(n: int, most: int, expected: int) -> None:
    assert largest_divisor(n, most) == expected
