"""Whether everything works on a device: each row is something that a user does, on a network that takes seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import Goal, Rows
from benchmarks.gpu.parts import NOTE, UNREACHED, Finding, reason
from benchmarks.gpu.place import Place
from diffusion import cli, devices, load
from diffusion.model import Model
from diffusion.operators import OPERATORS, KernelBlur, parse
from diffusion.restoration import METHODS
from diffusion.samplers import SAMPLERS

TITLE = "What works"
GOAL = Goal("things of the smoke test that fail", float("nan"), 0, "at most")
LIKELIHOODS = ("bound", "ode", "importance")
STEPS = 4
NOISE = 0.05


def measure(place: Place, until: float) -> Iterator[Finding]:
    """Yields the table of what works, row by row, and the goal that nothing fails."""
    with tempfile.TemporaryDirectory() as folder, devices.given(str(place.device)):
        tasks = everything(Path(folder), place)
        rows: Rows = [{"what": name, NOTE: UNREACHED} for name in tasks]
        yield TITLE, rows
        for number, (name, task) in enumerate(tasks.items()):
            if time.monotonic() > until:
                break
            began = time.monotonic()
            try:
                task()
                found: dict[str, object] = {"result": "works"}
            except (Exception, SystemExit) as error:
                found = {"result": "fails", NOTE: reason(error)}
            rows[number] = {"what": name, "s": time.monotonic() - began, **found}
            yield TITLE, rows
        fails = sum(row.get("result") != "works" for row in rows)
        yield Goal(GOAL.name, float(fails), GOAL.bound, GOAL.direction)


def everything(folder: Path, place: Place) -> dict[str, Callable[[], object]]:
    """Returns what is to be tried, by name; each but the first needs the run that the first leaves."""
    size, count, run = *((8, 16) if place.tiny else (32, 48)), folder / "run"
    images = drawn(folder / "images", size + 2, count)
    widths = "[8,16]" if place.tiny else "[64,128]"
    overrides = [
        *(f"data.path={images}", f"data.size={size}", "data.margin=1", f"backbone.channels={widths}"),
        *("backbone.blocks=1", "backbone.attention=[1]", "training.batch=8", "training.compile=false"),
        *("report.images=4", "report.draws=2", "report.pictures=4", "sampling.steps=4", "sampling.compile=false"),
        f"report.restored={0 if place.tiny else 1}",
    ]

    def command(*words: object) -> Callable[[], object]:
        return partial(_succeed, [str(word) for word in words])

    def with_model(use: Callable[[Model], object]) -> Callable[[], object]:
        return lambda: use(load(run, device=place.device))

    tasks = {"train": command("train", "folder64", *overrides, f"training.steps={STEPS}", "--out", run)}
    for name in SAMPLERS:
        tasks[f"sample by {name}"] = with_model(partial(_sampled, name=name))
    tasks["sample --film"] = command("sample", run, "--n", 2, "--film", "--out", folder / "samples")
    for name, operator in OPERATORS.items():
        if operator is not KernelBlur:  # Its kernel is a file; it computes as the other blurs do.
            tasks[f"restore {name}"] = with_model(partial(_restored, name=name))
    for name in METHODS:
        tasks[f"inpaint by {name}"] = with_model(partial(_inpainted, method=name))
    for method in LIKELIHOODS:
        tasks[f"evaluate by {method}"] = command("evaluate", run, "--limit", 8, "--method", method, "--data", images)
    if not place.tiny:
        compiled = "training.steps=2", "training.compile=true", "--out", folder / "compiled"
        tasks["train with compiled blocks"] = command("train", "folder64", *overrides, *compiled)
    tasks["verify-resume"] = command("verify-resume", "folder64", *overrides, "--steps", 4)
    return tasks


def drawn(folder: Path, side: int, count: int) -> Path:
    """Writes square images of smooth random colors into a new folder, which is returned."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        colors = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        colors.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:03d}.png")
    return folder


def _succeed(words: list[str]) -> None:
    if code := cli.main(words):
        raise RuntimeError(f"exit code {code}: diffusion {' '.join(words[:2])}")


def _sampled(model: Model, *, name: str) -> None:
    _finite(model.sample(2, sampler=name, steps=STEPS))


def _restored(model: Model, *, name: str) -> None:
    image, operator = model.sample(1, steps=STEPS)[0], parse(name)
    y = operator(image[None])[0]
    _finite(model.restore(y, operator, size=(image.shape[1], image.shape[2]), noise=NOISE, n=2, steps=STEPS).samples)


def _inpainted(model: Model, *, method: str) -> None:
    image = model.sample(1, steps=STEPS)[0]
    known = torch.ones(1, *image.shape[1:], dtype=torch.bool)
    known[:, :2, :2] = False
    _finite(model.inpaint(image, known, noise=NOISE, n=2, method=method, steps=STEPS).samples)


def _finite(x: torch.Tensor) -> None:
    if not bool(x.isfinite().all()):
        raise FloatingPointError("values that are not finite")
