"""What a step needs from the host, made in a thread while the device works on the step before."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Generic, TypeVar

import torch

Made = TypeVar("Made")

# The longest wait for a thread whose result nobody wants any more: a disk that does not answer may hold it for good.
PATIENCE_S = 5.0
# The longest time after which a caller that waits notices a signal.
TURN_S = 0.2


class Prefetch(Generic[Made]):
    """Makes what each step needs, `make(step)`, for 0 <= step < `steps`: one step ahead of the caller where the device
    is an accelerator, and when it is asked for on CPUs.

    On a CPU a thread costs more than it saves: making a batch takes a hundredth of a step there, and a thread beside
    the team of compute threads takes several times as much from the step.

    Results do not depend on the thread, as long as `make` is a function of the step alone. Never more than one of them
    is made ahead. When another step than the next one is asked for, what was made ahead is dropped. An error of the
    thread is raised where its step is asked for, as it is. A signal ends the wait for the thread, and the context ends
    the thread. `waited` is the time, in seconds, that the caller has waited for results.
    """

    def __init__(self, make: Callable[[int], Made], steps: int, device: torch.device) -> None:
        self.make, self.steps, self.device = make, steps, device
        self.waited = 0.0
        self._ahead: _Ahead[Made] | None = None

    def __call__(self, step: int) -> Made:
        """Returns what is made for `step`, and begins with the next one."""
        began = time.perf_counter()
        made = self._made(step)
        self.waited += time.perf_counter() - began
        if self.device.type != "cpu" and step + 1 < self.steps:
            self._ahead = _Ahead(self.make, step + 1, self.device)
        return made

    def _made(self, step: int) -> Made:
        try:
            if self._ahead is not None and self._ahead.step == step:
                return self._ahead.result()
        finally:
            self.drop()
        return self.make(step)

    def drop(self) -> None:
        """Drops what was made ahead, if anything, and ends its thread."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.end()

    def __enter__(self) -> Prefetch[Made]:
        return self

    def __exit__(self, *error: object) -> None:
        self.drop()


class _Ahead(Generic[Made]):
    """The result for one step, which a thread makes. One that hangs does not keep the process from ending."""

    def __init__(self, make: Callable[[int], Made], step: int, device: torch.device) -> None:
        self.step = step
        self._made: Future[Made] = Future()
        self._thread = Thread(target=self._run, args=(make, device), name=f"batch of step {step}", daemon=True)
        self._thread.start()

    def _run(self, make: Callable[[int], Made], device: torch.device) -> None:
        try:
            if device.type == "cuda":  # A new thread is on the first GPU, where pinning memory would make a context.
                torch.cuda.set_device(device)
            self._made.set_result(make(self.step))
        except BaseException as error:
            self._made.set_exception(error)

    def result(self) -> Made:
        """Waits for the result; raises the error of the thread instead if there was one."""
        # In turns: the system may hand a signal to another thread, which does not end the wait of this one.
        while not wait([self._made], TURN_S).done:
            pass
        return self._made.result()

    def end(self) -> None:
        """Waits until the thread has ended, but no longer than `PATIENCE_S`."""
        self._thread.join(PATIENCE_S)
