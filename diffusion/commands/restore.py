"""`diffusion inpaint` and `diffusion restore`: draw restorations of images and write them.

Images are read, restored and written one after the other. What can be told of all of them without reading their pixels
is checked before the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import config, distributed
from diffusion.commands.options import Inpaint, Restore
from diffusion.commands.photographs import observing, remarks, results, tasks
from diffusion.commands.photographs.batch import Batch
from diffusion.commands.photographs.canvas import Canvas, canvas, project
from diffusion.commands.photographs.feather import blended
from diffusion.commands.photographs.images import Marking
from diffusion.commands.photographs.listing import ImageFile, list_images
from diffusion.commands.photographs.own_results import OwnResults
from diffusion.commands.photographs.pad import Pad
from diffusion.commands.photographs.photograph import Photograph, read_photograph
from diffusion.commands.photographs.places import Place, Request
from diffusion.commands.photographs.targets import Targets, lost
from diffusion.commands.photographs.tasks import Task
from diffusion.data.images.decoding import Color
from diffusion.data.images.marks import Marked
from diffusion.errors import InputError, require
from diffusion.model import Model, load
from diffusion.model.origin import weights_hash
from diffusion.model.restoration import Restoration
from diffusion.restoration import Problem
from diffusion.restoration.parts import unsettled

Read = Callable[[int, ImageFile], Task]


@dataclass(frozen=True)
class Job:
    """A command, the model of its run, the results that are asked for, and the image files that it restores.

    With `alone` a single file was named. `own` are the results of this package that were left out, `unread` lines about
    what cannot be read, and `notices` lines about masks.
    """

    model: Model
    command: Inpaint | Restore
    targets: Targets
    files: list[ImageFile]
    alone: bool
    own: list[Path] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def background(self) -> Color:
        """The color behind transparent pixels, as in training."""
        return self.model.config.data.background

    @cached_property
    def request(self) -> Request:
        """What its results are made of besides an image."""
        network = self.model.denoiser.backbone
        assert isinstance(network, torch.nn.Module)
        damages = isinstance(self.command, Restore) and self.command.damage
        return Request.of(self.command, weights_hash(network.state_dict()), numbered=damages)


def inpaint(command: Inpaint) -> int:
    """Restores the unknown part of images."""
    marking = _marking(command)
    if command.mask is not None and not command.mask.exists():
        raise InputError(f"--mask: {command.mask} is not there; name a mask or a folder of masks")
    _check_map(command)
    job = _job(command, command.mask)
    return _restore(job, lambda _, file: tasks.masked(job.model, command, file, marking))


def restore(command: Restore) -> int:
    """Restores degraded images, or with `damage` whole images that it degrades first."""
    observing.check(command)
    if command.options.resize and not command.damage:
        raise InputError("--resize: needs --damage, before which whole images are resized; degraded ones cannot be")
    _check_map(command)
    job = _job(command, None)
    task = tasks.damaged if command.damage else tasks.degraded
    return _restore(job, lambda number, file: task(job.model, command, number, file))


def _check_map(command: Inpaint | Restore) -> None:
    """Raises InputError for a map of noise that is not there, or that images do not fit once they are resized."""
    if command.noise_map is None:
        return
    if not command.noise_map.exists():
        raise InputError(f"--noise-map: {command.noise_map} is not there")
    require(not command.options.resize, "--resize", "left out with --noise-map, which has the size of the image", True)


def _job(command: Inpaint | Restore, masks: Path | None) -> Job:
    """Lists the images of a command and loads its model."""
    targets = Targets.of(command.options)
    own: list[Path] = []
    unread: list[str] = []
    notices: list[str] = []

    def is_result(folder: Path, file: Path) -> bool:
        return OwnResults(folder, command.options.out, own)(file)

    try:
        paired = isinstance(command, Inpaint) and command.unknown_color is None
        files = list_images(command.images, masks, paired=paired, is_result=is_result, unread=unread, notices=notices)
    except InputError as error:
        if own:
            raise InputError(f"{error}, but {_left_out(own)}; name them as files to restore them") from error
        raise
    alone = len(command.images) == 1 and not command.images[0].is_dir()
    distributed.join()
    model = load(command.run)
    if not model.spec.is_image:
        raise InputError(f"{command.run}: this model was trained on points; restoring files needs a model of images")
    return Job(model, replace(command, options=targets.options), targets, files, alone, own, unread, notices)


def _left_out(own: list[Path]) -> str:
    more = f" and {len(own) - 1:,} more" if len(own) > 1 else ""
    return f"{own[0]}{more} {'are results' if more else 'is a result'} of this package"


def _marking(command: Inpaint) -> Marking:
    """How the command says what is unknown. Raises InputError for options without effect."""
    if command.unknown_color is None:
        require(command.threshold is None, "--threshold", "given with --unknown-color alone", command.threshold)
    marked = None if command.unknown_color is None else Marked(command.unknown_color, command.threshold)
    if command.feather and (command.noise or command.noise_map):
        raise InputError("--feather: blends the filling into pixels that --noise restores too; leave out one of them")
    pad = None if command.pad is None else Pad.parse(command.pad)
    return Marking(marked, command.invert_mask, command.mask_channels, command.grow, command.feather, pad)


def _restore(job: Job, read: Read) -> int:
    """Restores all images one after the other, and writes the results in the main process."""
    options = job.command.options
    options.draw.checked()
    places, line = job.targets.places(job.request, job.files, job.command.run, job.command.images, alone=job.alone)
    if job.own:
        distributed.say(f"{_left_out(job.own)}, and left out; named as files they are restored")
    for notice in (*job.notices, *[line] * bool(line)):
        distributed.say(notice)
    return Batch(places, job.alone, job.unread)(lambda number, place, left: _one(job, read, number, place, left))


def _one(job: Job, read: Read, number: int, place: Place, left: str) -> None:
    """Reads, restores and writes one image."""
    file, draw, options = place.file, job.command.options.draw, job.command.options
    task, photograph = read(number, file), read_photograph(file.path)
    if task.pad is not None:
        photograph = photograph.padded(task.pad)
    prepared, notices = _canvas(job, task, photograph)
    encoding, prepared = job.targets.encoding(photograph, prepared, place.path)
    told = (*photograph.notices, *notices, *lost(prepared, encoding))
    for notice in (*task.notices, *(f"{file.path.name}: {text}" for text in told)):
        distributed.say(notice)
    plan = job.model.plan(task.problem, draw, method=options.method, shared=True)
    if work := remarks.work(plan, job.model.spec.shape[1:], draw.n):
        distributed.say(f"{left}{file.path.name}: {work}")
    main = distributed.is_main()
    found = project(job.model.solve(task.problem, draw, method=options.method, shared=True, progress=main), prepared)
    if not main:
        return
    found = blended(found, task.damaged, task.blend)
    info, record, path = _info(job, task, file, found), job.request.record(file, number), place.path
    if encoding is None:
        shown = results.Shown(task.damaged, task.known, task.original)
        path = results.write(path, found, prepared, info, record, shown, replaces=options.again)
    else:
        if path.exists() and not options.again:
            raise InputError(f"{path}: was written meanwhile by another command, and stays as it is")
        if place.root is not None:  # First, so that a file that is there is known after an interruption.
            results.note(place.root, path, info, record, found)
        results.write_one(path, found, prepared, encoding, info, mean=job.targets.mean)
    noise, filling = task.problem.noise, "" if task.known is None else remarks.filled(task.known)
    what = f"mean of {file.path.name}" if encoding is not None and job.targets.mean else file.path.name
    print(f"{left}{path}: {remarks.done(what, found.diagnostics, draw.n, draw.seed, noise, filling)}")
    seen = noise, found.diagnostics.residual, task.problem.observations, found.diagnostics.steps
    if warning := remarks.noise_warning(*seen):
        print(f"{file.path.name}: {warning}")


def _canvas(job: Job, task: Task, photograph: Photograph) -> tuple[Canvas, tuple[str, ...]]:
    """What the restorations of an image are written into."""
    shape, y = task.problem.x_shape, task.problem.y
    return canvas(
        photograph,
        shape,
        job.model.spec,
        known=task.known,
        background=job.background,
        keeps=_kept(task.problem),
        colorizes=y.ndim == 4 and y.shape[1] < shape[0],
    )


def _kept(problem: Problem) -> bool | Tensor:
    """Whether known pixels are returned as they are, or which of them where that depends on a map of noise."""
    if not isinstance(problem.noise, Tensor):
        return not problem.noise
    restored = unsettled(problem)
    return False if restored is None else ~restored


def _info(job: Job, task: Task, file: ImageFile, found: Restoration) -> dict[str, Any]:
    """The settings that every picture of a restoration carries."""
    model, draw = job.model, job.command.options.draw
    return {
        "run": job.command.run.name,
        "step": model.step,
        "image": file.path.name,
        **task.note,
        "n": draw.n,
        "method": found.diagnostics.method.name,
        "steps": found.diagnostics.steps,
        "grid": config.to_dict(model.config)["grid"],
        "seed": draw.seed,
        "label": draw.label,
        "guidance": model.config.sampling.guidance if draw.guidance is None else draw.guidance,
    }
