"""What `diffusion inpaint` and `diffusion restore` do: images in; restorations, figures and their settings out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffusion import config, distributed, figures
from diffusion.commands.images import Marked, Size, Source, read_clean, read_damaged, read_observation, sources
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.model import Model, load
from diffusion.model.restoration import RESTORATION_STEPS, Restoration, observation, shape_of
from diffusion.operators import Mask, Operator, parse
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.restoration import statistics

if TYPE_CHECKING:
    from diffusion.cli import Inpaint, Restorations, Restore

# Rounding to 8 bits moves a value by up to half a level, evenly.
ROUNDING = 1 / 255 / math.sqrt(12)
# Of an image's random numbers: the noise that it is damaged by.
DAMAGE = 5
# Of intervals, and the files of their bounds, pixel by pixel.
CONFIDENCE = 0.9
BOUNDS = ("low.png", "high.png")


@dataclass(frozen=True)
class Task:
    """One image: what was seen of it, how to show that, the mask and the original if there are, and what to note."""

    y: Tensor
    operator: Operator
    noise: float
    size: Size
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
    return _finish(model, batch, lambda _, source: _masked(source, model, marked, command), command.options)


def restore(command: Restore) -> int:
    """Restores what an operator and noise did to images, or does to them here with `damage`."""
    model = _images(command.run)
    operator = parse(command.operator)
    noise = ROUNDING if command.noise is None else command.noise
    if command.options.resize and not command.damage:
        raise InputError("--resize: needs --damage, before which images are resized; what is left of them cannot be")
    batch = Batch(command.run, command.images, command.options.out, sources(command.images))
    note = {"operator": command.operator, "noise": noise, "damage": command.damage}

    def task(number: int, source: Source) -> Task:
        if command.damage:
            return _damage(number, source, model, operator, noise, command.options, note)
        y, size = read_observation(source.image, operator, model.spec, model.config.data.background)
        return Task(y, operator, noise, size, y, note)

    return _finish(model, batch, task, command.options)


def _images(run: Path) -> Model:
    distributed.join()
    model = load(run)
    if not model.spec.is_image:
        raise InputError(f"{run}: this model was trained on points; restoring files needs a model of images")
    return model


def _masked(source: Source, model: Model, marked: Marked | None, command: Inpaint) -> Task:
    image, known, notice = read_damaged(
        source,
        model.spec,
        model.config.data.background,
        marked,
        whole=command.noise > 0,  # There is noise to remove.
        resize=command.options.resize,
    )
    filled = 1 - float(known.float().mean())
    note = {"mask": source.mask and source.mask.name, "noise": command.noise, "filled": filled}
    shown = torch.where(known, image, 0.5)
    return Task(image, Mask(known), command.noise, size_of(image), shown, note, known, notice=notice)


def _damage(
    number: int,
    source: Source,
    model: Model,
    operator: Operator,
    noise: float,
    options: Restorations,
    note: dict[str, Any],
) -> Task:
    image, notice = read_clean(source.image, model.spec, model.config.data.background, resize=options.resize)
    y = operator(image[None])
    y = (y + noise * ExampleNoise([example_seed(options.seed, DAMAGE, number)])(y))[0]
    return Task(y, operator, noise, size_of(image), y, note, original=image, notice=notice)


def size_of(image: Tensor) -> Size:
    """Of an image (C, H, W)."""
    return image.shape[1], image.shape[2]


def _finish(model: Model, batch: Batch, read: Callable[[int, Source], Task], options: Restorations) -> int:
    # What cannot be restored is said before the first is, and one at a time is kept.
    for number, source in enumerate(batch.sources):
        with _naming(source):
            _check(model, read(number, source))
    for number, source in enumerate(batch.sources):
        task = read(number, source)
        if task.notice:
            distributed.say(task.notice)
        result = _restored(model, source, task, options)
        if distributed.is_main():
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
            _write(batch.folder(source), source.image, task, result, info)
    return 0


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Has errors name the image, one of many, where they do not."""
    try:
        yield
    except InputError as error:
        if str(source.image) in str(error):
            raise
        raise InputError(f"{source.image}: {error}") from error


def _check(model: Model, task: Task) -> None:
    """Raises InputError for what `Model.restore` does not take."""
    observation(task.y, task.operator, task.noise, shape_of(task.size, model.spec))


def _restored(model: Model, source: Source, task: Task, options: Restorations) -> Restoration:
    try:
        return model.restore(
            task.y,
            task.operator,
            size=task.size,
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
            progress=distributed.is_main(),
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"{source.image}: {error}") from error


def _write(folder: Path, image: Path, task: Task, result: Restoration, info: dict[str, Any]) -> None:
    # First of all, as it takes only finite numbers: without it there is to be no picture.
    written = {**info, **against(task.original, result), "diagnostics": result.diagnostics.to_dict()}
    text = json.dumps(written, indent=1, allow_nan=False)
    std = result.std[: figures.COLORS]
    top = float(std.max())
    _remove_older(folder, image, len(result.samples), damaged=task.original is not None)
    for i, restored in enumerate(result.samples):
        figures.save_png(restored, folder / f"restored-{i}.png", {**info, "index": i})
    figures.save_png(result.mean, folder / "mean.png", info)
    held = statistics.held(len(result.samples), confidence=CONFIDENCE)
    for name, bound in zip(BOUNDS, result.interval(CONFIDENCE), strict=True):
        figures.save_png(bound, folder / name, {**info, "interval": held})
    figures.save_png(std / max(top, 1e-9), folder / "std.png", {**info, "white": top})
    if task.original is not None:
        figures.save_png(task.damaged, folder / "damaged.png", info)
    picture = figures.restoration(task.damaged, result.samples, result.std, known=task.known, original=task.original)
    figures.save_png(picture, folder / "restoration.png", info)
    write_text(folder / "restoration.json", text)
    windows = result.diagnostics.windows
    done = f"{info['image']} restored {info['n']} times by {info['method']}{f' in {windows} windows' * (windows > 1)}"
    filled = f", {info['filled']:.0%} filled" if "filled" in info else ""
    print(f"{folder}: {done}{filled} in {result.diagnostics.seconds:.1f} s, seed {info['seed']}")


def _remove_older(folder: Path, image: Path, n: int, *, damaged: bool) -> None:
    """Removes what an earlier result for an image left in a folder and one of n restorations does not replace."""
    numbered = (path for path in folder.glob("restored-*.png") if re.fullmatch("restored-(0|[1-9][0-9]*)", path.stem))
    older = [path for path in numbered if int(path.stem.removeprefix("restored-")) >= n]
    if not damaged and (folder / "damaged.png").exists():
        older.append(folder / "damaged.png")
    for path in older:
        if _made_of(path) == image.name and not path.samefile(image):
            path.unlink()


def _made_of(path: Path) -> str | None:
    """The name of the image that a picture is a result for, if it is one."""
    try:
        return figures.read_info(path)["image"]  # type: ignore[no-any-return]
    except (OSError, KeyError, TypeError, ValueError):  # Somebody else's.
        return None


def against(original: Tensor | None, result: Restoration) -> dict[str, float]:
    """Where the original is known: the PSNR of the mean, in dB, and of enough restorations the coverage of their 90 %
    intervals.
    """
    if original is None:
        return {}
    found = float(statistics.psnr(result.mean[None], original[None]))
    measured = {"psnr_of_mean": found} if math.isfinite(found) else {}
    if len(result.samples) >= statistics.fewest(CONFIDENCE):
        measured["coverage_90"] = float(statistics.coverage(result.samples, original, confidence=CONFIDENCE).mean())
    return measured
