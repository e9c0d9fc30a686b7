"""The ground of all benchmarks: timing by turns, quartiles, tables, goals, and the record of a run.

Contestants take turns, so that whatever slows the machine for a while slows all of them, and figures are ratios of
their times.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import multiprocessing
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

import diffusion
from diffusion.files import write_text
from diffusion.threads import cores

PEERS = ("diffusers", "denoising-diffusion-pytorch", "ema-pytorch")
FEWEST_ROUNDS = 3

Row = Mapping[str, object]
Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of a figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the median and quartiles of at least one value.

        Quartiles interpolate between order statistics, the extremes included.
        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{_number(self.median)} ({_number(self.low)}-{_number(self.high)})"


@dataclass(frozen=True)
class Timing:
    """The seconds that each call of one contestant took, round by round, and the work (images, FLOP) of a call."""

    seconds: tuple[float, ...]
    work: float = 1.0

    @property
    def spread(self) -> Spread:
        """The median and quartiles of the seconds per call."""
        return Spread.of(self.seconds)

    def rate(self, work: float | None = None) -> Spread:
        """Returns the work per second; `work` is the work of a call in another unit than the contestant's own."""
        return Spread.of([(self.work if work is None else work) / s for s in self.seconds])

    def over(self, other: Timing) -> Spread:
        """Returns this rate as a multiple of another's, from the pairs of calls of the same round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return Spread.of([self.work / mine / (other.work / theirs) for mine, theirs in pairs])


Call = Callable[[], object]
Make = Callable[[], Call]


@contextmanager
def apart(make: Make) -> Iterator[Call]:
    """Yields a call that runs what `make` returns, made and run in a process of its own.

    Whatever one contestant asks of the allocator, or sets for its whole process, does not reach the others. `make` must
    be picklable.

    Raises RuntimeError with the traceback when the other process fails, while making or in a call.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, theirs), daemon=True)
    process.start()
    theirs.close()

    def call() -> None:
        mine.send(True)
        _answer(mine)

    try:
        _answer(mine)
        yield call
    finally:
        with suppress(OSError):
            mine.send(False)
        process.join(timeout=10)
        process.kill()


@contextmanager
def here(make: Make) -> Iterator[Call]:
    """Yields the call that `make` returns, which runs in this process."""
    yield make()


def _serve(make: Make, pipe: Connection) -> None:
    try:
        call = make()
        pipe.send("")
        while pipe.recv():
            call()
            pipe.send("")
    except Exception:
        pipe.send(traceback.format_exc())


def _answer(pipe: Connection) -> None:
    try:
        failure = pipe.recv()
    except EOFError:
        raise RuntimeError("a contestant's process ended without a word; out of memory?") from None
    if failure:
        raise RuntimeError(f"a contestant failed in its process:\n{failure}")


@dataclass(frozen=True)
class Contestant:
    """A call to time, and the work that it does."""

    call: Callable[[], object]
    work: float = 1.0

    def repeated(self, times: int) -> Contestant:
        """Returns a contestant whose call is `times` of these calls in a row."""

        def calls() -> None:
            for _ in range(times):
                self.call()

        return Contestant(calls, times * self.work)


def alternate(
    contestants: Mapping[str, Contestant],
    *,
    rounds: int,
    budget: float = math.inf,
    warmup: int = 1,
    device: str | torch.device = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    seconds: Callable[[Callable[[], object]], float] | None = None,
) -> dict[str, Timing]:
    """Calls every contestant once a round, back and forth through the list, after `warmup` calls of each.

    Stops after `rounds` rounds. Stops earlier after a round that ends more than `budget` seconds after the first began,
    but not before the third. `seconds` times a call; by default the clock does, between two waits for the device.
    """

    def elapsed(call: Callable[[], object]) -> float:
        synchronize(device)
        start = clock()
        call()
        synchronize(device)
        return clock() - start

    for contestant in contestants.values():
        for _ in range(warmup):
            contestant.call()
    found: dict[str, list[float]] = {name: [] for name in contestants}
    begin = clock()
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            found[name].append((seconds or elapsed)(contestants[name].call))
        if number + 1 >= FEWEST_ROUNDS and clock() - begin > budget:
            break
    return {name: Timing(tuple(found[name]), contestants[name].work) for name in contestants}


def synchronize(device: str | torch.device) -> None:
    """Waits for the device, unless it is the CPU."""
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    elif place.type != "cpu":
        torch.accelerator.synchronize()


@dataclass(frozen=True)
class Goal:
    """A bound that a figure has to keep. A figure that could not be measured (NaN) misses it.

    `needs` names what the figure needs and this machine does not have. Such a goal is neither met nor missed.
    """

    name: str
    value: float
    bound: float
    direction: Literal["at least", "at most"] = "at least"
    needs: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.value >= self.bound if self.direction == "at least" else self.value <= self.bound

    @property
    def outcome(self) -> str:
        """What became of the goal, in a word or two."""
        return "not measured" if self.needs else "met" if self.met else "MISSED"

    def __str__(self) -> str:
        needs = f", needs {self.needs}" if self.needs else ""
        return f"{self.name} {_number(self.value)} ({self.direction} {_number(self.bound)}{needs})"


def machine(device: str | torch.device = "cpu") -> dict[str, str | int]:
    """Returns the hardware and the versions that figures depend on."""
    place = torch.device(device)
    versions = {name: _version(name) for name in ("torchvision", "numpy", "pillow", "accelerate", *PEERS)}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusion": diffusion.__version__,
        **versions,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as aligned columns, in the order in which their keys first appear; a missing value is blank."""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cell(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Returns a number with three significant digits, and with all its digits before the point."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path(f"runs/benchmark-{name}.json"), help="JSON to write")
    options.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed, naming it")
    return options


def finish(
    goals: Sequence[Goal],
    tables: Mapping[str, Sequence[Row]],
    out: Path,
    *,
    check: bool,
    device: str | torch.device = "cpu",
    values: str = "median (quartiles)",
) -> None:
    """Prints the machine, the tables and the goals, and writes all of it to the JSON file `out`.

    `values` says what the numbers of the tables are, for their titles. With `check`, a missed goal raises
    SystemExit(1), after a last line that names each missed goal.
    """
    where = machine(device)
    record: dict[str, Any] = {
        "machine": where,
        "tables": tables,
        "goals": [
            {**asdict(goal), "value": goal.value if math.isfinite(goal.value) else None, "met": goal.met}
            for goal in goals
        ],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(record, indent=1, default=_plain, allow_nan=False))
    print("\n" + ", ".join(f"{key} {value}" for key, value in where.items()))
    for title, rows in tables.items():
        print(f"\n{title}; {values}\n{table(rows)}")
    print(f"\n{out}")
    missed = [goal for goal in goals if not goal.met and not goal.needs]
    for goal in goals:
        print(f"{goal.outcome:6s} {goal}")
    if missed and check:
        print("missed: " + "; ".join(map(str, missed)), flush=True)
        sys.exit(1)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
