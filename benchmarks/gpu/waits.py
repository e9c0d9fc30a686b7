"""How often the host waits for the device, in each step of training, sampling and restoring.

A wait ends what lets the host run ahead of the device: the device idles while the host prepares the next work. Their
number does not depend on the size of the network, so that a small one is used.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.common import Goal, Rows
from benchmarks.gpu import shipped
from benchmarks.gpu.parts import NOTE, UNREACHED, Finding, reason
from benchmarks.gpu.place import Place, Waits
from diffusion.model import Model
from diffusion.operators import parse
from diffusion.restoration import METHODS
from diffusion.samplers import SAMPLERS
from diffusion.training.trainer import Trainer

TITLE = "Waits of the host for the device, in each step"
TRAINING = Goal("waits in a step of training", float("nan"), 0, "at most")
SAMPLING = Goal("waits in a step of sampling, at most", float("nan"), 1, "at most")
# Two trajectories of so many steps each: what both do once is no part of the difference.
FEW, MORE = 4, 8
SHOWN = 4
NOISE = 0.05

Steps = Callable[[int], object]
"""Takes a number of steps."""


def measure(place: Place, until: float) -> Iterator[Finding]:
    """Yields the table of waits, row by row, and the goals for them."""
    with tempfile.TemporaryDirectory() as folder:
        ours = shipped.ours("folder64", place, Path(folder), shipped.TINY if place.tiny else shipped.SMALL)
        trainer = ours.trainer("waits", "sampling.compile=false")
        observing = ours.trainer("waits-observing", "sampling.compile=false", "observed.share=0.7")
        model = trainer.model
        tasks: dict[str, Steps] = {"training": _training(trainer), "training to restore": _training(observing)}
        tasks |= {f"sampling, {name}": _sampling(model, name) for name in SAMPLERS}
        tasks |= {
            f"inpainting, {name}": _inpainting(observing.model if name == "learned" else model, name)
            for name in METHODS
        }
        tasks |= {f"restoring, {name}": _restoring(model, name) for name in ("blur", "motion", "downsample", "jpeg")}
        rows: Rows = [{"step of": name, NOTE: UNREACHED} for name in tasks]
        yield TITLE, rows
        for number, (name, steps) in enumerate(tasks.items()):
            if time.monotonic() > until:
                return
            rows[number] = {"step of": name, **_row(place, steps)}
            yield TITLE, rows
        yield from _goals(rows)


def _goals(rows: Rows) -> Iterator[Goal]:
    for goal, kind in ((TRAINING, "training"), (SAMPLING, "sampling")):
        found = [row.get("waits") for row in rows if str(row["step of"]).startswith(kind)]
        numbers = [number for number in found if isinstance(number, float)]
        if len(numbers) == len(found):
            yield Goal(goal.name, max(numbers), goal.bound, goal.direction)


def _row(place: Place, steps: Steps) -> dict[str, object]:
    if place.watch is None:
        return {NOTE: f"not measured: nothing counts the waits of {place.device.type}"}
    try:
        steps(FEW)  # What is made once, and kept, is made here.
        waits = per_step(place, steps)
    except Exception as error:
        return {NOTE: f"failed: {reason(error)}"}
    where = ", ".join(f"{line} x {number:g}" for line, number in list(waits.items())[:SHOWN])
    return {"waits": float(sum(waits.values())), **({"where": where} if where else {})}


def per_step(place: Place, steps: Steps) -> dict[str, float]:
    """Returns the waits in a step by line, most first: the difference of a few steps and more."""
    assert place.watch is not None
    found: list[Waits] = []
    for number in (FEW, MORE):
        with place.watch() as waits:
            steps(number)
        found.append(waits)
    few, more = found
    each = {line: (more[line] - few[line]) / (MORE - FEW) for line in more | few}
    return dict(sorted(((line, n) for line, n in each.items() if n), key=lambda item: -item[1]))


def _training(trainer: Trainer) -> Steps:
    return lambda n: [trainer.update(trainer.maker(trainer.step)) for _ in range(n)]


def _sampling(model: Model, name: str) -> Steps:
    return lambda n: model.sample(2, sampler=name, steps=n, batch=2)


def _inpainting(model: Model, method: str) -> Steps:
    image = torch.full(model.spec.shape, 0.5)
    known = torch.ones(1, *image.shape[1:], dtype=torch.bool)
    known[:, :2, :2] = False
    return lambda n: model.inpaint(image, known, noise=NOISE, n=2, method=method, steps=n, batch=2)


def _restoring(model: Model, name: str) -> Steps:
    operator, size = parse(name), (model.spec.shape[1], model.spec.shape[2])

    def steps(n: int) -> None:
        y = operator(torch.full((1, *model.spec.shape), 0.5))[0]
        model.restore(y, operator, size=size, noise=NOISE, n=2, steps=n, batch=2)

    return steps
