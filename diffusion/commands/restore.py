"""`diffusion inpaint` and `diffusion restore`: draw restorations of images and write them.

Every image is read once and its problem is checked once, all before the first one is restored. They wait in memory,
12 bytes for each RGB pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import config, distributed
from diffusion.commands import results
from diffusion.commands.images import Marked, Source, read_clean, read_damaged, read_observation, sources
from diffusion.commands.options import Inpaint, Restorations, Restore
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.operators import Mask, Operator, parse
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Problem

# Rounding to 8 bits moves a value by up to half a level, evenly.
ROUNDING = 1 / 255 / math.sqrt(12)


@dataclass(frozen=True)
class Task:
    """One image to restore: its problem, the damaged image as it is shown, and the settings to note with the results.

    `folder` is where its restorations go. `known` is the mask (1, H, W) and `original` the image before it was damaged,
    where there are such. `notice` is a line to print before the work.
    """

    source: Source
    folder: Path
    problem: Problem
    damaged: Tensor
    note: dict[str, Any]
    known: Tensor | None = None
    original: Tensor | None = None
    notice: str = ""


@dataclass(frozen=True)
class Batch:
    """The images of a command and where their restorations go."""

    run: Path
    paths: Sequence[Path]
    out: Path | None
    sources: list[Source]

    def folder(self, source: Source) -> Path:
        """The folder of an image's restorations: `out` for a single file, else a folder below it for each image."""
        first, alone = self.paths[0], len(self.paths) == 1
        if alone and not first.is_dir():
            return self.out or self.run / f"restored-{first.stem}"
        name = f"restored-{first.resolve().name}" if alone else "restored"
        return (self.out or self.run / name) / source.place


def inpaint(command: Inpaint) -> int:
    """Restores the unknown part of images."""
    model = _load(command.run)
    marked = None if command.unknown_color is None else Marked(command.unknown_color, command.threshold)
    batch = Batch(command.run, command.images, command.options.out, sources(command.images, command.mask))
    return _restore(model, batch, lambda _, source: _masked(source, batch, model, marked, command), command.options)


def restore(command: Restore) -> int:
    """Restores degraded images, or with `damage` whole images that it degrades first."""
    model = _load(command.run)
    operator = parse(command.operator)
    noise = ROUNDING if command.noise is None else command.noise
    if command.options.resize and not command.damage:
        raise InputError("--resize: needs --damage, before which whole images are resized; degraded ones cannot be")
    batch = Batch(command.run, command.images, command.options.out, sources(command.images))
    note = {"operator": command.operator, "noise": noise, "damage": command.damage}

    def task(number: int, source: Source) -> Task:
        if command.damage:
            return _damaged(number, source, batch, model, operator, noise, command.options, note)
        folder = batch.folder(source)
        y, shape = read_observation(source.image, operator, model.spec, model.config.data.background)
        return Task(source, folder, Problem.checked(y, operator, noise, shape), y, note)

    return _restore(model, batch, task, command.options)


def _load(run: Path) -> Model:
    distributed.join()
    model = load(run)
    if not model.spec.is_image:
        raise InputError(f"{run}: this model was trained on points; restoring files needs a model of images")
    return model


def _masked(source: Source, batch: Batch, model: Model, marked: Marked | None, command: Inpaint) -> Task:
    image, known, notice = read_damaged(
        source,
        model.spec,
        model.config.data.background,
        marked,
        whole=command.noise > 0,  # Then there is noise to remove.
        resize=command.options.resize,
    )
    filled = 1 - float(known.float().mean())
    note = {"mask": source.mask and source.mask.name, "noise": command.noise, "filled": filled}
    problem = Problem.checked(image, Mask(known), command.noise, tuple(image.shape))
    return Task(source, batch.folder(source), problem, torch.where(known, image, 0.5), note, known, notice=notice)


def _damaged(
    number: int,
    source: Source,
    batch: Batch,
    model: Model,
    operator: Operator,
    noise: float,
    options: Restorations,
    note: dict[str, Any],
) -> Task:
    image, notice = read_clean(source.image, model.spec, model.config.data.background, resize=options.resize)
    y = operator(image[None])
    y = (y + noise * ExampleNoise([example_seed(options.draw.seed, Stream.DAMAGE, number)])(y))[0]
    problem = Problem.checked(y, operator, noise, tuple(image.shape))
    return Task(source, batch.folder(source), problem, y, note, original=image, notice=notice)


def _restore(model: Model, batch: Batch, read: Callable[[int, Source], Task], options: Restorations) -> int:
    draw, main = options.draw, distributed.is_main()
    draw.checked()
    tasks = []
    for number, source in enumerate(batch.sources):
        try:
            tasks.append(read(number, source))
        except InputError as error:
            raise InputError(_named(source, error)) from error
    for task in tasks:
        if task.notice:
            distributed.say(task.notice)
        try:
            found = model.solve(task.problem, draw, method=options.method, shared=True, progress=main)
        except (InputError, FloatingPointError) as error:
            raise type(error)(_named(task.source, error)) from error
        if main:
            info = {
                "run": batch.run.name,
                "step": model.step,
                "image": task.source.image.name,
                **task.note,
                "n": draw.n,
                "method": found.diagnostics.method.name,
                "steps": found.diagnostics.steps,
                "grid": config.to_dict(model.config)["grid"],
                "seed": draw.seed,
                "label": draw.label,
                "guidance": model.config.sampling.guidance if draw.guidance is None else draw.guidance,
            }
            results.write(
                task.folder,
                task.source.image,
                found,
                info,
                damaged=task.damaged,
                known=task.known,
                original=task.original,
            )
    return 0


def _named(source: Source, error: Exception) -> str:
    """The message of an error about one image of many, with the name of the image."""
    return str(error) if str(source.image) in str(error) else f"{source.image}: {error}"
