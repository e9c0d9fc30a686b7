"""Compares methods of restoration on the images of a trained model: fidelity, coverage, seams, seconds.

    python -m benchmarks.restoration RUN --data FOLDER [--limit 16] [--n 19] [--methods ...] [--check] [--out FILE]

FOLDER holds images that the model was not trained on. --limit of them, evenly spaced in the folder, are damaged in six
ways. Three hide pixels: a box of half the side in the middle, the right half, and 92 % of the pixels at random. One
hides the box and adds noise of 0.1 to the rest. Two average and add noise: downsampling by 4, and a blur.

Every method makes n restorations of each image. The columns are the PSNR and SSIM of their mean; the coverage of their
90 % intervals, over the hidden pixels where there is a mask (19 are the fewest restorations that have such intervals);
the energy score over the same pixels, which is least for samples of the posterior; and the seam, which is how much more
pixels differ across the edge of the mask than in the original. The default takes --steps steps. Every other method
takes as many evaluations of the network as the default did in all, where a backward pass counts as an evaluation and a
repeat of RePaint as a step. Of a model that learned to restore the default for masks is `learned`, and there `mmps`,
the default of other models, takes as many steps.

A picture of each task is left in a folder beside the JSON.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks import common
from benchmarks.common import Goal, Rows
from benchmarks.posterior import Tally
from diffusion import figures
from diffusion.data import PixelFormat, open_folder
from diffusion.errors import InputError
from diffusion.evaluation.known import MASKS
from diffusion.model import Model, load
from diffusion.model.restoration import Restoration
from diffusion.model.solving import RESTORATION_STEPS
from diffusion.operators import Downsample, GaussianBlur, Mask, Operator
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.restoration import METHODS
from diffusion.restoration.similarity import SIDE as WINDOW
from diffusion.restoration.similarity import ssim
from diffusion.restoration.statistics import coverage, energy_score, fewest, psnr, seam

COMPARED = ("repaint", "replacement", "ddnm", "product", "pigdm")
DEFAULT, LEARNED, GUIDED = "default", "learned", "mmps"
# Standard deviation of the noise, in units of images in [0, 1], where an operator averages, and where a mask shows.
NOISE, SHOWN_NOISE = 0.05, 0.1
CONFIDENCE = 0.9
FEWEST = fewest(CONFIDENCE)
VARIANTS, SECONDS = 8, 60.0
SHOWN, PICTURES = 4, 2
# Evaluations and backward passes of a step, where they are not one.
PER_STEP = {"zero": 2, "pigdm": 2, "tmpd": 3, "dps": 3}
# The number of evaluations of a step is not known beforehand for three others, and `learned` is the default if at all.
COMPARABLE = tuple(name for name in METHODS if name not in (GUIDED, "resampling", "particles", LEARNED))


@dataclass(frozen=True)
class Task:
    """A kind of damage: an operator, and the standard deviation of the noise in units of images."""

    operator: Operator
    noise: float = 0.0

    @property
    def known(self) -> Tensor | None:
        """The known pixels of a mask; None for other operators."""
        return self.operator.known if isinstance(self.operator, Mask) else None


def tasks(height: int, width: int) -> dict[str, Task]:
    """Returns the kinds of damage for images of a size; x4 is among them only if 4 divides both sides."""
    found = {name: Task(Mask(mask((height, width), 0)[None])) for name, mask in MASKS.items()}
    found["box in noise"] = replace(found["box"], noise=SHOWN_NOISE)
    if height % 4 == 0 == width % 4:
        found["x4"] = Task(Downsample(4), NOISE)
    # More than twice as wide as the 3 pixels of 256 in the tables of papers.
    return {**found, "blur": Task(GaussianBlur(min(height, width) / 32), NOISE)}


@dataclass(frozen=True)
class Case:
    """An image (C, H, W) in [0, 1] and its damaged observation y by a task."""

    image: Tensor
    task: Task
    y: Tensor

    @classmethod
    def of(cls, image: Tensor, task: Task, seed: int = 0) -> Case:
        """Damages an image by a task, with the noise of a seed."""
        y = task.operator(image[None])
        return cls(image, task, (y + task.noise * ExampleNoise([seed])(y))[0])

    def restored(
        self, model: Model, method: str, n: int, *, steps: int, seed: int = 0, batch: int | None = None
    ) -> Restoration:
        """Returns n restorations, rounded to 8 bits as they are in files."""
        options = {"noise": self.task.noise, "n": n, "method": method, "steps": steps, "seed": seed, "batch": batch}
        found = model.restore(self.y, self.task.operator, **options)
        return replace(found, part=model.spec.quantize(found.part).float() / model.spec.top)

    def picture(self, results: Mapping[str, Restoration]) -> Image.Image:
        """Draws a row for each method: its name and evaluations, the damaged image, some restorations, their mean and
        standard deviation, and the original.
        """
        known = self.task.known
        damaged = self.y.clamp(0, 1) if known is None else torch.where(known, self.y.clamp(0, 1), 0.5)
        rows = []
        for name, found in results.items():
            shown = found.samples[:SHOWN]
            row = figures.restoration(damaged, shown, found.std, known=known, original=self.image)
            done = found.diagnostics
            title = f"{name}: {done.nfe:.0f} evaluations, {done.backward:.0f} backward passes"
            rows.append(figures.captioned([(title, row)]))
        return figures.stack(rows)


def work(found: Restoration) -> float:
    """Returns the number of evaluations of the network plus that of backward passes through it, for a batch."""
    return found.diagnostics.nfe + found.diagnostics.backward


def measured(case: Case, found: Restoration) -> dict[str, float]:
    """Returns the figures of one image."""
    mean, known, image = found.mean[None], case.task.known, case.image
    covered = coverage(found.samples, image, confidence=CONFIDENCE)
    judged = torch.ones_like(image, dtype=torch.bool) if known is None else ~known.expand_as(image)
    return {
        "PSNR of the mean": float(psnr(mean, image[None])),
        "SSIM of the mean": float(ssim(mean, image[None])),
        "coverage": float(covered[judged].mean()),
        "energy score": float(energy_score(found.samples[:, judged], image[judged])),
        "seam": math.nan if known is None else float(seam(found.samples, known, image).mean()),
        "std": float(found.std.mean()),
        "NFE": found.diagnostics.nfe,
        "backward": found.diagnostics.backward,
        f"seconds, {VARIANTS} variants": found.diagnostics.seconds * VARIANTS / len(found.samples),
    }


def contestants(names: Sequence[str], work: float) -> dict[str, int]:
    """Returns the number of steps of each method that come to as many evaluations and backward passes as `work`."""
    each = {name: getattr(METHODS[name](), "repeats", 1) * PER_STEP.get(name, 1) for name in names}
    return {name: max(2, round(work / each[name])) for name in names}


def compare(model: Model, images: Tensor, name: str, task: Task, chosen: argparse.Namespace) -> tuple[Rows, list[Goal]]:
    """Returns the rows and goals of one task, and writes its picture."""
    tallies: dict[str, Tally] = {}
    pictures = []
    for number, image in enumerate(tqdm(images, desc=name, disable=None)):
        case = Case.of(image, task, example_seed(1, number))
        results = {DEFAULT: case.restored(model, "auto", chosen.n, seed=number, steps=chosen.steps)}
        if results[DEFAULT].diagnostics.method.name == LEARNED:
            results[GUIDED] = case.restored(model, GUIDED, chosen.n, seed=number, steps=chosen.steps)
        for other, steps in contestants(chosen.methods, work(results[DEFAULT])).items():
            with suppress(InputError):  # The method does not take such operators.
                results[other] = case.restored(model, other, chosen.n, seed=number, steps=steps)
        for who, found in results.items():
            tallies.setdefault(who, Tally()).add(**measured(case, found))
        if number < PICTURES:
            pictures.append(case.picture(results))
    figures.save_png(figures.stack(pictures), chosen.out.with_suffix("") / f"{name}.png", {"step": model.step})
    titles = {DEFAULT: LEARNED} if GUIDED in tallies else {}
    rows: Rows = [
        {"task": name, "method": titles.get(who, who)}
        | {column: present(tally.mean(column)) for column in tally.figures}
        for who, tally in tallies.items()
    ]
    return rows, goals(name, tallies)


def present(value: float) -> float | str:
    """Returns a figure, or a blank if it is not finite."""
    return value if math.isfinite(value) else ""


def goals(task: str, tallies: dict[str, Tally]) -> list[Goal]:
    """Returns the goals of the default against RePaint, or against DDNM where RePaint does not apply, and of learned
    restoration, if that is it, against guidance.
    """
    ours = tallies[DEFAULT]
    seconds = ours.mean(f"seconds, {VARIANTS} variants")
    found = [Goal(f"{task}: seconds of the default, {VARIANTS} variants", seconds, SECONDS, "at most")]
    rival = next((name for name in ("repaint", "ddnm") if name in tallies), None)
    if rival is not None:
        theirs = tallies[rival]
        found.append(
            Goal(
                f"{task}: PSNR of the default's mean, beside {rival}'s",
                ours.mean("PSNR of the mean"),
                theirs.mean("PSNR of the mean"),
            )
        )
        scores = ours.mean("energy score"), theirs.mean("energy score")
        found.append(Goal(f"{task}: energy score of the default, beside {rival}'s", *scores, "at most"))
        misses = [abs(tally.mean("coverage") - CONFIDENCE) for tally in (ours, theirs)]
        found.append(
            Goal(f"{task}: how far the default's coverage is from {CONFIDENCE:g}, beside {rival}'s", *misses, "at most")
        )
    if GUIDED in tallies:
        scores = ours.mean("energy score"), tallies[GUIDED].mean("energy score")
        found.append(Goal(f"{task}: energy score of the default, beside {GUIDED}'s", *scores, "at most"))
    return found


def held_out(model: Model, folder: Path, limit: int) -> Tensor:
    """Returns at most `limit` images, evenly spaced in a folder, in the model's shape: (N, C, H, W) in [0, 1]."""
    channels, height, width = model.spec.shape
    data = open_folder(folder, size=(height, width), pixel_format=PixelFormat(channels), min_images=1).evenly(limit)
    return data.batch(range(len(data)))[0].float() / model.spec.top


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__, "restoration")
    options.add_argument("run", type=Path, help="run folder of a model of images")
    options.add_argument("--data", type=Path, required=True, help="folder of held-out images")
    options.add_argument("--limit", type=int, default=16, help="images to damage")
    options.add_argument("--n", type=int, default=FEWEST, help="restorations of each image")
    options.add_argument("--steps", type=int, default=RESTORATION_STEPS, help="steps of the default")
    options.add_argument(
        "--methods", nargs="*", choices=COMPARABLE, default=list(COMPARED), help="methods to compare with"
    )
    options.add_argument("--tasks", nargs="*", default=[], help="kinds of damage; by default all")
    chosen = options.parse_args(arguments)
    if chosen.n < FEWEST:
        options.error(
            f"--n: must be at least {FEWEST}, the fewest with a {100 * CONFIDENCE:g} % interval, got {chosen.n}"
        )
    model = load(chosen.run, device="cpu")
    if min(model.spec.shape[1:]) < WINDOW:
        options.error(f"{chosen.run}: must be a model of images of at least {WINDOW}x{WINDOW}, got {model.spec.shape}")
    images = held_out(model, chosen.data, chosen.limit)
    rows: Rows = []
    bounds: list[Goal] = []
    height, width = images.shape[2:]
    for name, task in tasks(height, width).items():
        if not chosen.tasks or name in chosen.tasks:
            found, missed = compare(model, images, name, task, chosen)
            rows += found
            bounds += missed
    title = f"{len(images)} images of {height}x{width}, {chosen.n} restorations of each, {model.config.backbone}"
    common.finish(bounds, {title: rows}, chosen.out, check=chosen.check, values="means over the images")
    print(f"pictures: {chosen.out.with_suffix('')}")


if __name__ == "__main__":
    main()
