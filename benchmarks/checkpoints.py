"""Whether distances without downloaded weights put the checkpoints of a training in order.

    python -m benchmarks.checkpoints CONFIG --data FOLDER --judge DIR [--steps 20 50 120 300 700 1500] [--samples 500]
                                     [--set SECTION.KEY=VALUE ...] [--out FILE] [--check]

CONFIG is trained once on the images of FOLDER, which are as those of Fashion-MNIST: 28x28, gray, in ten classes. At
each of --steps the averaged weights draw --samples samples, which are compared with as many held-out images by

    the distances of patches (`diffusion evaluate --quality` without weights)
    the kernel distance and the Fréchet distance of a judge's features

The judge is the classifier of benchmarks/judge.py. DIR has its weights, as benchmarks/quality.py leaves them; else it
is trained on the training images of FOLDER and left there. Two distances disagree on a pair of checkpoints that they
order differently; they do so clearly where each has a difference larger than both half widths of its 95 % intervals
together. The goal is that no distance of patches disagrees clearly with the judge's Fréchet distance.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks import common, judge, quality
from benchmarks.common import Goal, Rows
from benchmarks.judge import Images, Judge
from diffusion import config, figures
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.distances import FEATURE_DISTANCES, IMAGE_DISTANCES, Comparison, Distance, compare
from diffusion.evaluation.intervals import CONFIDENCE
from diffusion.model import Model
from diffusion.progress import say
from diffusion.training.trainer import Trainer

STEPS, SAMPLES = (20, 50, 120, 300, 700, 1500), 500
# The distances of features that are measured.
BY_JUDGE = ("kernel", "frechet")
REFERENCE = "frechet"
TAU = "Kendall's τ with the judge's Fréchet distance"
SHOWN = 10

# The comparisons of all checkpoints by the name of a distance.
Found = Mapping[str, Sequence[Comparison]]


def checkpoints(experiment: Config, training: Dataset, run: Path, steps: Sequence[int]) -> Iterator[Model]:
    """Trains from scratch and yields the model with averaged weights at each of the steps."""
    shutil.rmtree(run, ignore_errors=True)
    trainer = Trainer(experiment, training, training.subset([]), run)
    with tqdm(total=max(steps), desc="training") as bar:
        while trainer.step < max(steps):
            trainer.update(trainer.maker(trainer.step))
            bar.update()
            if trainer.step in steps:
                yield trainer.model


def images(dataset: Dataset) -> Tensor:
    """Returns all images of a dataset, (N, C, H, W) uint8, without their margins."""
    return dataset.center(dataset.batch(range(len(dataset)))[0])


def judge_of(folder: Path, training: Dataset) -> Judge:
    """Returns the judge of a folder, or one that is trained on labeled images and left there."""
    path = folder / quality.JUDGE
    if path.exists():
        found = Judge()
        found.load_state_dict(load_file(path))
        return found.eval()
    assert training.labels is not None
    found = judge.train(Images(images(training), torch.from_numpy(training.labels)))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(found.state_dict(), path)
    return found


def distances() -> dict[str, Distance]:
    """The distances that are measured, those of patches first."""
    by_judge = {name: FEATURE_DISTANCES[name]() for name in BY_JUDGE}
    return {**{name: kind() for name, kind in IMAGE_DISTANCES.items()}, **by_judge}


def measure(samples: Tensor, real: Tensor, referee: Judge) -> dict[str, Comparison]:
    """Compares samples (N, C, H, W) uint8 with real images (M, C, H, W) uint8 by all distances."""
    found = {}
    for name, distance in distances().items():
        of_features = name in BY_JUDGE
        rows = [distance.describe(referee.features(x) if of_features else x.float() / 255) for x in (samples, real)]
        found[name] = compare(distance, *rows, confidence=CONFIDENCE)
    return found


def ranks(found: Sequence[Comparison]) -> list[int]:
    """The ranks of checkpoints by a distance, from 1 for the smallest."""
    order = sorted(range(len(found)), key=lambda i: found[i].value.value)
    return [order.index(i) + 1 for i in range(len(found))]


def agreement(first: Sequence[Comparison], second: Sequence[Comparison]) -> tuple[float, int]:
    """Kendall's τ of two distances over the pairs of checkpoints, and the number of pairs that they clearly order
    differently.
    """
    pairs = list(itertools.combinations(range(len(first)), 2))
    signs = [sign(each, i, j) for each in (first, second) for i, j in pairs]
    ours, theirs = signs[: len(pairs)], signs[len(pairs) :]
    tau = sum(a * b for a, b in zip(ours, theirs, strict=True)) / len(pairs)
    clear = [clearly(first, i, j) and clearly(second, i, j) for i, j in pairs]
    return tau, sum(a * b < 0 and sure for a, b, sure in zip(ours, theirs, clear, strict=True))


def sign(found: Sequence[Comparison], i: int, j: int) -> int:
    """Which of two checkpoints has the larger distance: 1, -1, or 0 for equal ones."""
    difference = found[i].value.value - found[j].value.value
    return (difference > 0) - (difference < 0)


def clearly(found: Sequence[Comparison], i: int, j: int) -> bool:
    """Whether the distances of two checkpoints differ by more than both half widths together."""
    a, b = found[i].value, found[j].value
    return abs(a.value - b.value) > a.half_width + b.half_width


def rows_of(steps: Sequence[int], found: Found) -> Rows:
    """A row for each checkpoint: by every distance its value, with the interval, and its rank."""
    rows: Rows = []
    for number, step in enumerate(steps):
        row: dict[str, object] = {"step": step}
        for name, each in found.items():
            value = each[number].value
            row[name] = f"{value.value:.3g} ± {value.half_width:.2g} ({ranks(each)[number]})"
        rows.append(row)
    floors = {name: f"{each[-1].floor.value:.3g} ± {each[-1].floor.half_width:.2g}" for name, each in found.items()}
    return [*rows, {"step": "floor", **floors}]


def goals_of(found: Found) -> tuple[list[Goal], Rows]:
    """The goals, and a row for each distance: Kendall's τ with the reference, and the clear disagreements."""
    goals, rows = [], []
    for name, each in found.items():
        tau, clear = agreement(each, found[REFERENCE])
        rows.append({"distance": name, TAU: tau, "clear disagreements": clear})
        if name in IMAGE_DISTANCES:
            goals.append(Goal(f"clear disagreements of {name} with the judge", clear, 0, "at most"))
    return goals, rows


def main() -> None:
    options = common.parser(__doc__, "checkpoints")
    options.add_argument("config", type=Path)
    options.add_argument("--data", type=Path, required=True, help="folder of images in ten classes")
    options.add_argument("--judge", type=Path, required=True, help="folder of the judge, or where it is left")
    options.add_argument("--steps", type=int, nargs="+", default=STEPS)
    options.add_argument("--samples", type=int, default=SAMPLES)
    options.add_argument("--set", nargs="*", default=[], help="overrides of the configuration")
    chosen = options.parse_args()
    folder: Path = chosen.out.with_suffix("")
    found = measured(chosen, folder)
    goals, agreements = goals_of(found)
    title = f"{chosen.samples:,} samples of each checkpoint: value ± {CONFIDENCE:.0%} (rank)"
    tables = {title: rows_of(sorted(chosen.steps), found), "agreement": agreements}
    common.finish(goals, tables, chosen.out, check=chosen.check, values="one run")


def measured(chosen: argparse.Namespace, folder: Path) -> Found:
    """Trains, and returns the comparisons of all checkpoints by distance; pictures of samples are left in a folder."""
    overrides = [f"data.path={chosen.data}", "data.labels=true", f"training.steps={max(chosen.steps)}", *chosen.set]
    experiment = config.load(chosen.config, overrides)
    training, held_out = open_source(experiment.data, say).split(experiment.data.held_out, experiment.data.seed)
    referee, real = judge_of(chosen.judge, training), images(held_out.evenly(2 * chosen.samples))
    found: dict[str, list[Comparison]] = {name: [] for name in distances()}
    for model in checkpoints(experiment, training, folder / "run", chosen.steps):
        x = quality.draw(model, chosen.samples)
        figures.save_png(figures.draw(x[:SHOWN]), folder / f"step-{model.step:05d}.png", {})
        for name, each in measure(quality.eight_bit(x), real, referee).items():
            found[name].append(each)
        tqdm.write(f"step {model.step}: " + ", ".join(f"{name} {each[-1].value}" for name, each in found.items()))
    return found


if __name__ == "__main__":
    main()
