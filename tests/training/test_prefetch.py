"""What is made one step ahead: the order, the threads, errors, signals, and that it is never more than one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diffusion.data import ImageError
from diffusion.training import prefetch, trainer
from diffusion.training.batches import BatchMaker, HostBatch
from diffusion.training.prefetch import Prefetch
from tests.conftest import HANGS_S, tiny
from tests.forkserver import launch
from tests.pretended import pretended
from tests.training.test_trainer import assert_equal, go, losses, weights

CPU, ACCELERATOR = torch.device("cpu"), torch.device("mps")


def nothing(step: int) -> None:
    """Does nothing."""


class Maker:
    """Makes 10 times the number of a step; notes the steps, whether in the thread of the test, and how many at once."""

    def __init__(self, hook: Callable[[int], None] = nothing) -> None:
        self.hook, self.mine = hook, threading.get_ident()
        self.begun: list[tuple[int, bool]] = []
        self.running = self.most = 0

    def __call__(self, step: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.append((step, threading.get_ident() == self.mine))
        try:
            self.hook(step)
        finally:
            self.running -= 1
        return 10 * step


def settle(ahead: Prefetch[int]) -> None:
    """Waits until what is made ahead is made."""
    assert ahead._ahead is not None
    ahead._ahead._thread.join()


def test_on_a_cpu_each_is_made_when_it_is_asked_for() -> None:
    make = Maker()
    with Prefetch(make, 5, CPU) as ahead:
        for step in (0, 1, 2, 1, 4):
            assert ahead(step) == 10 * step and make.begun[-1] == (step, True)
    assert len(make.begun) == 5


def test_on_an_accelerator_the_next_one_is_made_in_a_thread_and_no_more_than_that() -> None:
    make = Maker()
    with Prefetch(make, 4, ACCELERATOR) as ahead:
        for step in range(4):
            assert ahead(step) == 10 * step
            if step < 3:
                settle(ahead)
            assert make.begun == [(0, True), (1, False), (2, False), (3, False)][: step + 2]
    assert make.begun[-1][0] == 3 and make.most == 1


def test_the_next_one_is_begun_before_it_is_asked_for() -> None:
    begun = threading.Event()

    def note(step: int) -> None:
        if step == 1:
            begun.set()

    with Prefetch(Maker(note), 3, ACCELERATOR) as ahead:
        ahead(0)
        assert begun.wait(10)
        assert ahead(1) == 10


@pytest.mark.parametrize("back", [0, 1, 2])
def test_another_step_drops_what_was_made_ahead(back: int) -> None:
    make = Maker()
    with Prefetch(make, 9, ACCELERATOR) as ahead:
        assert [ahead(step) for step in (0, 1, 2, back, back + 1)] == [0, 10, 20, 10 * back, 10 * back + 10]
    steps = [(0, True), (1, False), (2, False), (3, False), (back, True), (back + 1, False), (back + 2, False)]
    assert make.begun == steps and make.most == 1, "what is dropped has ended before the next one begins"


def test_a_run_that_ends_early_ends_the_thread() -> None:
    make = Maker()
    with Prefetch(make, 9, ACCELERATOR) as ahead:
        ahead(0)
    assert make.begun == [(0, True), (1, False)] and make.running == 0
    assert not any(thread.name.startswith("batch of step") for thread in threading.enumerate())


def test_the_error_of_a_thread_is_raised_where_its_step_is_asked_for() -> None:
    error = ImageError("cat.jpg", "truncated")
    broken = {2}

    def fail(step: int) -> None:
        if step in broken:
            raise error

    with Prefetch(Maker(fail), 9, ACCELERATOR) as ahead:
        assert [ahead(0), ahead(1)] == [0, 10]
        settle(ahead)
        with pytest.raises(ImageError, match=r"cat\.jpg.*truncated") as caught:
            ahead(2)
        assert caught.value is error and "fail" in [entry.name for entry in caught.traceback]
        broken.clear()
        assert [ahead(2), ahead(3)] == [20, 30], "it is made again, not remembered"


def test_a_signal_ends_the_wait_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "PATIENCE_S", 0.0)
    asked, release, over = threading.Event(), threading.Event(), []

    def interrupted(step: int) -> None:
        if step == 1:
            asked.wait(10)
            os.kill(os.getpid(), signal.SIGINT)
            over.append(release.wait(10))

    def ask(ahead: Prefetch[int]) -> None:
        asked.set()
        ahead(1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Prefetch(Maker(interrupted), 9, ACCELERATOR) as ahead:
            ahead(0)
            with pytest.raises(KeyboardInterrupt):
                ask(ahead)
            assert over == []
    finally:
        signal.signal(signal.SIGINT, before)
        release.set()


HANGS = """
import threading
import torch
from diffusion.training import prefetch, trainer
from diffusion.training.batches import BatchMaker, HostBatch

def hang(step):
    if step == 1:
        begun.set()
        threading.Event().wait()

begun = threading.Event()
prefetch.PATIENCE_S = 0.05
with prefetch.Prefetch(hang, 9, torch.device("mps")) as ahead:
    ahead(0)
    begun.wait()
    {last}
print("over", flush=True)
"""


@pytest.mark.parametrize(("last", "code", "out"), [("pass", 0, "over\n"), ("raise OSError('disk')", 1, "")])
def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path, last: str, code: int, out: str) -> None:
    program = tmp_path / "hangs.py"
    program.write_text(HANGS.format(last=last))
    process = launch([str(program)])
    said, errors = process.communicate(timeout=HANGS_S)
    assert (process.returncode, said) == (code, out), errors
    assert ("OSError: disk" in errors) == bool(code)


def test_only_the_time_that_the_caller_waits_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def work(step: int) -> None:
        clock[0] += 4.0

    for device, waited in ((CPU, 12.0), (ACCELERATOR, 4.0)):
        with Prefetch(Maker(work), 3, device) as ahead:
            for step in range(3):
                ahead(step)
                if ahead._ahead is not None:
                    settle(ahead)
        assert ahead.waited == waited


def test_a_thread_is_on_the_gpu_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads begin on the first GPU, where the others' pinned memory must not make a context."""
    chosen: list[torch.device] = []
    with pretended("cuda") as ledger:
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        with Prefetch(Maker(), 2, torch.device("cuda", 3)) as ahead:
            assert [ahead(0), ahead(1)] == [0, 10]
        monkeypatch.undo()
    assert chosen == [torch.device("cuda", 3)]
    assert ledger.waits.total() == 0


@pytest.mark.parametrize("stops", [(), (1,), (4, 11)])
def test_batches_that_are_made_ahead_change_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    experiment = tiny(shapes, data={"flip": True, "margin": 1}, training={"label_dropout": 0.3})
    go(experiment, tmp_path / "asked", monkeypatch)
    threads, real = set(), BatchMaker.on_host

    def noted(self: BatchMaker, step: int) -> HostBatch:
        threads.add(threading.current_thread().name)
        return real(self, step)

    def ahead(make: Callable[[int], HostBatch], steps: int, device: torch.device) -> Prefetch[HostBatch]:
        return Prefetch(make, steps, ACCELERATOR)

    monkeypatch.setattr(BatchMaker, "on_host", noted)
    monkeypatch.setattr(trainer, "Prefetch", ahead)
    for stop in (*stops, None):
        go(experiment, tmp_path / "ahead", monkeypatch, stop)
    assert_equal(weights(tmp_path / "asked"), weights(tmp_path / "ahead"))
    assert losses(tmp_path / "asked") == losses(tmp_path / "ahead")
    assert threads >= {f"batch of step {step}" for step in range(1, 12)} - {f"batch of step {stop}" for stop in stops}
