from __future__ import annotations

import math
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.common import Contestant
from benchmarks.peers import Peer
from benchmarks.training import Setting
from benchmarks.variants import ChannelsFirst, Variant, prepare

CPU = torch.device("cpu")


def test_the_whole_benchmark_runs_on_the_cpu(setting: Setting, twin: type[Peer]) -> None:
    tables, goals = gpu.measure([setting], twin, CPU, minutes=1, rounds=2, compile=False)
    matmul, training, sampling, layouts = tables.values()
    assert [title.partition(",")[0] for title in tables] == ["Matrix products", "Training", "Sampling", "Convolutions"]
    assert len(matmul) == 2 and all("ratio" in row for row in layouts)
    for rows in (training, sampling):
        notes = {row.get("trainer", row.get("sampler")): row.get("note") for row in rows}
        assert notes.pop("ours, CUDA graphs") == "RuntimeError: CUDA graphs need a CUDA device"
        assert {"ours", "diffusers, fp32 (its default)", "diffusers, bf16"} <= notes.keys()
        assert set(notes.values()) == {None}
        assert all("images/s" in row for row in rows if row.get("note") is None)
    assert [goal.name for goal in goals] == [
        "8x8x3: training images/s against diffusers' script",
        "8x8x3: share of the bf16 matmul rate in training",
    ]
    assert all(math.isfinite(goal.value) for goal in goals)


def test_compilation_is_a_variant_unless_it_is_left_out(setting: Setting, twin: type[Peer]) -> None:
    tables, _ = gpu.measure([setting], twin, CPU, minutes=0.5, rounds=1, compile=True)
    notes = {row["trainer"]: row.get("note") for row in list(tables.values())[1] if "trainer" in row}
    assert notes["ours, compiled"] == "left out: fewer than 100 s were left"


def test_what_was_not_measured_misses_its_goal(setting: Setting, twin: type[Peer]) -> None:
    tables, goals = gpu.measure([setting], twin, CPU, minutes=0, rounds=1, compile=False)
    assert all("left out" in str(row["note"]) for row in list(tables.values())[1])
    assert not any(goal.met for goal in goals)


def test_a_size_that_fails_says_why_and_the_next_one_is_measured(setting: Setting, twin: type[Peer]) -> None:
    class Broken(twin):  # type: ignore[misc, valid-type]
        def __init__(self, size: int, *args: object, **options: object) -> None:
            if size == 7:
                raise ValueError("no such size")
            super().__init__(size, *args, **options)

    broken = Setting(7, 3, 4, (4,), (("twin", 16),))
    tables, goals = gpu.measure([broken, setting], Broken, CPU, minutes=1, rounds=1, compile=False)
    assert tables["7x7x3, not finished"] == [{"reason": "ValueError: no such size"}]
    assert [math.isnan(goal.value) for goal in goals] == [True, True, False, False]


def test_a_variant_that_fails_is_named_with_its_reason_and_the_others_go_on() -> None:
    calls: list[str] = []

    def fail() -> Contestant:
        raise ValueError("not here\nand more")

    def fail_later() -> None:
        raise NotImplementedError

    variants = {
        "broken": Variant(fail),
        "broken later": Variant(lambda: Contestant(fail_later)),
        "slow": Variant(fail, 1000.0),
        "fine": Variant(lambda: Contestant(lambda: calls.append("x"), 2.0)),
    }
    ready = prepare(variants, CPU, time.monotonic() + 500)
    assert ready.notes == {
        "broken": "ValueError: not here",
        "broken later": "NotImplementedError: ",
        "slow": "left out: fewer than 1000 s were left",
    }
    assert set(ready.contestants) == {"fine"} and calls == ["x", "x"]


def test_channels_first_ignores_every_wish_for_the_other_layout() -> None:
    x = torch.randn(2, 3, 4, 4)
    with ChannelsFirst():
        layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        assert x.contiguous(memory_format=torch.channels_last).is_contiguous()
    assert layer.weight.is_contiguous()
    assert x.contiguous(memory_format=torch.channels_last).stride() == (48, 1, 12, 3)


@pytest.mark.parametrize("size", gpu.SETTINGS)
def test_every_setting_compares_with_diffusers(size: int) -> None:
    assert gpu.SETTINGS[size].size == size and [name for name, _ in gpu.SETTINGS[size].widths] == ["diffusers"]
