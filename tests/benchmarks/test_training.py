from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import flops, peers, training
from benchmarks.common import here
from benchmarks.peers import Peer
from benchmarks.training import Setting


def test_the_work_of_widths_is_that_of_a_real_step(setting: Setting, tmp_path: Path) -> None:
    ours = training.trainer(setting, (16, 32, 64), tmp_path)
    with FlopCounterMode(display=False) as counter:
        training.step(ours)()
    assert ours.step == 1
    of_the_input = 2 * 8 * 8 * 9 * (3 + 1) * 16
    expected = training.cost(8, 3, (16, 32, 64)) - of_the_input
    assert counter.get_total_flops() / setting.batch == pytest.approx(expected, rel=1e-3)


def test_a_training_benchmark_sets_equal_work_against_a_peer(
    setting: Setting, twin: type[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PEERS", {"twin": twin})
    monkeypatch.setattr(training, "precisions", lambda: ("fp32", "bf16"))
    tables, goals = training.measure(setting, rounds=3, place=here)
    (title, rows), *convolutions = tables.items()
    assert title == "Training, 8x8x3"
    assert [name for name, _ in convolutions] == [
        f"Convolutions of a step, 8x8x3, (16, 32, 64), {precision}" for precision in ("fp32", "bf16")
    ]
    assert [row["precision"] for row in rows] == ["fp32", "fp32", "bf16", "bf16"]
    ours, theirs = rows[:2]
    assert ours["trainer"] == "diffusion (16, 32, 64)" and theirs["trainer"] == "twin (16)"
    assert ours["GFLOP/image"] == theirs["GFLOP/image"] and ours["batch"] == 4 and theirs["batch"] in (2, 4)
    assert "times the peer" in ours and "times the peer" not in theirs
    assert all(found[-1]["convolution"] == "all, one after the other" for _, found in convolutions)
    assert [(goal.name, goal.bound) for goal in goals] == [
        ("8x8x3, fp32: training images/s against the better peer", 2.0),
        ("8x8x3, fp32: share of the convolution roofline", 0.6),
        ("8x8x3, bf16: training images/s against the better peer", 3.0),
        ("8x8x3, bf16: share of the convolution roofline", 0.6),
    ]
    assert goals[0].value == ours["times the peer"].median  # type: ignore[attr-defined]
    assert goals[1].value == ours["share of roofline"].median  # type: ignore[attr-defined]


def test_every_contestant_and_roofline_is_in_the_precision_of_its_row(
    setting: Setting, twin: type[Peer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What each precision multiplies is seen in the convolutions of its step."""
    monkeypatch.setattr(peers, "PEERS", {"twin": twin})
    monkeypatch.setattr(training, "precisions", lambda: ("fp32", "bf16"))
    match = training.duel(setting, training.build("twin", setting, 16), tmp_path)
    for name, (make, _) in match.contestants(tmp_path).items():
        assert precision_of(make()) == training.DTYPES[name.rpartition(", ")[2]]  # type: ignore[index]
    peaks, rates = training.rooflines({next(iter(flops.convolutions(training.step(match.ours))))}, ("fp32", "bf16"))
    assert {name: precision_of(peak.call) for name, peak in peaks.items()} == training.DTYPES
    assert list(rates) == ["fp32", "bf16"]


def precision_of(call: Callable[[], object]) -> torch.dtype:
    """Returns the dtype in which most convolutions of a call multiply."""
    seen: Counter[torch.dtype] = Counter()

    class Seeing(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            if func is torch.ops.aten.convolution.default:
                seen[args[0].dtype] += 1
            return func(*args, **(kwargs or {}))

    with Seeing():  # type: ignore[no-untyped-call]
        call()
    return seen.most_common()[0][0]


@pytest.mark.parametrize("settings", [training.SETTINGS])
def test_every_setting_names_known_peers(settings: dict[int, Setting]) -> None:
    for size, setting in settings.items():
        assert setting.size == size and {name for name, _ in setting.widths} == set(peers.PEERS)
