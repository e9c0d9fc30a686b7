"""`diffusion inpaint` and `diffusion restore`: draw restorations of images and write them.

Every image is read once and its problem is checked once, all before the first one is restored. They wait in memory,
12 bytes for each RGB pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import config, distributed
from diffusion.commands import results
from diffusion.commands.images import Marked, read_clean, read_damaged, read_observation
from diffusion.commands.listing import ImageFile, list_images
from diffusion.commands.options import Inpaint, Restore
from diffusion.data.images.decoding import Color
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.model.restoration import Restoration
from diffusion.operators import Mask, Operator, parse
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Problem

# The standard deviation of the error of rounding to 8 bits, which is uniform within half a gray level of 0.
ROUNDING = 1 / 255 / math.sqrt(12)


@dataclass(frozen=True)
class Task:
    """One image to restore: its problem, the damaged image as it is shown, and the settings to note with the results.

    `known` is the mask (1, H, W) and `original` the image before it was damaged, where there are such. `notice` is a
    line to print before the work.
    """

    file: ImageFile
    problem: Problem
    damaged: Tensor
    note: dict[str, Any]
    known: Tensor | None = None
    original: Tensor | None = None
    notice: str = ""


@dataclass(frozen=True)
class Job:
    """A command, the model of its run, and the image files that it restores."""

    model: Model
    command: Inpaint | Restore
    files: list[ImageFile]

    @property
    def background(self) -> Color:
        """The color behind transparent pixels, as in training."""
        return self.model.config.data.background

    def folder(self, file: ImageFile) -> Path:
        """The folder of an image's restorations: `--out` for a single file, else a folder below it for each image."""
        run, out, paths = self.command.run, self.command.options.out, self.command.images
        first, alone = paths[0], len(paths) == 1
        if alone and not first.is_dir():
            return out or run / f"restored-{first.stem}"
        name = f"restored-{first.resolve().name}" if alone else "restored"
        return (out or run / name) / file.folder


def inpaint(command: Inpaint) -> int:
    """Restores the unknown part of images."""
    marked = None if command.unknown_color is None else Marked(command.unknown_color, command.threshold)
    files = list_images(command.images, command.mask)
    job = Job(_load(command.run), command, files)
    return _restore(job, lambda _, file: _masked(job, command, file, marked))


def restore(command: Restore) -> int:
    """Restores degraded images, or with `damage` whole images that it degrades first."""
    operator = parse(command.operator)
    noise = ROUNDING if command.noise is None else command.noise
    if command.options.resize and not command.damage:
        raise InputError("--resize: needs --damage, before which whole images are resized; degraded ones cannot be")
    files = list_images(command.images)
    job = Job(_load(command.run), command, files)
    note = {"operator": command.operator, "noise": noise, "damage": command.damage}
    task = _damaged if command.damage else _degraded
    return _restore(job, lambda number, file: task(job, number, file, operator, noise, note))


def _load(run: Path) -> Model:
    distributed.join()
    model = load(run)
    if not model.spec.is_image:
        raise InputError(f"{run}: this model was trained on points; restoring files needs a model of images")
    return model


def _masked(job: Job, command: Inpaint, file: ImageFile, marked: Marked | None) -> Task:
    """The task of filling the unknown part of an image."""
    image, known, notice = read_damaged(
        file,
        job.model.spec,
        job.background,
        marked,
        whole=command.noise > 0,  # Then there is noise to remove.
        resize=command.options.resize,
    )
    filled = 1 - float(known.float().mean())
    note = {"mask": file.mask and file.mask.name, "noise": command.noise, "filled": filled}
    problem = Problem.checked(image, Mask(known), command.noise, tuple(image.shape))
    return Task(file, problem, torch.where(known, image, 0.5), note, known, notice=notice)


def _degraded(job: Job, number: int, file: ImageFile, operator: Operator, noise: float, note: dict[str, Any]) -> Task:
    """The task of restoring an image that is degraded already."""
    y, shape = read_observation(file.path, operator, job.model.spec, job.background)
    return Task(file, Problem.checked(y, operator, noise, shape), y, note)


def _damaged(job: Job, number: int, file: ImageFile, operator: Operator, noise: float, note: dict[str, Any]) -> Task:
    """The task of restoring a whole image that is degraded here; its noise depends on the number of the image."""
    options = job.command.options
    image, notice = read_clean(file.path, job.model.spec, job.background, resize=options.resize)
    y = operator(image[None])
    y = (y + noise * ExampleNoise([example_seed(options.draw.seed, Stream.DAMAGE, number)])(y))[0]
    problem = Problem.checked(y, operator, noise, tuple(image.shape))
    return Task(file, problem, y, note, original=image, notice=notice)


def _restore(job: Job, read: Callable[[int, ImageFile], Task]) -> int:
    """Reads all images, restores them one after the other, and writes the results in the main process."""
    options, main = job.command.options, distributed.is_main()
    options.draw.checked()
    tasks = []
    for number, file in enumerate(job.files):
        if file.problem:
            raise InputError(file.problem)
        try:
            tasks.append(read(number, file))
        except InputError as error:
            raise InputError(_named(file, error)) from error
    for task in tasks:
        if task.notice:
            distributed.say(task.notice)
        try:
            found = job.model.solve(task.problem, options.draw, method=options.method, shared=True, progress=main)
        except (InputError, FloatingPointError) as error:
            raise type(error)(_named(task.file, error)) from error
        if main:
            results.write(
                job.folder(task.file),
                task.file.path,
                found,
                _info(job, task, found),
                damaged=task.damaged,
                known=task.known,
                original=task.original,
            )
    return 0


def _info(job: Job, task: Task, found: Restoration) -> dict[str, Any]:
    """The settings that every picture of a restoration carries."""
    model, draw = job.model, job.command.options.draw
    return {
        "run": job.command.run.name,
        "step": model.step,
        "image": task.file.path.name,
        **task.note,
        "n": draw.n,
        "method": found.diagnostics.method.name,
        "steps": found.diagnostics.steps,
        "grid": config.to_dict(model.config)["grid"],
        "seed": draw.seed,
        "label": draw.label,
        "guidance": model.config.sampling.guidance if draw.guidance is None else draw.guidance,
    }


def _named(file: ImageFile, error: Exception) -> str:
    """The message of an error about one image of many, with the name of the image."""
    return str(error) if str(file.path) in str(error) else f"{file.path}: {error}"
