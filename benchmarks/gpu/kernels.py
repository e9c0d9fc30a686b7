"""The rates of single kernels: bf16 matrix products, and the convolutions of a step in both memory layouts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import flops
from benchmarks.common import Contestant, Rows, alternate
from benchmarks.gpu.parts import NOTE, UNREACHED, Finding
from benchmarks.gpu.place import Place

SIDES = {False: (2048, 4096, 8192, 16384), True: (64, 128)}
# The largest product that a card is nearly at its best with, for comparisons that take turns with it.
REFERENCE = {False: 8192, True: 128}
FORMATS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


def product(n: int, place: Place) -> Contestant:
    """Returns a square bf16 matrix product of random values, with its FLOP as the work."""
    a, b = (torch.randn(n, n, device=place.device, dtype=torch.bfloat16) for _ in range(2))
    return Contestant(partial(torch.mm, a, b), 2.0 * n**3).repeated(1 if place.tiny else 4)


def best_product(place: Place) -> tuple[str, Contestant]:
    """Returns the name and the contestant of the product that others are compared with."""
    n = REFERENCE[place.tiny]
    return f"{n} x {n}", product(n, place)


def measure(place: Place, until: float, *, rounds: int = 5) -> Iterator[Finding]:
    """Yields the rates of products, and of the convolutions of a step of folder64, with both passes."""
    from benchmarks.gpu import shipped

    timings = alternate(
        {f"{n} x {n}": product(n, place) for n in SIDES[place.tiny]},
        rounds=rounds,
        warmup=2,
        device=place.device,
        seconds=place.seconds,
    )
    yield (
        "Matrix products",
        [{"bf16 matmul": name, "TFLOP/s": timing.rate(timing.work / 1e12)} for name, timing in timings.items()],
    )
    title = "Convolutions of a step of folder64"
    yield title, [{NOTE: UNREACHED}]
    with tempfile.TemporaryDirectory() as folder:
        trainer = shipped.ours("folder64", place, Path(folder)).trainer("layouts", "training.compile=false")
        shapes = flops.convolutions(lambda: trainer.update(trainer.maker(0)))
        yield title, layouts(list(shapes), place, rounds, until)


def layouts(shapes: list[flops.Convolution], place: Place, rounds: int, until: float) -> Rows:
    """Returns the rates of convolutions, each on its own, in both memory layouts; 50 in a row, because small ones take
    the device less time than their launch takes the host.
    """
    repeats = 1 if place.tiny else 50
    rows: Rows = []
    for shape in shapes:
        if time.monotonic() > until:
            rows.append({"convolution, TFLOP/s": str(shape), NOTE: UNREACHED})
            continue
        contestants = {
            layout: next(iter(flops.contestants([shape], place.device, kind).values())).repeated(repeats)
            for layout, kind in FORMATS.items()
        }
        timings = alternate(contestants, rounds=rounds, device=place.device, seconds=place.seconds)
        rates = {layout: timing.rate(timing.work / 1e12) for layout, timing in timings.items()}
        ratio = timings["channels last"].over(timings["channels first"])
        rows.append({"convolution, TFLOP/s": str(shape), **rates, "last over first": ratio})
    return rows
