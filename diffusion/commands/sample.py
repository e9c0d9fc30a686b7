"""`diffusion sample`: draws images from a run's model, or varies and joins given ones, and writes them as they come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diffusion import config, distributed, figures
from diffusion.commands import restore
from diffusion.commands.options import DrawArguments, Inpaint, Restorations, Sample
from diffusion.commands.samples.files import files_in, sweep
from diffusion.commands.samples.places import choose, opened, read
from diffusion.commands.samples.sampling import PLOTTED, Job
from diffusion.commands.samples.ways import Way, given, settings_of, told_of, way_of
from diffusion.draw import DrawOptions
from diffusion.errors import InputError, require
from diffusion.model import Model, load

FILM_ROWS = 4
STRIP_FRAMES = 9
ANIMATION_FRAMES = 25
# The options that a size has, and those that have no effect without another one.
SIZED = ("tiles", "overlap", "around", "place")
NEEDED = {**dict.fromkeys(SIZED, "size"), "data_path": "through_holes"}
# The options that each way of making images has besides those that all have; they name the ways too.
OPTIONS: dict[str, set[str]] = {
    "": {"given", "first", "film", "tune", "steps", "sampler", "seed", "size", "through_holes", "data_path", *SIZED},
    "vary": {"given", "level", "first", "tune", "steps", "sampler", "seed"},
    "interpolate": {"given"},
    "noise_file": {"given", "first", "tune", "steps", "sampler", "seed"},
    "image": {"mask", "method", "noise", "resize", "steps", "sampler", "seed"},
}
COMMON = {"run", "draw", "out", "n", "label", "guidance", "batch", "device"}
WRITTEN = {"format", "npz", "picture"}


def sample(options: Sample) -> int:
    """Writes samples, each in a file of its own, a picture of the first ones, and for a film the trajectory of the
    first few; or restores an image.
    """
    _check(options)
    if options.image is not None:
        return restore.inpaint(_inpainting(options, options.image))
    options.draw.checked()
    require(options.first >= 0, "first", "0 or more", options.first)
    distributed.join()
    model, add = told_of(options, load(options.run))
    with distributed.main_first():
        way = add(way_of(options, model))
        model, job = _prepared(options, model, way)
    code = job.run()
    if options.film and code == 0 and distributed.is_main():
        _write_film(model, options, job.folder, dict(job.info))
    return code


def _prepared(options: Sample, model: Model, way: Way) -> tuple[Model, Job]:
    """Chooses the folder, says so, and writes its record; returns the model, tuned if asked, and the work."""
    settings, draw = {**settings_of(options, model), **way.settings}, options.draw
    numbers = range(options.first, options.first + way.n)
    folder, line = choose(options.run / way.name, options.out, settings)
    for notice in filter(None, (*way.notices, line)):
        distributed.say(notice)
    if options.tune:
        # The grid is measured once, since a batch of another size would round it otherwise.
        record = read(folder)
        model = _with_grid(model, dict(record.grid)) if record and record.grid else model.tuned()
    grid = config.to_dict(model.config)["grid"]
    label = given(options, model, range(1))["label"]
    record = opened(
        folder,
        settings,
        numbers,
        lambda: draw.batch or model.batch_size(guidance=draw.guidance, label=label),
        grid if options.tune else None,
    )
    sweep(folder)
    batch = draw.batch or record.batch
    shown = {name: value for name, value in settings.items() if name != "tuned"}
    return model, Job(
        folder,
        files_in(folder, model.spec, settings["format"], record.width),
        numbers,
        way.together(batch),
        lambda some: way.draw(model, some, batch),
        model.spec,
        {"run": options.run.name, **shown, "grid": grid},
        way.kind,
        options.picture,
        options.npz,
    )


def _check(options: Sample) -> None:
    """Raises InputError for options that have no effect beside each other."""
    ways = [way for way in OPTIONS if way and getattr(options, way) is not None]
    if len(ways) > 1:
        raise InputError(f"{_option(ways[1])}: must not be given with {_option(ways[0])}")
    way = ways[0] if ways else ""
    chosen = {name for name, default in vars(Sample(options.run)).items() if getattr(options, name) != default}
    chosen |= {name for name, default in vars(DrawArguments()).items() if getattr(options.draw, name) != default}
    for name in sorted(chosen - COMMON - OPTIONS[way] - {way} - (WRITTEN if way != "image" else set())):
        if way:
            what = "is for sampling and must" if way == "image" else "must"
            raise InputError(f"{_option(name)}: {what} not be given with {_option(way)}")
        needed = next(each for each in OPTIONS if name in OPTIONS[each])
        why = "the image that it belongs to" if name == "mask" else "without which it has no effect"
        raise InputError(f"{_option(name)}: needs {_option(needed)}, {why}")
    for name, needed in NEEDED.items():
        if name in chosen and needed not in chosen:
            raise InputError(f"{_option(name)}: needs {_option(needed)}, without which it has no effect")
    for name in ("film", "size"):
        if name in chosen and options.through_holes:
            raise InputError(f"{_option(name)}: must not be given with --through-holes")
    if options.film and options.size is not None:
        raise InputError("--film: must not be given with --size, as tiles have no trajectory of the whole image")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _inpainting(options: Sample, image: Path) -> Inpaint:
    """The options of `diffusion inpaint` that restore one image."""
    chosen = Restorations(options.draw, options.method, options.out, options.resize)
    return Inpaint(options.run, (image,), mask=options.mask, noise=options.noise, options=chosen)


def _with_grid(model: Model, grid: dict[str, Any]) -> Model:
    return replace(model, config=config.from_dict({**config.to_dict(model.config), "grid": grid}))


def _write_film(model: Model, options: Sample, out: Path, info: dict[str, Any]) -> None:
    rows = min(options.draw.n, FILM_ROWS if model.spec.is_image else PLOTTED)
    numbers = range(options.first, options.first + rows)
    steps = options.draw.steps or model.film_steps
    part: DrawOptions = {**given(options, model, numbers), "steps": steps}
    frames = model.film(rows, first=options.first, frames=ANIMATION_FRAMES, **part)
    strip = torch.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().long().tolist()
    figures.save_png(
        figures.film([frames[i] for i in strip]), out / "film.png", {**info, "steps": model.steps_of_grid(steps)}
    )
    figures.save_animation(frames, out / "film.gif")
