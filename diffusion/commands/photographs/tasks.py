"""The problem that each image poses: read, checked, and with all that is shown and noted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.commands.options import Inpaint, Restore
from diffusion.commands.photographs import observing
from diffusion.commands.photographs.images import Marking, read_clean, read_damaged, read_observation
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.pad import Pad
from diffusion.commands.photographs.remarks import ROUNDING
from diffusion.model import Model
from diffusion.operators import Mask
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Problem


@dataclass(frozen=True)
class Task:
    """One image to restore: its problem, the damaged image as it is shown, and the settings to note with the results.

    `known` is the mask (1 or C, H, W) and `original` the image before it was damaged, where there are such. `notices`
    are printed before the work. Restorations are shown by the share `blend` (1, H, W) over `damaged`, if there is one,
    and the image was enlarged by a `pad`.
    """

    problem: Problem
    damaged: Tensor
    note: dict[str, Any]
    known: Tensor | None = None
    original: Tensor | None = None
    notices: tuple[str, ...] = ()
    blend: Tensor | None = None
    pad: Pad | None = None


def masked(model: Model, command: Inpaint, file: ImageFile, marking: Marking) -> Task:
    """The task of filling the unknown part of an image."""
    found = read_damaged(
        file,
        model.spec,
        model.config.data.background,
        marking,
        whole=command.noise > 0 or command.noise_map is not None,  # Then there is noise to remove.
        resize=command.options.resize,
    )
    image, known = found.image, found.known
    filled = 1 - float(known.float().mean())
    note = {"mask": file.mask and file.mask.name, **_noise_note(command, command.noise), "filled": filled}
    noise: float | Tensor = command.noise
    if command.noise_map is not None:
        noise = observing.noise_map(command, file.path, tuple(image.shape[1:]), marking.pad)
    problem = Problem.checked(image, Mask(known), noise, tuple(image.shape), bounds=model.border.bounds)
    shown = image if found.blend is not None else torch.where(known, image, 0.5)
    beside: tuple[str, ...] = ()
    if file.mask and file.beside:
        beside = (f"{file.path.name}: its mask is {file.mask.relative_to(file.path.parent)}, beside it",)
    return Task(problem, shown, note, known, notices=(*beside, *found.notices), blend=found.blend, pad=marking.pad)


def degraded(model: Model, command: Restore, number: int, file: ImageFile) -> Task:
    """The task of restoring an image that is degraded already."""
    operator, told = observing.operator(command, file.path)
    y, operator, shape = read_observation(file.path, operator, model.spec, model.config.data.background)
    noise, more = observing.noise(command, file.path, y)
    problem = Problem.checked(y, operator, noise, shape, bounds=model.border.bounds)
    return Task(problem, y, _note(command, noise), notices=(*told, *more))


def damaged(model: Model, command: Restore, number: int, file: ImageFile) -> Task:
    """The task of restoring a whole image that is degraded here; its noise depends on the number of the image."""
    options = command.options
    operator, _ = observing.operator(command, file.path)
    image, notice = read_clean(file.path, model.spec, model.config.data.background, resize=options.resize)
    y = operator(image[None])
    noise: float | Tensor = ROUNDING if command.noise is None else command.noise
    if command.noise_map is not None:
        noise = observing.noise_map(command, file.path, tuple(y.shape[2:]))
    y = (y + noise * ExampleNoise([example_seed(options.draw.seed, Stream.DAMAGE, number)])(y))[0]
    problem = Problem.checked(y, operator, noise, tuple(image.shape), bounds=model.border.bounds)
    return Task(problem, y, _note(command, noise), original=image, notices=(notice,) * bool(notice))


def _note(command: Restore, noise: float | Tensor) -> dict[str, Any]:
    return {"operator": command.operator, **_noise_note(command, noise), "damage": command.damage}


def _noise_note(command: Inpaint | Restore, noise: float | Tensor) -> dict[str, Any]:
    """The noise as it is noted: a number, or what white stands for in a map, and the name of the map."""
    if command.noise_map is None:
        return {"noise": noise}
    return {"noise": command.noise, "noise_map": command.noise_map.name}
