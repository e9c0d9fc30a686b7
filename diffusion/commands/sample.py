"""`diffusion sample`: draws images from a run's model and writes them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from diffusion import config, distributed, figures
from diffusion.commands import restore
from diffusion.commands.options import Inpaint, Restorations, Sample
from diffusion.draw import DrawOptions
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.model import Model, load

FILM_ROWS = 4
STRIP_FRAMES = 9
ANIMATION_FRAMES = 25


def sample(options: Sample) -> int:
    """Writes a picture of all samples, single PNGs and, for a film, the trajectory of the first few; or restores an
    image.
    """
    if options.image is not None:
        return restore.inpaint(_inpainting(options, options.image))
    if options.mask is not None:
        raise InputError("--mask: needs --image, the image that it belongs to")
    distributed.join()
    model = load(options.run)
    if options.tune:
        model = model.tuned()
    draw, out = options.draw, options.out or options.run / f"samples-{options.draw.seed}"
    # A model with classes is best at each of them: without a label they take turns.
    label = draw.label or model.in_turn(draw.n)
    given: DrawOptions = {
        "steps": draw.steps,
        "sampler": draw.sampler,
        "seed": draw.seed,
        "label": label,
        "guidance": draw.guidance,
        "batch": draw.batch,
    }
    start = time.perf_counter()
    x = model.sample(draw.n, shared=True, progress=distributed.is_main(), **given)
    seconds = time.perf_counter() - start
    if not distributed.is_main():
        return 0
    info = _info(options, model)
    figures.save_png(figures.draw(x), out / "samples.png", info)
    if model.spec.is_image:
        for i, image in enumerate(x):
            figures.save_png(image, out / f"{i:05d}.png", {**info, "index": i})
    else:
        write_text(out / "points.json", json.dumps(x.tolist()))
    if options.film:
        _write_film(model, draw.n, given, out, info)
    print(f"{out}: {draw.n} samples of step {model.step} in {seconds:.1f} s, seed {draw.seed}")
    return 0


def _inpainting(options: Sample, image: Path) -> Inpaint:
    """The options of `diffusion inpaint` that restore one image. Raises InputError for those that only sampling has."""
    for name in ("film", "tune"):
        if getattr(options, name):
            raise InputError(f"--{name}: is for sampling and must not be given with --image")
    chosen = Restorations(options.draw, options.method, options.out, options.resize)
    return Inpaint(options.run, (image,), mask=options.mask, noise=options.noise, options=chosen)


def _info(options: Sample, model: Model) -> dict[str, Any]:
    """The settings that every PNG carries."""
    draw, resolved = options.draw, config.to_dict(model.config)
    steps = model.config.sampling.steps if draw.steps is None else draw.steps
    return {
        "run": options.run.name,
        "step": model.step,
        "steps": model.steps_of_grid(steps),
        "sampler": {"name": draw.sampler} if draw.sampler else resolved["sampler"],
        "seed": draw.seed,
        "label": draw.label or ("in turn" if model.spec.classes else None),
        "guidance": model.config.sampling.guidance if draw.guidance is None else draw.guidance,
        "grid": resolved["grid"],
    }


def _write_film(model: Model, n: int, given: DrawOptions, out: Path, info: dict[str, Any]) -> None:
    rows = min(n, FILM_ROWS if model.spec.is_image else n)
    label, steps = given["label"], given["steps"] or model.film_steps
    part: DrawOptions = {**given, "steps": steps, "label": label[:rows] if isinstance(label, list) else label}
    frames = model.film(rows, frames=ANIMATION_FRAMES, **part)
    strip = torch.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().long().tolist()
    figures.save_png(
        figures.film([frames[i] for i in strip]), out / "film.png", {**info, "steps": model.steps_of_grid(steps)}
    )
    figures.save_animation(frames, out / "film.gif")
