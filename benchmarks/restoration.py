"""What methods of restoration make of a trained model's images: fidelity, coverage, seams, seconds.

    python -m benchmarks.restoration RUN --data FOLDER [--limit 16] [--n 19] [--methods ...] [--check] [--out FILE]

FOLDER holds images that the model was not trained on, of which --limit, spread evenly over it, are damaged: a box of
half the side in the middle hidden, the right half, 92 % of the pixels at random; four times downsampled, blurred, the
last two with noise. n restorations of each by every method give the PSNR and SSIM of their mean, the coverage of their
90 % intervals (over hidden pixels, or all of them; 19 are the fewest that have such intervals), and the seam, how much
more pixels differ across the edge of a mask than in the original. The default takes --steps steps; all others take as
many calls of the network as it did in all, a backward pass counting as a call and a repeat of RePaint as a step.

A figure per task is left in a folder beside the JSON.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks import common
from benchmarks.common import Goal, Rows
from benchmarks.posterior import Counted, Tally
from benchmarks.similarity import psnr, ssim
from diffusion import figures
from diffusion.data import open_folder
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.operators import Downsample, GaussianBlur, Mask, Operator
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.restoration import METHODS, Method, Observation, restore
from diffusion.restoration.methods import default
from diffusion.restoration.statistics import coverage, seam

COMPARED = ("repaint", "replacement", "ddnm", "product", "pigdm")
DEFAULT = "default"
# Of images in [0, 1], where an operator averages.
NOISE = 0.05
LEVEL, VARIANTS, SECONDS = 0.9, 8, 60.0
SHOWN, PICTURES = 4, 2
# Calls and backward passes of a step, where they are not one.
PER_STEP = {"zero": 2, "pigdm": 2, "tmpd": 3, "dps": 3}


@dataclass(frozen=True)
class Task:
    """A kind of damage: the operator and the noise of what is seen, in units of images."""

    operator: Operator
    noise: float = 0.0

    @property
    def known(self) -> Tensor | None:
        """Of a mask, what is known."""
        return self.operator.known if isinstance(self.operator, Mask) else None


def tasks(height: int, width: int) -> dict[str, Task]:
    """The damages of images of that size; x4 only for sides that 4 divides."""
    box, half = (torch.ones(1, height, width, dtype=torch.bool) for _ in range(2))
    box[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = False
    half[:, :, width // 2 :] = False
    random = torch.rand(1, height, width, generator=torch.Generator().manual_seed(0)) < 0.08
    found = {"box": Task(Mask(box)), "half": Task(Mask(half)), "random": Task(Mask(random))}
    if height % 4 == 0 == width % 4:
        found["x4"] = Task(Downsample(4), NOISE)
    # More than twice as wide as the 3 pixels of 256 in the tables of papers.
    return {**found, "blur": Task(GaussianBlur(min(height, width) / 32), NOISE)}


@dataclass(frozen=True)
class Case:
    """An image (C, H, W) in [0, 1] as a task shows it: y in the model's units, and its noise there."""

    image: Tensor
    task: Task
    seen: Observation

    @classmethod
    def of(cls, model: Model, image: Tensor, task: Task, seed: int) -> Case:
        """With the noise of that seed."""
        image = image.to(model.device)
        y = task.operator(model.spec.standardize(image)[None])
        level = task.noise * model.spec.top / model.spec.std
        return cls(image, task, Observation(task.operator, y + level * ExampleNoise([seed])(y), level))

    def damaged(self, model: Model) -> Tensor:
        """As a picture of the size of the image: gray where nothing is known."""
        y = model.spec.decode(self.seen.y[0])
        if self.task.known is not None:
            return torch.where(self.task.known, y, 0.5)
        rows, columns = (mine // seen for mine, seen in zip(self.image.shape[1:], y.shape[1:], strict=True))
        return y.repeat_interleave(rows, 1).repeat_interleave(columns, 2)


@dataclass(frozen=True)
class Restored:
    """Restorations (n, C, H, W) in [0, 1] of 8 bits, and what they took."""

    x: Tensor
    calls: int
    backward: int
    seconds: float

    @property
    def work(self) -> int:
        """Calls of the network and backward passes through it, for a batch of n."""
        return self.calls + self.backward


def run(model: Model, case: Case, method: Method, steps: int, n: int, seed: int) -> Restored:
    """n restorations in that many steps. The image may be larger than the model's where its network does not mind."""
    randn = ExampleNoise([example_seed(seed, i) for i in range(n)])
    denoiser = Counted(model.guided())
    times = model.config.grid(model.denoiser.schedule, steps)
    noise = randn(case.image.expand(n, *case.image.shape))
    start = time.perf_counter()
    x = restore(denoiser, case.seen, noise, times, method=method, randn=randn).x
    seconds = time.perf_counter() - start
    levels = model.spec.quantize(model.spec.decode(x)).float() / model.spec.top
    if case.task.known is not None:
        levels = torch.where(case.task.known, case.image, levels)
    return Restored(levels, denoiser.calls, denoiser.backward, seconds)


def measured(case: Case, found: Restored) -> dict[str, float]:
    """The figures of one image."""
    mean, known = found.x.mean(0, keepdim=True), case.task.known
    covered = coverage(found.x, case.image, level=LEVEL)
    return {
        "PSNR of the mean": float(psnr(mean, case.image[None])),
        "SSIM of the mean": float(ssim(mean, case.image[None])),
        "coverage": float(covered.mean() if known is None else covered[~known.expand_as(case.image)].mean()),
        "seam": math.nan if known is None else float(seam(found.x, known, case.image).mean()),
        "std": float(found.x.std(0).mean()),
        "calls": found.calls,
        "backward": found.backward,
        f"seconds, {VARIANTS} variants": found.seconds * VARIANTS / len(found.x),
    }


def contestants(names: Sequence[str], work: int) -> dict[str, tuple[Method, int]]:
    """The methods, each with the steps that come to that much work."""
    methods = {name: METHODS[name]() for name in names}
    each = {name: getattr(method, "repeats", 1) * PER_STEP.get(name, 1) for name, method in methods.items()}
    return {name: (method, max(2, round(work / each[name]))) for name, method in methods.items()}


def compare(model: Model, images: Tensor, name: str, task: Task, chosen: argparse.Namespace) -> tuple[Rows, list[Goal]]:
    """The rows, the goals and the figure of one task."""
    tallies: dict[str, Tally] = {}
    pictures = []
    for number, image in enumerate(tqdm(images, desc=name, disable=None)):
        case = Case.of(model, image, task, example_seed(1, number))
        best = run(model, case, default(case.seen), chosen.steps, chosen.n, number)
        results = {DEFAULT: best}
        for other, (method, steps) in contestants(chosen.methods, best.work).items():
            try:
                results[other] = run(model, case, method, steps, chosen.n, number)
            except InputError:
                continue  # Not for such operators.
        for who, found in results.items():
            tallies.setdefault(who, Tally()).add(**measured(case, found))
        if number < PICTURES:
            pictures.append(picture(model, case, results))
    figures.save_png(figures.stack(pictures), chosen.out.with_suffix("") / f"{name}.png", {"step": model.step})
    rows: Rows = [
        {"task": name, "method": who, **{column: tally.mean(column) for column in tally.figures}}
        for who, tally in tallies.items()
    ]
    return rows, goals(name, tallies)


def picture(model: Model, case: Case, results: dict[str, Restored]) -> Image.Image:
    """A row for each method: its name, what is damaged, restorations, their mean and deviation, and the original."""
    known = torch.zeros(1, *case.image.shape[1:]) if case.task.known is None else case.task.known
    rows = [
        figures.captioned(
            [(f"{name}, {found.work} calls",
              figures.restoration(case.image, known, found.x[:SHOWN], found.x.std(0), case.damaged(model)))]
        )
        for name, found in results.items()
    ]  # fmt: skip
    return figures.stack(rows)


def goals(task: str, tallies: dict[str, Tally]) -> list[Goal]:
    """The default against RePaint, where that can be used, otherwise DDNM."""
    ours = tallies[DEFAULT]
    seconds = ours.mean(f"seconds, {VARIANTS} variants")
    found = [Goal(f"{task}: seconds of the default, {VARIANTS} variants", seconds, SECONDS, "at most")]
    rival = next((name for name in ("repaint", "ddnm") if name in tallies), None)
    if rival is not None:
        theirs = tallies[rival]
        found.append(
            Goal(f"{task}: PSNR of the default's mean", ours.mean("PSNR of the mean"), theirs.mean("PSNR of the mean"))
        )
        misses = [abs(tally.mean("coverage") - LEVEL) for tally in (ours, theirs)]
        found.append(Goal(f"{task}: coverage of the default less {LEVEL:g}, against {rival}", *misses, "at most"))
    return found


def held_out(model: Model, folder: Path, limit: int) -> Tensor:
    """Images spread evenly over a folder, as the model takes them: (N, C, H, W) in [0, 1]."""
    channels, height, width = model.spec.shape
    data = open_folder(folder, size=(height, width), channels=channels, min_images=1)
    chosen = torch.linspace(0, len(data) - 1, min(limit, len(data))).round().long().tolist()
    return data.batch(chosen)[0].float() / model.spec.top


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__, "restoration")
    options.add_argument("run", type=Path, help="run folder of a model of images")
    options.add_argument("--data", type=Path, required=True, help="folder of held-out images")
    options.add_argument("--limit", type=int, default=16, help="images")
    options.add_argument("--n", type=int, default=19, help="restorations of each image, at least 19")
    options.add_argument("--steps", type=int, default=32, help="of the default")
    options.add_argument("--methods", nargs="*", choices=METHODS, default=list(COMPARED), help="to compare with")
    options.add_argument("--tasks", nargs="*", default=[], help="by default all")
    chosen = options.parse_args(arguments)
    model = load(chosen.run, device="cpu")
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
    print(f"figures: {chosen.out.with_suffix('')}")


if __name__ == "__main__":
    main()
