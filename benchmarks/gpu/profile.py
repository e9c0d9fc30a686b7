"""Where the time of ten training steps of folder64 goes on a device, kernel by kernel, eager and compiled."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from benchmarks.common import Rows, synchronize
from benchmarks.gpu import shipped
from benchmarks.gpu.parts import NOTE, UNREACHED, Finding, reason
from benchmarks.gpu.place import Place
from benchmarks.gpu.variants import Steps

TITLE = "Ten training steps of folder64"
SHOWN, WIDTH = 15, 90
COMPILE_S = 30.0


def measure(place: Place, until: float, *, compile: bool = True) -> Iterator[Finding]:
    """Yields a table of the steps, and one of the kernels that take longest for each way to run them."""
    kinds = {"eager": "training.compile=false"}
    kinds |= {"blocks compiled": "training.compile=true"} if compile else {}
    rows: Rows = [{"network": kind, NOTE: UNREACHED} for kind in kinds]
    yield TITLE, rows
    with tempfile.TemporaryDirectory() as folder:
        ours = shipped.ours("folder64", place, Path(folder))
        for number, (kind, override) in enumerate(kinds.items()):
            if number and time.monotonic() + COMPILE_S > until:
                rows[number] = {"network": kind, NOTE: f"left out: fewer than {COMPILE_S:.0f} s were left"}
                break
            try:
                steps = Steps(ours.trainer(kind, override), place)
                found, kernels = profiled(steps.made, 2 if place.tiny else 10, place)
            except Exception as error:
                rows[number] = {"network": kind, NOTE: f"failed: {reason(error)}"}
                continue
            rows[number] = {"network": kind, **found}
            yield f"Kernels of {kind} steps of folder64", kernels
    yield TITLE, rows


def profiled(step: Callable[[], object], count: int, place: Place) -> tuple[dict[str, object], Rows]:
    """Returns what `count` steps take in all, and the rows of the kernels that take longest.

    Where the device has no kernels of its own, those are the operations of the CPU.
    """
    for _ in range(3):
        step()
    synchronize(place.device)
    cuda = place.events
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        began = time.perf_counter()
        for _ in range(count):
            step()
        synchronize(place.device)
        wall = time.perf_counter() - began
    kind, field = (DeviceType.CUDA, "self_device_time_total") if cuda else (DeviceType.CPU, "self_cpu_time_total")
    events: list[Any] = [
        event
        for event in profiler.key_averages()
        if event.device_type == kind and not getattr(event, "is_user_annotation", False)
    ]
    total = sum(getattr(event, field) for event in events) / 1e6
    longest = sorted(events, key=lambda event: -getattr(event, field))[:SHOWN]
    rows: Rows = [
        {
            "kernel": event.key[:WIDTH],
            "calls a step": event.count / count,
            "ms a step": getattr(event, field) / 1e3 / count,
            "share": getattr(event, field) / 1e6 / max(total, 1e-12),
        }
        for event in longest
    ]
    launches = sum(event.count for event in events) / count
    return {"ms a step": 1e3 * wall / count, "kernels a step": launches, "device busy": total / wall}, rows
