"""What `diffusion inpaint` and `diffusion restore` do: images in; restorations, figures and their settings out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusion import config, figures, processes
from diffusion.damaged import Marked, Source, read_clean, read_damaged, read_observation, sources
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.model import RESTORATION_STEPS, Model, load
from diffusion.model_restoration import Restoration
from diffusion.operators import Mask, Operator, parse
from diffusion.randomness import ExampleNoise, example_seed

if TYPE_CHECKING:
    from diffusion.cli import Inpaint, Restorations, Restore

# Rounding to 8 bits moves a value by up to half a level, evenly.
ROUNDING = 1 / 255 / math.sqrt(12)
# Of an image's random numbers: the noise that it is damaged by.
DAMAGE = 5


@dataclass(frozen=True)
class Task:
    """One image: what was seen of it, how to show that, the mask and the original if there are, and what to note."""

    y: Tensor
    operator: Operator
    noise: float
    damaged: Tensor
    note: dict[str, Any]
    known: Tensor | None = None
    original: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """The images of a command and where their restorations go."""

    run: Path
    paths: Sequence[Path]
    out: Path | None
    sources: list[Source]

    def folder(self, source: Source) -> Path:
        """Of a single file what `out` says, else one for each image below it."""
        first, alone = self.paths[0], len(self.paths) == 1
        if alone and not first.is_dir():
            return self.out or self.run / f"restored-{first.stem}"
        name = f"restored-{first.resolve().name}" if alone else "restored"
        return (self.out or self.run / name) / source.place


def inpaint(command: Inpaint) -> int:
    """Restores what is unknown of images."""
    model = _images(command.run)
    marked = None if command.unknown_color is None else Marked(command.unknown_color, command.threshold)
    batch = Batch(command.run, command.images, command.options.out, sources(command.images, command.mask))
    tasks = [_masked(source, model, marked, command.noise) for source in batch.sources]
    return _finish(model, batch, tasks, command.options)


def restore(command: Restore) -> int:
    """Restores what an operator and noise did to images, or does to them here with `damage`."""
    model = _images(command.run)
    operator = parse(command.operator)
    noise = ROUNDING if command.noise is None else command.noise
    batch = Batch(command.run, command.images, command.options.out, sources(command.images))
    note = {"operator": command.operator, "noise": noise, "damage": command.damage}
    tasks = []
    for source in batch.sources:
        if command.damage:
            tasks.append(_damage(source, model, operator, noise, command.options.seed, note))
        else:
            shape = operator(torch.zeros(1, *model.spec.shape)).shape[1:]
            y = read_observation(source.image, shape, model.config.data.background)
            tasks.append(Task(y, operator, noise, y, note))
    return _finish(model, batch, tasks, command.options)


def _images(run: Path) -> Model:
    processes.join()
    model = load(run)
    if not model.spec.is_image:
        raise InputError(f"{run}: this model was trained on points; restoring files needs a model of images")
    return model


def _masked(source: Source, model: Model, marked: Marked | None, noise: float) -> Task:
    image, known, notice = read_damaged(source, model.spec, marked)
    if notice:
        processes.say(notice)
    filled = 1 - float(known.float().mean())
    note = {"mask": source.mask and source.mask.name, "noise": noise, "filled": filled}
    return Task(image, Mask(known), noise, torch.where(known, image, 0.5), note, known)


def _damage(source: Source, model: Model, operator: Operator, noise: float, seed: int, note: dict[str, Any]) -> Task:
    image, notice = read_clean(source.image, model.spec, model.config.data.background)
    if notice:
        processes.say(notice)
    y = operator(image[None])
    y = (y + noise * ExampleNoise([example_seed(seed, DAMAGE)])(y))[0]
    return Task(y, operator, noise, y, note, original=image)


def _finish(model: Model, batch: Batch, tasks: Sequence[Task], options: Restorations) -> int:
    for source, task in zip(batch.sources, tasks, strict=True):
        result = model.restore(
            task.y,
            task.operator,
            noise=task.noise,
            n=options.n,
            method=options.method,
            steps=options.steps,
            sampler=options.sampler,
            seed=options.seed,
            label=options.label,
            guidance=options.guidance,
            batch=options.batch,
            shared=True,
            progress=processes.is_main(),
        )
        if processes.is_main():
            info = {
                "run": batch.run.name,
                "step": model.step,
                "image": source.image.name,
                **task.note,
                "n": options.n,
                "method": result.diagnostics.method.name,
                "steps": options.steps or RESTORATION_STEPS,
                "grid": config.to_dict(model.config)["grid"],
                "seed": options.seed,
                "label": options.label,
                "guidance": model.config.sampling.guidance if options.guidance is None else options.guidance,
            }
            _write(batch.folder(source), task, result, info)
    return 0


def _write(folder: Path, task: Task, result: Restoration, info: dict[str, Any]) -> None:
    top = float(result.std.max())
    for i, restored in enumerate(result.samples):
        figures.save_png(restored, folder / f"restored-{i}.png", {**info, "index": i})
    figures.save_png(result.mean, folder / "mean.png", info)
    figures.save_png(result.std / max(top, 1e-9), folder / "std.png", {**info, "white": top})
    if task.original is not None:
        figures.save_png(task.damaged, folder / "damaged.png", info)
    picture = figures.restoration(task.damaged, result.samples, result.std, known=task.known, original=task.original)
    figures.save_png(picture, folder / "restoration.png", info)
    written = {**info, "diagnostics": result.diagnostics.to_dict()}
    write_text(folder / "restoration.json", json.dumps(written, indent=1, allow_nan=False))
    done = f"{info['image']} restored {info['n']} times by {info['method']}"
    filled = f", {info['filled']:.0%} filled" if "filled" in info else ""
    print(f"{folder}: {done}{filled} in {result.diagnostics.seconds:.1f} s, seed {info['seed']}")
