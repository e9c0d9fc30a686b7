"""Whether the host keeps up with a GPU: the loop of training around a network that only takes time.

    python -m benchmarks.pipeline [--sizes 64 256] [--rounds 5] [--out FILE] [--check]

There is no GPU. A step is queued on a device that works without a core of the CPU, one step after the other, for as
long as is estimated for an H200 and compiled blocks (docs/benchmarks.md). The loop makes its batches by the package's
own `BatchMaker` and `Prefetch`. It calls as many small operations as a step has kernels, since launching them competes
with the thread that makes the next batch. It waits for the device every 20 steps, as for a log. Contestants:

    network alone          a batch made beforehand: what the device can do
    each step waits        the batch is made when the device has finished, as where copies to it wait for its work
    on the loop's thread   the batch is made while the device works, before the step is queued
    ahead, N threads       the next batch is made in a thread, and its noise drawn by N

Shares are those of the throughput of the network alone, by turns. Copies to the device, about 1 ms of a step, are left
out. OMP_NUM_THREADS=1 leaves the cores to the threads that are compared.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks import common
from benchmarks.common import Call, Contestant, Goal, Make, Rows, Timing, alternate, apart
from diffusion.data import Dataset, DataSpec
from diffusion.memory import tune_malloc
from diffusion.training.batches import BatchMaker
from diffusion.training.prefetch import Prefetch

# The examples of the data, and the steps between two logs.
EXAMPLES, STEPS = 256, 20
# The kernels of a step, and the steps that a driver takes before it makes the host wait: about a thousand kernels.
KERNELS, DEPTH = 1000, 2
CPU, NOWHERE = torch.device("cpu"), torch.device("meta")


@dataclass(frozen=True)
class Setting:
    """A shipped configuration: its batch and margin, the estimated seconds of a step, and the share to reach."""

    name: str
    size: int
    batch: int
    margin: int
    seconds: float
    share: float

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, {self.seconds * 1e3:.0f} ms a step"


SETTINGS = {
    64: Setting("folder64", 64, 128, 4, 0.050, 0.95),
    128: Setting("folder128", 128, 64, 8, 0.044, 0.90),
    256: Setting("folder256", 256, 32, 16, 0.050, 0.90),
}


@dataclass(frozen=True)
class Kind:
    """How a loop gets its batches."""

    batches: bool = True
    waits: bool = False
    ahead: bool = False
    threads: int = 1


ALONE, BEST = "network alone", "ahead, 2 threads"
KINDS = {
    ALONE: Kind(batches=False),
    "each step waits": Kind(waits=True),
    "on the loop's thread": Kind(),
    "ahead, 1 thread": Kind(ahead=True),
    BEST: Kind(ahead=True, threads=2),
}


class Device:
    """A queue of steps that each take some seconds, one after the other, and no core of the CPU."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._ends: deque[float] = deque()
        self._end = 0.0

    def queue(self, seconds: float) -> None:
        """Queues a step; waits where `DEPTH` of them are not done."""
        if len(self._ends) == DEPTH:
            self._until(self._ends.popleft())
        self._end = max(self._end, self._clock()) + seconds
        self._ends.append(self._end)

    def wait(self) -> None:
        """Waits until all steps are done."""
        self._until(self._end)
        self._ends.clear()

    def _until(self, end: float) -> None:
        left = end - self._clock()
        if left > 0:
            self._sleep(left)


def maker(setting: Setting, threads: int) -> BatchMaker:
    """Returns what makes the batches of a setting from images of uniform noise.

    What it moves to the device vanishes, since nothing there computes.
    """
    side = setting.size + 2 * setting.margin
    values = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 3, side, side), dtype=np.uint8)
    spec = DataSpec((3, setting.size, setting.size), 256, mean=127.5, std=74.0)
    data = Dataset(values, spec, None, tuple(map(str, range(EXAMPLES))), setting.margin)
    return BatchMaker(
        data,
        setting.batch,
        seed=0,
        flip=True,
        label_dropout=0.0,
        low_discrepancy=True,
        device=NOWHERE,
        threads=threads,
    )


def loop(setting: Setting, kind: Kind, device: Device) -> Call:
    """Returns a call that does the steps from one log to the next. The first batch is made before."""
    tune_malloc()  # Large tensors stay in the process, as pinned memory does on a GPU.
    make, kernel = maker(setting, kind.threads), torch.zeros(1)
    host = Prefetch(make.on_host, sys.maxsize, NOWHERE if kind.ahead else CPU)
    numbers = itertools.count()

    def step() -> None:
        if kind.waits:
            device.wait()
        if kind.batches:
            make.on_device(host(next(numbers)))
        for _ in range(KERNELS):
            kernel.add_(1)
        device.queue(setting.seconds)

    def steps() -> None:
        for _ in range(STEPS):
            step()
        device.wait()

    return steps


def contestant(setting: Setting, name: str) -> Call:
    """Returns the loop of a name in `KINDS`."""
    return loop(setting, KINDS[name], Device())


def host_rows(setting: Setting, rounds: int) -> Rows:
    """Returns the milliseconds that the host's part of a batch takes while nothing else runs."""
    tune_malloc()
    calls = {
        f"{threads} threads": Contestant(partial(maker(setting, threads).on_host, 0), setting.batch)
        for threads in (1, 2, 4)
    }
    timings = alternate(calls, rounds=max(rounds, 9))
    return [
        {"noise drawn by": name, "ms a batch": timing.spread.median * 1e3, "images/s": timing.rate()}
        for name, timing in timings.items()
    ]


def rows(timings: Mapping[str, Timing]) -> Rows:
    """Returns for each kind of loop its images/s, and the share of those of the network alone."""
    return [
        {"batches": name, "images/s": timing.rate(), "share": timing.over(timings[ALONE])}
        for name, timing in timings.items()
    ]


def measure(
    setting: Setting, rounds: int, place: Callable[[Make], AbstractContextManager[Call]] = apart
) -> tuple[dict[str, Rows], Goal]:
    """Returns the tables and the goal of a setting; `place` says in which process a contestant runs."""
    with ExitStack() as stack:
        contestants = {
            name: Contestant(stack.enter_context(place(partial(contestant, setting, name))), STEPS * setting.batch)
            for name in KINDS
        }
        timings = alternate(contestants, rounds=rounds)
    tables = {str(setting): rows(timings), f"The host's part, {setting.name}": host_rows(setting, rounds)}
    share = timings[BEST].over(timings[ALONE]).median
    return tables, Goal(f"{setting.name}: share of the network alone, {BEST}", share, setting.share)


def main() -> None:
    options = common.parser(__doc__, "pipeline")
    options.add_argument("--sizes", type=int, nargs="+", choices=SETTINGS, default=[64, 256])
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    tables: dict[str, Rows] = {}
    goals: list[Goal] = []
    for size in chosen.sizes:
        print(f"measuring {SETTINGS[size]}", flush=True)
        found, goal = measure(SETTINGS[size], chosen.rounds)
        tables |= found
        goals.append(goal)
    common.finish(goals, tables, chosen.out, check=chosen.check)


if __name__ == "__main__":
    main()
