from __future__ import annotations

import pytest

from benchmarks import pipeline
from benchmarks.common import here
from benchmarks.pipeline import ALONE, BEST, KINDS, Device, Setting
from diffusion.training.batches import BatchMaker, HostBatch

TINY = Setting("tiny", 8, 4, 1, 0.001, 0.5)


class Clock:
    """A time that passes only where something sleeps or works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_device_works_while_the_host_does_and_takes_no_more_than_two_steps() -> None:
    clock = Clock()
    device, queued = Device(clock, clock.sleep), []
    for _ in range(4):
        device.queue(5.0)
        queued.append(clock.now)
        clock.sleep(1.0)
    assert queued == [0.0, 1.0, 5.0, 10.0], "two are taken at once, each other one when one is done"
    device.wait()
    assert clock.now == 20.0
    device.wait()
    clock.sleep(7.0)
    device.queue(5.0)
    device.wait()
    assert clock.now == 32.0, "a device without work waits for the host"


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        (ALONE, 3.0, 5.0),
        ("each step waits", 3.0, 8.0),
        ("on the loop's thread", 3.0, 5.0),
        ("on the loop's thread", 9.0, 9.0),
    ],
)
def test_a_step_takes_the_longer_of_host_and_device_or_their_sum_where_it_waits(
    monkeypatch: pytest.MonkeyPatch, name: str, host: float, expected: float
) -> None:
    clock, real = Clock(), BatchMaker.on_host

    def slow(self: BatchMaker, step: int) -> HostBatch:
        clock.sleep(host)
        return real(self, step)

    monkeypatch.setattr(BatchMaker, "on_host", slow)
    monkeypatch.setattr(pipeline, "KERNELS", 1)
    setting = Setting("slow", 8, 4, 1, 5.0, 0.5)
    pipeline.loop(setting, KINDS[name], Device(clock, clock.sleep))()
    # The first batch, or the last step, is beside nothing.
    alone = 0.0 if name in (ALONE, "each step waits") else min(host, 5.0)
    assert clock.now == pytest.approx(pipeline.STEPS * expected + alone)


def test_it_compares_the_ways_of_making_batches_with_the_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STEPS", 2)
    tables, goal = pipeline.measure(TINY, rounds=3, place=here)
    table, host = tables.values()
    assert list(tables) == ["tiny, batch 4, 1 ms a step", "The host's part, tiny"]
    assert [row["batches"] for row in table] == list(KINDS) and table[0]["share"].median == 1.0  # type: ignore[attr-defined]
    assert [row["noise drawn by"] for row in host] == ["1 threads", "2 threads", "4 threads"]
    assert goal.name == f"tiny: share of the network alone, {BEST}" and goal.bound == 0.5
    assert goal.value == table[-1]["share"].median  # type: ignore[attr-defined]
