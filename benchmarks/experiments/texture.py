"""A texture with a hole (figure 5 of the paper, which shows bark).

A network without attention is trained on crops of one photograph that do not touch the square in its middle. It is then
applied to the whole photograph and fills the square, by the default method of restoration and by the paper's.

The content of the square was never seen. Crops of it, of the size of the training crops, measure the likelihood in the
unit of the paper's table 1. They overlap, so their interval says nothing about other photographs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import timed
from benchmarks.common import Rows
from benchmarks.experiments import pictures
from benchmarks.experiments.setting import Outcome, Setting
from benchmarks.restoration import Case, Task, work
from diffusion import config, figures
from diffusion.data import Dataset, decode, open_source
from diffusion.data.images.decoding import SUFFIXES
from diffusion.errors import InputError
from diffusion.evaluation import BoundEstimator, LikelihoodEvaluation, evaluate
from diffusion.model import Model
from diffusion.operators import Mask

CONFIG = Path("configs/texture.toml")
# For minutes on two cores instead of hours on a GPU. Crops are smaller than the hole, so that some lie within it. A
# quarter of the noise levels is drawn uniformly in log-SNR, because the likelihood weighs all of them alike.
SMALL = (
    "data.size=64",
    "backbone.channels=[32,64,96]",
    "backbone.blocks=1",
    "training.batch=8",
    "training.lr=0.03",
    "training.warmup=100",
    "noise_levels.uniform=0.25",
)
DRAWS, STEPS, RESTORED, ROWS = 256, 32, 2, 4
PUBLISHED = {"model": "published (2015), bark: other images", "K, bits/pixel": -0.55, "K − L_null": 1.5}


def photograph(path: Path) -> Path:
    """Returns the image file at `path`, or the first one by name in a folder. Raises InputError if there is none."""
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"--data: must hold an image file, got {path}")
    return found[0]


def hole(size: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Returns the rows and columns of the square in the middle of an image, as `data.hole` defines it."""
    first, second = ((length - side) // 2 for length in size)
    return slice(first, first + side), slice(second, second + side)


def corners(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the distinct crops of a size at the corners of an image (C, H, W): (N, C, *size), N at most 4."""
    for axis, side in enumerate(size, 1):
        image = image.unfold(axis, side, max(1, image.shape[axis] - side))
    return image.flatten(1, 2).movedim(0, 1).contiguous()


def density(model: Model, hidden: Tensor) -> LikelihoodEvaluation:
    """Returns the bound on log p of crops of the hidden square (C, H, W) uint8."""
    crops = corners(hidden, model.spec.shape[1:])
    names = tuple(map(str, range(len(crops))))
    return evaluate(
        model, Dataset(crops.numpy(), model.spec, None, names), method=BoundEstimator(draws=DRAWS), progress=True
    )


def fill(model: Model, image: Tensor, known: Tensor, path: Path) -> Path:
    """Draws an image (C, H, W) in [0, 1] of any size with its hole filled by the default method of restoration, and by
    the paper's product of distributions with the same number of evaluations of the same network.
    """
    larger = replace(model, spec=replace(model.spec, shape=tuple(image.shape)))
    case = Case.of(image, Task(Mask(known)))
    ours = case.restored(larger, "auto", RESTORED, steps=STEPS, batch=1)
    theirs = case.restored(larger, "product", RESTORED, steps=round(work(ours)), batch=1)
    picture = case.picture({"the default": ours, "product of 2015": theirs})
    return figures.save_png(picture, path, {"step": model.step})


def run(setting: Setting) -> Outcome:
    """Trains for the given time on one photograph."""
    path = photograph(setting.source("a photograph, or a folder of them"))
    experiment = config.load(CONFIG, SMALL)
    experiment = replace(experiment, data=replace(experiment.data, path=str(path)))
    data = open_source(experiment.data, print)
    model, seconds = timed.train(experiment, data, setting.folder / "texture", setting.seconds)
    pixels = decode(path, experiment.data.pixel_format)
    values = torch.tensor(pixels).movedim(2, 0)
    square = hole(tuple(values.shape[1:]), experiment.data.hole)
    found = density(model, values[:, *square])
    known = torch.ones(1, *values.shape[1:], dtype=torch.bool)
    known[:, *square] = False
    fill(model, values.float() / 255, known, setting.folder / "texture.png")
    pictures.record(model, data.spec.encode(data.batch(range(ROWS))[0]), setting.folder, "texture")
    rows: Rows = [
        {"model": f"ours, {path.name}", "K, bits/pixel": found.k["K"], "K − L_null": found.k["K - L_null"],
         "bits/dim": found.terms["total"], "steps": model.step, "seconds": seconds},
        dict(PUBLISHED),
    ]  # fmt: skip
    height, width = model.spec.shape[1:]
    return {f"Texture: overlapping crops of {height}x{width} inside the hole": rows}, []
