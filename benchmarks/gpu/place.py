"""The device to measure: its clock, its waits, and its own record of clocks and power."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.common import synchronize

PACKAGE = str(Path(__file__).parents[2] / "diffusion")
# What torch warns of in its debug mode where the host waits for a stream.
WAITS = "synchronizing CUDA operation"

Waits = Counter[str]
"""How often the host waited for the device, by the line of the package that asked for it."""


@dataclass(frozen=True)
class Place:
    """A device to measure.

    `tiny` asks for images so small that a step takes milliseconds on a CPU. `watch` counts the waits within a context;
    None where nothing knows them. With `events` the device times itself, else a clock does between two waits for it.
    """

    device: torch.device
    tiny: bool = False
    watch: Callable[[], AbstractContextManager[Waits]] | None = None
    events: bool = False

    def seconds(self, call: Callable[[], object], times: int = 1) -> float:
        """Returns the mean seconds that the device takes for each of several calls in a row."""
        if self.events:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            synchronize(self.device)
            begin.record()
            for _ in range(times):
                call()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3 / times
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(times):
            call()
        synchronize(self.device)
        return (time.perf_counter() - start) / times


def place(device: torch.device) -> Place:
    """Returns a device of this machine, as it is to be measured."""
    if device.type == "cuda":
        return Place(device, watch=sync_debug, events=True)
    return Place(device, tiny=device.type == "cpu")


@contextmanager
def sync_debug() -> Iterator[Waits]:
    """Counts the waits of the host, of which torch warns in its debug mode."""
    waits: Waits = Counter()

    def note(message: Warning | str, *_: Any, **__: Any) -> None:  # noqa: ANN401 (the protocol of warnings)
        if WAITS in str(message):
            waits[caller()] += 1

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)


def caller() -> str:
    """Returns the innermost line of the package that is running, as "file:line"."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside of the package"


QUERY = {"clock, MHz": "clocks.sm", "power, W": "power.draw"}


class Meter:
    """The median clock and power of a device within a context, as nvidia-smi tells them five times a second."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.found = device, dict.fromkeys(QUERY, "not measured")

    def __enter__(self) -> Meter:
        command = shutil.which("nvidia-smi") if self.device.type == "cuda" else None
        self._process = command and subprocess.Popen(
            [
                *(command, f"--id={self.device.index or 0}", "--loop-ms=200"),
                *(f"--query-gpu={','.join(QUERY.values())}", "--format=csv,noheader,nounits"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        if not self._process:
            return
        self._process.terminate()
        out, _ = self._process.communicate()
        self.found |= medians(out, list(QUERY))


def medians(text: str, names: list[str]) -> dict[str, str]:
    """Returns the medians of the columns of lines of numbers by the columns' names; none where no line is whole."""
    rows = []
    for line in text.splitlines():
        try:
            rows.append([float(cell) for cell in line.split(",")])
        except ValueError:  # A line that was cut off, or a figure that this card does not have.
            continue
    whole = [row for row in rows if len(row) == len(names)]
    columns = zip(*whole, strict=True)
    return {name: f"{statistics.median(column):.0f}" for name, column in zip(names, columns, strict=False)}
