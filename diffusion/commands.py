"""What the commands that use a trained model do: files in, files out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusion import config, figures, processes
from diffusion.data import DataSpec, decode, fit, open_source
from diffusion.errors import InputError
from diffusion.evaluation import evaluate as evaluate_model
from diffusion.files import write_text
from diffusion.model import load

if TYPE_CHECKING:
    from diffusion.cli import Evaluate, Inpaint, Sample

FILM_ROWS = 4
STRIP_FRAMES = 9
ANIMATION_FRAMES = 25


def sample(options: Sample) -> int:
    """Writes a grid, single PNGs and, for a film, the trajectory of the first few samples."""
    processes.join()
    model = load(options.run)
    if options.tune:
        model = model.tuned()
    out = options.out or options.run / f"samples-{options.seed}"
    # A model with classes is best at each of them: without a label they take turns.
    label = options.label or model.in_turn(options.n)
    info = {
        "run": options.run.name,
        "step": model.step,
        "steps": options.steps or model.config.sampling.steps,
        "sampler": options.sampler or config.to_dict(model.config)["sampler"],
        "seed": options.seed,
        "label": options.label or ("in turn" if label else None),
        "guidance": model.config.sampling.guidance if options.guidance is None else options.guidance,
        "grid": config.to_dict(model.config)["grid"],
    }
    start = time.perf_counter()
    x = model.sample(
        options.n,
        steps=options.steps,
        sampler=options.sampler,
        seed=options.seed,
        label=label,
        guidance=options.guidance,
        batch=options.batch,
        shared=True,
        progress=processes.is_main(),
    )
    seconds = time.perf_counter() - start
    if not processes.is_main():
        return 0
    figures.save_png(figures.draw(x), out / "grid.png", info)
    if model.spec.is_image:
        for i, image in enumerate(x):
            figures.save_png(image, out / f"{i:05d}.png", {**info, "index": i})
    else:
        write_text(out / "points.json", json.dumps(x.tolist()))
    if options.film:
        rows = min(options.n, FILM_ROWS if model.spec.is_image else options.n)
        steps = options.steps or model.film_steps
        frames = model.film(
            rows,
            frames=ANIMATION_FRAMES,
            steps=steps,
            sampler=options.sampler,
            seed=options.seed,
            label=label[:rows] if isinstance(label, list) else label,
            guidance=options.guidance,
        )
        strip = torch.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().long().tolist()
        figures.save_png(figures.film([frames[i] for i in strip]), out / "film.png", {**info, "steps": steps})
        figures.save_animation(frames, out / "film.gif")
    print(f"{out}: {options.n} samples of step {model.step} in {seconds:.1f} s, seed {options.seed}")
    return 0


def inpaint(options: Sample | Inpaint, path: Path, mask: Path | None) -> int:
    """Writes restorations, their mean and standard deviation, and one figure beside the damaged image."""
    processes.join()
    model = load(options.run)
    if not model.spec.is_image:
        raise InputError(f"{options.run}: this model was trained on points; inpainting files needs a model of images")
    image, known, notice = read_damaged(path, mask, model.spec)
    if notice:
        processes.say(notice)
    out = options.out or options.run / f"restored-{path.stem}"
    result = model.inpaint(
        image,
        known,
        n=options.n,
        method=options.method,
        noise=options.noise,
        steps=options.steps,
        sampler=options.sampler,
        seed=options.seed,
        label=options.label,
        guidance=options.guidance,
        batch=options.batch,
        shared=True,
        progress=processes.is_main(),
    )
    if not processes.is_main():
        return 0
    info = {
        "run": options.run.name,
        "step": model.step,
        "method": options.method,
        "noise": options.noise,
        "seed": options.seed,
        "image": path.name,
        "steps": options.steps or model.config.sampling.steps,
    }
    for i, restored in enumerate(result.samples):
        figures.save_png(restored, out / f"restored-{i}.png", {**info, "index": i})
    figures.save_png(result.mean, out / "mean.png", info)
    figures.save_png(
        result.std / result.std.max().clamp_min(1e-9), out / "std.png", {**info, "white": float(result.std.max())}
    )
    damaged = torch.where(known, image, 0.5)
    figures.save_png(
        figures.restoration(None, known, result.samples, result.std, damaged), out / "restoration.png", info
    )
    filled = 1 - known.float().mean()
    print(
        f"{out}: {path.name} restored {options.n} times by {options.method}, {filled:.0%} filled, seed {options.seed}"
    )
    return 0


def read_damaged(path: Path, mask: Path | None, spec: DataSpec) -> tuple[Tensor, Tensor, str]:
    """An image (C, H, W) in [0, 1] and what is known of it (1, H, W), brought to the size of the data, and a notice if
    it had another.

    Known is where the mask is at least half white; without a mask, where the image is opaque.

    Raises InputError when the sizes differ, or an image without transparency comes without a mask.
    """
    channels, *size = spec.shape
    pixels = decode(path, channels=channels, background=(0, 0, 0))
    if mask is not None:
        known = decode(mask, channels=1, background=(0, 0, 0)) >= 128
        if known.shape[:2] != pixels.shape[:2]:
            raise InputError(
                f"--mask: {mask.name} is {known.shape[1]} x {known.shape[0]} pixels, but {path.name} is "
                f"{pixels.shape[1]} x {pixels.shape[0]}; a mask has the size of its image"
            )
    else:
        known = decode(path, channels=4, background=(0, 0, 0))[:, :, 3:] >= 128
        if known.all():
            raise InputError(f"{path.name}: nothing is transparent in it; say with --mask MASK what is unknown (black)")
    notice = ""
    height, width = pixels.shape[:2]
    if (height, width) != tuple(size):
        notice = f"{path.name}: resized and cropped from {width} x {height} to the model's {size[1]} x {size[0]}"
        pixels = fit(pixels, (size[0], size[1]))
        # A pixel is known only if all that it was resized from is.
        known = fit(known.astype("uint8") * 255, (size[0], size[1])) == 255
    image = torch.tensor(pixels).permute(2, 0, 1) / 255
    return image, torch.tensor(known).permute(2, 0, 1), notice


def evaluate(options: Evaluate) -> int:
    """Prints the held-out bound by terms and writes it into the run folder."""
    processes.join()
    model = load(options.run)
    with processes.main_first():
        dataset = open_source(model.config.data, processes.say)
    _, held_out = dataset.split(model.config.data.held_out, model.config.data.seed)
    result = evaluate_model(
        model,
        held_out,
        limit=options.limit,
        steps=options.steps,
        draws=options.draws,
        seed=options.seed,
        shared=True,
        progress=processes.is_main(),
    )
    if not processes.is_main():
        return 0
    print(result.table())
    write_text(options.run / "evaluation.json", json.dumps(asdict(result), indent=1))
    return 0
