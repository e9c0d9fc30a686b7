"""Fine-tuning against training from scratch, after the same time on the same cores.

    python -m benchmarks.finetune RUN_OR_CONFIG [--data FOLDER] [--minutes 1 ...] [--lr 0.3]
                                  [--set SECTION.KEY=VALUE ...] [--out FILE] [--check]

The source is a run, or a configuration such as configs/digits.toml, which is trained first, for its own steps. A
network of the same kind is then trained on the images of FOLDER for each of the --minutes twice: with new weights, and
from the averaged weights of the source (training.init) at --lr times the learning rate. Both learn from the same images
and are measured on the same held-out ones; each keeps its units, which bits/dim do not depend on.

Without --data 200 letters are drawn in the size and the channels of the source, 20 of each of ten. Fine-tuning has to
be better by more than both 95 % intervals together. The last column has the difference image by image, whose interval
is narrower, as the spread between images cancels.
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from benchmarks import common, timed
from benchmarks.common import Goal, Rows
from diffusion import config
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.evaluation import Evaluation, evaluate
from diffusion.evaluation.intervals import estimate
from diffusion.model import load
from diffusion.progress import say
from diffusion.training.beginning import in_units_of_init

SCRATCH, TUNED = "from scratch", "fine-tuned"
LETTERS, EACH = string.ascii_uppercase[:10], 20
# Letters are drawn so many times larger, and have the gray levels of the digits of scikit-learn.
LARGER, LEVELS = 8, 17
# The share of the images that is held out, of so few.
HELD_OUT = 0.25


def letters(folder: Path, side: int, channels: int) -> Path:
    """Draws letters of different sizes, places, slants and brightness into subfolders, and returns the folder."""
    generator, large = np.random.default_rng(0), side * LARGER
    for letter in LETTERS:
        (folder / letter).mkdir(parents=True, exist_ok=True)
        for number in range(EACH):
            size, turn, bright = generator.uniform(0.8, 1.1), generator.uniform(-15, 15), generator.uniform(0.7, 1)
            place = tuple(large / 2 + generator.uniform(-0.6, 0.6, 2) * LARGER)
            picture = Image.new("L", (large, large))
            font = ImageFont.load_default(size * large)
            ink = round(255 * bright)
            ImageDraw.Draw(picture).text(place, letter, fill=ink, font=font, anchor="mm", stroke_width=large // 24)
            picture = picture.rotate(turn, Image.Resampling.BICUBIC).resize((side, side), Image.Resampling.BOX)
            step = 255 / (LEVELS - 1)
            values = (np.round(np.asarray(picture) / step) * step).astype(np.uint8)
            kind = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
            Image.fromarray(values).convert(kind).save(folder / letter / f"{number:02d}.png")
    return folder


def source(chosen: argparse.Namespace, folder: Path) -> Path:
    """Returns the run to begin from: that of the options, or one that is trained by their configuration."""
    if chosen.source.is_dir():
        return Path(chosen.source)
    experiment = config.load(chosen.source, chosen.set)
    training, _ = open_source(experiment.data, say).split(experiment.data.held_out, experiment.data.seed)
    model, seconds = timed.train(experiment, training, folder / "source")
    say(f"source: {model.step:,} steps in {seconds / 60:.1f} minutes")
    return folder / "source"


def experiments(run: Path, chosen: argparse.Namespace, folder: Path) -> dict[str, Config]:
    """Returns what is trained on the images, by the network, the schedule and the training of a run."""
    model = load(run, device="cpu")
    side, channels = min(model.spec.shape[1:]), model.spec.shape[0]
    data = chosen.data or letters(folder / "letters", side, channels)
    labels = any(each.is_dir() for each in Path(data).iterdir())
    options = replace(
        model.config.data, source="folder", path=str(data), labels=labels, masks="", held_out=HELD_OUT, min_images=2
    )
    training = replace(model.config.training, init="", patience=0, em=0)
    values = [value for value in chosen.set if not value.startswith("data.")]  # These are of the source.
    plain = config.override(replace(model.config, data=options, training=training), values)
    tuned = replace(plain.training, init=str(run), lr=chosen.lr * plain.training.lr)
    return {SCRATCH: plain, TUNED: replace(plain, training=tuned)}


def compare(each: dict[str, Config], minutes: float, folder: Path) -> tuple[Rows, Goal]:
    """Trains both for some minutes; returns their rows, and the goal for what fine-tuning gains."""
    dataset = open_source(each[SCRATCH].data, say)
    found: dict[str, Evaluation] = {}
    rows: Rows = []
    for name, experiment in each.items():
        run = folder / f"{name.replace(' ', '-')}-{minutes:g}"
        training, held_out = split(in_units_of_init(dataset, experiment, folder / "none"), experiment)
        model, _ = timed.train(experiment, training, run, 60 * minutes)
        found[name] = evaluate(model, held_out, progress=True)
        total = found[name].terms["total"]
        rows.append({"weights": name, "steps": model.step, found[name].unit: total.mean, "± 95 %": total.half_width})
    gain = difference(found[SCRATCH], found[TUNED])
    rows[1]["better by"] = gain
    return rows, goal(found[SCRATCH], found[TUNED], minutes)


def split(dataset: Dataset, experiment: Config) -> tuple[Dataset, Dataset]:
    """Returns the images to learn from, and those that are held out."""
    return dataset.split(experiment.data.held_out, experiment.data.seed)


def difference(before: Evaluation, after: Evaluation) -> str:
    """Says by how much the images of one evaluation are better than those of another, with the 95 % interval."""
    return str(estimate(torch.tensor(before.values).double() - torch.tensor(after.values).double(), {}))


def goal(scratch: Evaluation, tuned: Evaluation, minutes: float) -> Goal:
    """Returns the goal that fine-tuning is better by more than both intervals together."""
    one, two = (each.terms["total"] for each in (scratch, tuned))
    widths = (one.half_width or 0.0) + (two.half_width or 0.0)
    return Goal(f"{minutes:g} minutes: gain of fine-tuning, {scratch.unit}", one.mean - two.mean, widths)


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__, "finetune")
    options.add_argument("source", type=Path, help="run to begin from, or configuration by which one is trained")
    options.add_argument("--data", type=Path, help="folder of images; without it letters are drawn")
    options.add_argument("--minutes", type=float, nargs="+", default=[1.0], help="minutes of training of each network")
    options.add_argument("--lr", type=float, default=0.3, help="share of the learning rate with which is fine-tuned")
    options.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="other values; those of data are of the source",
    )
    chosen = options.parse_args(arguments)
    folder = chosen.out.with_suffix("")
    each = experiments(source(chosen, folder), chosen, folder)
    tables, goals = {}, []
    for minutes in chosen.minutes:
        tables[f"{minutes:g} minutes on {each[SCRATCH].data.path}"], found = compare(each, minutes, folder)
        goals.append(found)
    common.finish(goals, tables, chosen.out, check=chosen.check, values="held-out images, ± half a 95 % interval")


if __name__ == "__main__":
    main()
