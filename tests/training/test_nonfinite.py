"""The guard alone; `tests/faults/test_numbers.py` has runs with losses and gradients that are not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from diffusion import distributed
from diffusion.training.nonfinite import FEWEST, JUMP, LIMIT, REPORT, NonFiniteGuard
from diffusion.training.scaler import SMALLEST
from tests.training.test_batches import maker


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def guard(said: list[str]) -> NonFiniteGuard:
    return NonFiniteGuard(maker(), said.append)


def add(guard: NonFiniteGuard, loss: float, norm: float = 1.0) -> float:
    return float(guard.add(torch.tensor(norm), torch.tensor(loss)))


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_step_is_skipped_exactly_where_the_norm_is_not_finite(
    guard: NonFiniteGuard, said: list[str], norm: float
) -> None:
    assert [add(guard, 1.0), add(guard, 1.0, norm), add(guard, 1.0), add(guard, 1.0, norm)] == [0, 1, 0, 1]
    assert guard.look(13) == 2 and guard.in_a_row == 1
    first, second = (f"the batch of {', '.join(maker().names(step - 1)[:3])} and 5 more" for step in (11, 13))
    assert said == [
        f"step 11: the loss or the gradient is not finite; skipped {first}",
        f"step 13: the loss or the gradient is not finite; skipped {second}",
    ]
    assert guard.look(13) == 0 and len(said) == 2, "each step is looked at once"


def test_an_overflow_is_no_fault_but_with_a_loss_that_is_not_finite_or_at_the_smallest_scale(
    guard: NonFiniteGuard, said: list[str]
) -> None:
    overflow = math.inf, 1.0, 2 * SMALLEST
    for norm, loss, scale in [
        overflow,
        overflow,
        (math.nan, math.nan, 2 * SMALLEST),
        overflow,
        (math.nan, 1.0, SMALLEST),
    ]:
        assert float(guard.add(torch.tensor(norm), torch.tensor(loss), torch.tensor(scale))) == 1
    assert guard.look(5) == 2 and guard.in_a_row == 2
    assert [line.partition(";")[0] for line in said] == [
        "step 1: the gradient overflowed fp16 and the step was skipped, as the first ones are while the scale of the "
        "loss is found, and some later ones",
        "step 3: the loss or the gradient is not finite",
        "step 5: the loss or the gradient is not finite",
    ]


def test_processes_agree_on_a_fault_by_the_losses_of_all(
    guard: NonFiniteGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torch.tensor([[1.0, math.nan]])
    monkeypatch.setattr(distributed, "gather", lambda mine: torch.cat([mine, other]))
    for _ in range(2):
        guard.add(torch.tensor(math.nan), torch.tensor(1.0), torch.tensor(2 * SMALLEST))
    assert guard.look(2) == 1


def test_steps_in_a_row_are_counted_over_several_looks(guard: NonFiniteGuard) -> None:
    counts = []
    for step, norm in enumerate([math.nan, math.nan, 1.0, math.nan, math.nan, math.nan], 1):
        add(guard, 1.0, norm)
        guard.look(step)
        counts.append(guard.in_a_row)
    assert counts == [1, 2, 0, 1, 2, 3]


def test_a_loss_jumps_where_it_is_far_beyond_the_median_of_enough_losses(
    guard: NonFiniteGuard, said: list[str]
) -> None:
    for _ in range(FEWEST - 1):
        add(guard, 2.0)
    add(guard, 1000.0)  # One too few to know what is usual.
    add(guard, 2.0 * JUMP)  # At the limit.
    add(guard, 2.1 * JUMP)
    guard.look(FEWEST + 2)
    batch = ", ".join(maker().names(FEWEST + 1)[:3])
    assert said == [f"step {FEWEST + 2}: the loss jumped to 21 from 2; the batch of {batch} and 5 more"]


def test_the_report_of_a_run_that_ends_has_its_last_steps(guard: NonFiniteGuard, tmp_path: Path) -> None:
    for _ in range(LIMIT + 2):
        add(guard, math.nan, math.nan)
    guard.look(20)
    error = guard.give_up(tmp_path, 20, 0.25, lambda batch: 2 * batch.u)
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["learning_rate"] == 0.25 and list(report["batches"]) == ["16", "17", "18", "19", "20"]
    for step, batch in report["batches"].items():
        assert batch["examples"] == maker().names(int(step) - 1)
        assert batch["log_snr"] == (2 * maker()(int(step) - 1).u).tolist()
    assert f"step 20: the loss or the gradient of {LIMIT + 2} steps in a row is not finite" in str(error)
    assert "lower training.lr" in str(error) and str(tmp_path / REPORT) in str(error)
