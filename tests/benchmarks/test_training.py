from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peers, training
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
    tables, goals = training.measure(setting, rounds=3, place=here)
    (title, rows), (shapes, convolutions) = tables.items()
    assert title == "Training, 8x8x3" and shapes == "Convolutions of a step, 8x8x3, (16, 32, 64)"
    ours, theirs = rows
    assert ours["trainer"] == "diffusion (16, 32, 64)" and theirs["trainer"] == "twin (16)"
    assert ours["GFLOP/image"] == theirs["GFLOP/image"] and ours["batch"] == 4 and theirs["batch"] in (2, 4)
    assert "times the peer" in ours and "times the peer" not in theirs
    assert convolutions[-1]["convolution"] == "all, one after the other" and len(convolutions) > 5
    assert [goal.name for goal in goals] == [
        "8x8x3: training images/s against the better peer",
        "8x8x3: share of the convolution roofline",
    ]
    assert goals[0].value == ours["times the peer"].median  # type: ignore[attr-defined]
    assert goals[1].value == ours["share of roofline"].median  # type: ignore[attr-defined]


@pytest.mark.parametrize("settings", [training.SETTINGS])
def test_every_setting_names_known_peers(settings: dict[int, Setting]) -> None:
    for size, setting in settings.items():
        assert setting.size == size and {name for name, _ in setting.widths} == set(peers.PEERS)
