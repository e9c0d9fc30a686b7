"""What is lost by learning from images with holes.

    python -m benchmarks.damaged CONFIG --data FOLDER [--minutes 20] [--missing 0.3 0.6] [--laws boxes pixels]
                                 [--share 0.66] [--em ROUNDS] [--limit 48] [--n 19] [--steps 32]
                                 [--set SECTION.KEY=VALUE ...] [--judge DIR] [--again] [--out FILE] [--check]

The images of FOLDER are opened at the size of CONFIG. For each law (benchmarks/holes.py) and each share that is missing
of every image, copies of the training images are written as files with alpha. CONFIG is trained from scratch, with
observed.share = --share and for the same time, on

    complete   the images as they are, once for all laws and shares
    mean       the copies, with holes that are filled by the mean of what was seen of the image
    nearest    the copies, with holes that are filled by the nearest pixel that was seen
    ours       the copies as they are, with data.masks = "alpha"
    em         with --em: "ours", and then so many rounds of training.em, which take a time of their own

The columns are the steps and the minutes of training; the bound on complete held-out images, in bits/dim; that of what
is seen of the held-out images with holes, of the same pixels for all, in bits per seen dimension; the coverage of the
90 % intervals of --n completions of --limit of the copies, over the holes, whose truth is known; and with --judge, the
folder of the original files of Fashion-MNIST, the Fréchet distance of 2,000 samples from the training images
(benchmarks/judge.py), also of samples through the holes of the copies for what has learned from these. Its floor is
that of as many images of the test set.

Runs lie in a folder beside the JSON. Those that were finished with the same settings are not trained again unless
--again is given, so that the same command goes on. A picture for each law and share shows damaged images, completions
and the truth, and samples of every contestant.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import common, holes, judge, timed
from benchmarks.common import Goal, Rows
from diffusion import config, figures
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.data.observing import Given
from diffusion.errors import require
from diffusion.evaluation import evaluate
from diffusion.model import Model, load
from diffusion.model.completing import known_of
from diffusion.model.solving import RESTORATION_STEPS
from diffusion.progress import say
from diffusion.restoration.statistics import coverage, fewest
from diffusion.training import em
from diffusion.training.trainer import Trainer

COMPLETE, MEAN, NEAREST, OURS, EM = "complete", "mean", "nearest", "ours", "em"
# The contestants that are asked for completions of the copies.
COMPLETING = (COMPLETE, OURS, EM)
# The goals: the distance of ours beside that of complete images, by what is missing, and beside that of holes filled by
# the mean; and the coverage.
BESIDE_COMPLETE, BESIDE_MEAN, COVERAGE = {0.3: 1.25, 0.6: 2.0}, 0.5, (0.86, 0.93)
DISTANCE, COVERED, BITS, SEEN_BITS = "Fréchet distance", "coverage", "bits/dim", "bits/seen dim"
THROUGH = "Fréchet distance through holes"
CONFIDENCE = 0.9
SAMPLES, PICTURED, SHOWN, COLUMNS = 2000, 3, 4, 16
# Held-out images whose bound is measured.
MEASURED = 512
# Draws of one image have the number of the image plus multiples of this.
STRIDE = 2**32

Figures = dict[str, float | int]


@dataclass(frozen=True)
class Holed:
    """Images of one law and share: copies to learn from, by an experiment, and held-out images with holes."""

    law: str
    share: float
    experiment: Config
    training: Dataset
    held_out: Dataset

    @property
    def name(self) -> str:
        """The name of the folder and of the picture."""
        return f"{self.law}-{self.share:g}"


@dataclass(frozen=True)
class Bench:
    """What all contestants have in common: options, configuration, whole images, and a referee if there is one."""

    chosen: argparse.Namespace
    experiment: Config
    training: Dataset
    held_out: Dataset
    referee: judge.Referee | None = None

    @property
    def folder(self) -> Path:
        """The folder of the runs and the pictures."""
        return Path(self.chosen.out).with_suffix("")

    def holed(self, law: str, share: float) -> Holed:
        """Writes copies of the training images, and opens them as a run does."""
        seen = holes.masks(self.training, law, share, holes.TRAINING)
        folder = holes.write(self.training, seen, self.folder / f"{law}-{share:g}")
        named = ["data.source=folder", f"data.path={folder}", "data.masks=alpha"]
        experiment = config.override(self.experiment, named)
        copies = open_source(replace(experiment.data, held_out=0.0), say)
        held_out = replace(self.held_out, spec=copies.spec)
        masks = holes.masks(held_out, law, share, holes.HELD_OUT)
        return Holed(law, share, experiment, copies, holes.with_holes(held_out, masks))

    def trained(self, experiment: Config, data: Dataset, run: Path) -> tuple[Model, float]:
        """Trains a contestant; returns its model and the seconds that it took."""
        return timed.once(experiment, data, run, 60 * self.chosen.minutes, again=self.chosen.again)

    def contestants(self, holed: Holed) -> dict[str, tuple[Model, float]]:
        """Trains the contestants of a law and a share."""
        place, copies = self.folder / holed.name, holed.training
        found = {
            MEAN: self.trained(self.experiment, holes.mean_filled(copies), place / MEAN),
            NEAREST: self.trained(self.experiment, holes.nearest_filled(copies), place / NEAREST),
            OURS: self.trained(holed.experiment, copies, place / OURS),
        }
        if self.chosen.em:
            found[EM] = self.improved(holed, *found[OURS], place)
        return found

    def improved(self, holed: Holed, model: Model, seconds: float, place: Path) -> tuple[Model, float]:
        """Lets rounds of training.em follow "ours", in a copy of its run."""
        steps = self.experiment.training.em_steps or max(1, model.step // 2)
        given = [f"training.steps={model.step}", f"training.em={self.chosen.em}", f"training.em_steps={steps}"]
        experiment = config.override(holed.experiment, given)
        settings = {"config": config.to_dict(experiment), "minutes": self.chosen.minutes}

        def make() -> tuple[Model, float]:
            shutil.rmtree(place / EM, ignore_errors=True)
            shutil.copytree(place / OURS, place / EM)
            start = time.perf_counter()
            em.improve(experiment, place / EM, holed.training, holed.held_out, round_of)
            return load(place / EM), seconds + time.perf_counter() - start

        return timed.reused(place / EM, settings, make, again=self.chosen.again)

    def figures(self, name: str, model: Model, seconds: float, holed: Holed) -> Figures:
        """Returns the figures of a contestant."""
        bounds = (evaluate(model, each.evenly(MEASURED)) for each in (self.held_out, holed.held_out))
        found: Figures = {"steps": model.step, "minutes": seconds / 60}
        found |= {column: each.mean["total"] for column, each in zip((BITS, SEEN_BITS), bounds, strict=True)}
        if name in COMPLETING:
            found[COVERED] = self.covered(model, holed)
        if self.referee is not None:
            found[DISTANCE] = self.distance(self.referee, model)
            if name in (OURS, EM):
                numbers = np.random.default_rng(0).integers(len(holed.training), size=SAMPLES)
                found[THROUGH] = self.distance(self.referee, model, known_of(holed.training, numbers))
        return found

    def distance(self, referee: judge.Referee, model: Model, through: Tensor | None = None) -> float:
        """Returns the distance of samples, drawn `through` masks or as whole images."""
        samples = model.sample(SAMPLES, label=model.in_turn(SAMPLES), through=through, progress=True)
        return referee.distance(model.spec.quantize(samples))

    def covered(self, model: Model, holed: Holed) -> float:
        """Returns the share of the truth in the holes that the intervals of completions hold."""
        copies = holed.training.evenly(self.chosen.limit)
        draws, truth = completions(model, copies, self.chosen), self.truth(copies)
        seen = known_of(copies, range(len(copies)))
        held = torch.stack([coverage(draws[:, i], truth[i], confidence=CONFIDENCE) for i in range(len(copies))])
        return float(held[~seen.expand_as(held)].double().mean())

    def truth(self, copies: Dataset) -> Tensor:
        """Returns the images of which some are copies, (N, C, H, W) in [0, 1]."""
        values, _ = self.training.batch([holes.number_of(name) for name in copies.names])
        return values.float() / self.training.spec.top


def completions(model: Model, copies: Dataset, chosen: argparse.Namespace) -> Tensor:
    """Draws --n completions of each of some copies: (n, N, C, H, W) in [0, 1]."""
    complete = model.completing(chosen.n * len(copies), steps=chosen.steps)
    found = []
    for draw in tqdm(range(chosen.n), desc="completions", disable=None):
        parts = [
            complete(copies.subset(numbers), [draw * STRIDE + number for number in numbers])
            for numbers in torch.arange(len(copies)).split(complete.batch)
        ]
        found.append(torch.cat(parts))
    return torch.stack(found).float() / model.spec.top


def round_of(experiment: Config, run: Path, data: Dataset, given: Given) -> int:
    """Trains in a round of training.em."""
    trainer = Trainer(experiment, data, data.subset([]), run, given)
    for _ in tqdm(range(trainer.step, experiment.training.steps), desc=run.name):
        trainer.update(trainer.maker(trainer.step))
    trainer.save()
    return 0


def picture(bench: Bench, holed: Holed, models: Mapping[str, Model]) -> None:
    """Leaves a picture: some images damaged, completed and as they are, and samples of every contestant."""
    copies = holed.training.evenly(PICTURED)
    draws, truth = completions(models[OURS], copies, bench.chosen)[:SHOWN], bench.truth(copies)
    rows = []
    for i, seen in enumerate(known_of(copies, range(len(copies)))):
        damaged = torch.where(seen, truth[i], 0.5)
        rows.append(figures.restoration(damaged, draws[:, i], draws[:, i].std(0), known=seen, original=truth[i]))
    for name, model in models.items():
        x = model.sample(COLUMNS, label=model.in_turn(COLUMNS))
        rows.append(figures.captioned([(f"samples of {name}", figures.to_image(figures.tile(x, columns=COLUMNS)))]))
    info = {"law": holed.law, "missing": holed.share, "step": models[OURS].step}
    figures.save_png(figures.stack(rows), bench.folder / f"{holed.name}.png", info)


def goals(holed: str, share: float, found: Mapping[str, Figures]) -> list[Goal]:
    """Returns the goals of ours for the figures of all contestants of a law and a share."""
    ours, kept = found[OURS], []
    if DISTANCE in ours:
        beside = {name: ours[DISTANCE] / found[name][DISTANCE] for name in (COMPLETE, MEAN)}
        if share in BESIDE_COMPLETE:
            what = f"{holed}: {DISTANCE}, beside that of complete images"
            kept.append(Goal(what, beside[COMPLETE], BESIDE_COMPLETE[share], "at most"))
        kept.append(Goal(f"{holed}: {DISTANCE}, beside holes filled by the mean", beside[MEAN], BESIDE_MEAN, "at most"))
    low, high = COVERAGE
    what = f"{holed}: coverage of the holes"
    return [*kept, Goal(what, ours[COVERED], low), Goal(what, ours[COVERED], high, "at most")]


def options() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    found = common.parser(__doc__, "damaged")
    found.add_argument("config", type=Path, help="configuration of all networks")
    found.add_argument("--data", type=Path, required=True, help="folder of whole images, some of which are held out")
    found.add_argument("--minutes", type=float, default=20.0, help="minutes of training of each network")
    found.add_argument("--missing", type=float, nargs="*", default=[0.3, 0.6], help="shares that images lack")
    found.add_argument("--laws", nargs="*", choices=holes.LAWS, default=list(holes.LAWS), help="what is missing")
    found.add_argument("--share", type=float, default=0.66, help="observed.share of all networks")
    found.add_argument("--em", type=int, default=0, help="rounds of training.em that follow")
    found.add_argument("--limit", type=int, default=48, help="copies that are completed")
    found.add_argument("--n", type=int, default=fewest(CONFIDENCE), help="completions of each")
    found.add_argument("--steps", type=int, default=RESTORATION_STEPS, help="steps of a completion")
    found.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="other values of CONFIG")
    found.add_argument("--judge", type=Path, help="folder of the original files of Fashion-MNIST")
    found.add_argument("--again", action="store_true", help="train again what was trained with the same settings")
    return found


def bench_of(chosen: argparse.Namespace) -> Bench:
    """Opens the whole images, and trains the referee."""
    fixed = ["data.margin=0", "report.restored=0", f"observed.share={chosen.share}"]
    experiment = config.load(chosen.config, [f"data.path={chosen.data}", *chosen.set, *fixed])
    count = experiment.data.channels
    require(count in holes.CHANNELS, "data.channels", "1 or 3, beside which files have alpha", count)
    require(experiment.data.held_out > 0, "data.held_out", "above 0", experiment.data.held_out)
    dataset = open_source(experiment.data, say)
    referee = judge.Referee.of(chosen.judge, SAMPLES) if chosen.judge else None
    return Bench(chosen, experiment, *dataset.split(experiment.data.held_out, experiment.data.seed), referee)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options()
    chosen = parser.parse_args(arguments)
    if any(not 0 < share < 1 for share in chosen.missing):
        parser.error(f"--missing: must be between 0 and 1, got {chosen.missing}")
    if chosen.n < fewest(CONFIDENCE):
        rule = f"at least {fewest(CONFIDENCE)}, the fewest with a {100 * CONFIDENCE:g} % interval"
        parser.error(f"--n: must be {rule}, got {chosen.n}")
    bench = bench_of(chosen)
    whole = bench.trained(bench.experiment, bench.training, bench.folder / COMPLETE)
    rows: Rows = []
    bounds: list[Goal] = []
    for law in chosen.laws:
        for share in chosen.missing:
            holed = bench.holed(law, share)
            made = {COMPLETE: whole, **bench.contestants(holed)}
            found = {name: bench.figures(name, *each, holed) for name, each in made.items()}
            rows += [{"law": law, "missing": share, "trained on": name, **each} for name, each in found.items()]
            bounds += goals(holed.name, share, found)
            picture(bench, holed, {name: model for name, (model, _) in made.items()})
    floor = f", floor {bench.referee.floor:.3g}" if bench.referee else ""
    title = f"{len(bench.training):,} images of {'x'.join(map(str, bench.training.spec.shape[1:]))}{floor}"
    common.finish(bounds, {title: rows}, chosen.out, check=chosen.check, values="means over the images")
    print(f"pictures: {bench.folder}")


if __name__ == "__main__":
    main()
