"""A noise level for every pixel against guidance, after the same time of training on the same cores.

    python -m benchmarks.learned CONFIG --data FOLDER [--minutes 20] [--limit 48] [--n 19] [--share 0.66]
                                 [--operator OPERATOR --noise 0.05] [--tasks NAME ...] [--set SECTION.KEY=VALUE ...]
                                 [--judge DIR] [--runs DIR] [--out FILE] [--check]

CONFIG is trained twice on the images of FOLDER, each time from scratch until its time is up: as it is, and so that the
network learns to restore, with observed.share = --share or, with --operator, with that as condition.operator. With
--runs, DIR holds both runs already, in DIR/guided and DIR/learned. At most --limit held-out images, the same for all,
are then damaged as by benchmarks/restoration.py, by masks alone, or by the operator, and restored --n times each:

    guided     by the plain network with the package's default
    repaint    by the plain network with RePaint, in as many evaluations of the network as "guided" took; with
               --operator by DDNM
    learned    by the other network with the method "learned"

The columns are those of benchmarks/restoration.py. With --judge, the folder of the original files of Fashion-MNIST, the
samples of both networks are compared by their Fréchet distances from the training images (benchmarks/judge.py), each
with 2,000 samples. Pictures are left in a folder beside the JSON.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from benchmarks import common, judge, restoration, timed
from benchmarks.common import Goal, Rows
from benchmarks.posterior import Tally
from benchmarks.restoration import Case, Task
from diffusion import config, figures, operators
from diffusion.data import Dataset, open_source
from diffusion.model import Model, load
from diffusion.progress import say

GUIDED, REPAINT, DDNM, LEARNED = "guided", "repaint", "ddnm", "learned"
# The goals: the share of the seconds of guidance, the coverage of 90 % intervals, the seam, and the share of the
# plain network's Fréchet distance.
SECONDS, COVERAGE, SEAM, FRECHET = 0.2, (0.86, 0.93), (0.9, 1.1), 1.05
SAMPLES = 2000


def train(chosen: argparse.Namespace, folder: Path) -> tuple[dict[str, Model], Tensor]:
    """Returns both models, and the images to restore, (N, C, H, W) in [0, 1]."""
    overrides = [f"data.path={chosen.data}", *chosen.set]
    plain = config.load(chosen.config, overrides)
    dataset = open_source(plain.data, say)
    training, held_out = dataset.split(plain.data.held_out, plain.data.seed)
    models = {}
    for name, restores in ((GUIDED, []), (LEARNED, learning(chosen))):
        if chosen.runs:
            models[name] = load(chosen.runs / name, device="cpu")
            continue
        experiment = config.override(plain, restores)
        models[name], seconds = timed.train(experiment, training, folder / name, 60 * chosen.minutes)
        say(f"{name}: {models[name].step:,} steps in {seconds / 60:.1f} minutes")
    return models, images(held_out.evenly(chosen.limit))


def learning(chosen: argparse.Namespace) -> list[str]:
    """Returns the overrides of the configuration with which a network learns to restore."""
    if chosen.operator:
        return [f"condition.operator={chosen.operator}", f"condition.noise={chosen.noise}"]
    return [f"observed.share={chosen.share}"]


def images(dataset: Dataset) -> Tensor:
    """Returns all images of a dataset, (N, C, H, W) in [0, 1], without their margins."""
    return dataset.center(dataset.batch(range(len(dataset)))[0]).float() / dataset.spec.top


def damages(chosen: argparse.Namespace, height: int, width: int) -> dict[str, Task]:
    """Returns the kinds of damage to restore by their names: those that hide pixels, or the operator."""
    if chosen.operator:
        return {chosen.operator: Task(operators.parse(chosen.operator), chosen.noise)}
    found = {name: task for name, task in restoration.tasks(height, width).items() if task.known is not None}
    return {name: task for name, task in found.items() if not chosen.tasks or name in chosen.tasks}


def compare(models: dict[str, Model], x: Tensor, name: str, task: Task, chosen: argparse.Namespace) -> dict[str, Tally]:
    """Restores all images of one task by every contestant; returns their figures and leaves a picture of two images."""
    rival = REPAINT if task.known is not None else DDNM
    tallies, pictures = {who: Tally() for who in (GUIDED, rival, LEARNED)}, []
    for number, image in enumerate(tqdm(x, desc=name, disable=None)):
        case = Case.of(image, task, number)
        found = {GUIDED: case.restored(models[GUIDED], "auto", chosen.n, seed=number, steps=chosen.steps)}
        steps = restoration.contestants([rival], restoration.work(found[GUIDED]))[rival]
        found[rival] = case.restored(models[GUIDED], rival, chosen.n, seed=number, steps=steps)
        found[LEARNED] = case.restored(models[LEARNED], LEARNED, chosen.n, seed=number, steps=chosen.steps)
        for who, restored in found.items():
            tallies[who].add(**restoration.measured(case, restored))
        if number < restoration.PICTURES:
            pictures.append(case.picture(found))
    figures.save_png(figures.stack(pictures), chosen.out.with_suffix("") / f"{name}.png", {})
    return tallies


def goals(task: str, tallies: dict[str, Tally]) -> list[Goal]:
    """Returns the goals of the learned restorations of one task, beside guidance."""
    learned, guided = tallies[LEARNED], tallies[GUIDED]
    seconds = next(name for name in learned.figures if name.startswith("seconds"))
    coverage, seam = learned.mean("coverage"), learned.mean("seam")
    seams = [Goal(f"{task}: seam", seam, SEAM[0]), Goal(f"{task}: seam", seam, SEAM[1], "at most")]
    return [
        Goal(f"{task}: seconds, beside guidance", learned.mean(seconds) / guided.mean(seconds), SECONDS, "at most"),
        *(
            Goal(f"{task}: {column}, beside guidance", learned.mean(column), guided.mean(column), *most)
            for column, most in (("PSNR of the mean", ()), ("energy score", ("at most",)))
        ),
        Goal(f"{task}: coverage", coverage, COVERAGE[0]),
        Goal(f"{task}: coverage", coverage, COVERAGE[1], "at most"),
        *([] if math.isnan(seam) else seams),
    ]


def distances(models: dict[str, Model], data: Path) -> tuple[Rows, list[Goal]]:
    """Returns the Fréchet distances of the samples of both networks from the training images of Fashion-MNIST."""
    real = judge.Images.read(data, "train")
    referee = judge.train(real)
    features = referee.features(real.values)
    found = {}
    for name, model in models.items():
        samples = model.spec.quantize(model.sample(SAMPLES, progress=True))
        found[name] = judge.frechet(referee.features(samples), features)
    rows: Rows = [{"network": name, "Fréchet distance": value} for name, value in found.items()]
    ratio = found[LEARNED] / found[GUIDED]
    return rows, [Goal("Fréchet distance of samples, beside the plain network", ratio, FRECHET, "at most")]


def main(arguments: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__, "learned")
    options.add_argument("config", type=Path, help="configuration of both networks")
    options.add_argument("--data", type=Path, required=True, help="folder of images, some of which are held out")
    options.add_argument("--minutes", type=float, default=20.0, help="minutes of training of each network")
    options.add_argument("--limit", type=int, default=48, help="held-out images to damage")
    options.add_argument("--n", type=int, default=restoration.FEWEST, help="restorations of each image")
    options.add_argument("--steps", type=int, default=restoration.RESTORATION_STEPS, help="steps of a restoration")
    options.add_argument(
        "--share", type=float, default=0.66, help="observed.share of the network that learns to restore"
    )
    options.add_argument("--operator", default="", help="operator that the network learns, instead of masks")
    options.add_argument("--noise", type=float, default=0.0, help="noise on what the operator makes")
    options.add_argument("--tasks", nargs="*", default=[], help="kinds of damage; by default all")
    options.add_argument("--runs", type=Path, help="folder of both runs, where they were trained already")
    options.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="other values of CONFIG")
    options.add_argument("--judge", type=Path, help="folder of the original files of Fashion-MNIST")
    chosen = options.parse_args(arguments)
    shape = config.load(chosen.config, chosen.set).data.shape
    if min(shape) < restoration.WINDOW:
        rule = f"must be of images of at least {restoration.WINDOW}x{restoration.WINDOW}"
        options.error(f"{chosen.config}: {rule}, got {shape}")
    models, x = train(chosen, chosen.out.with_suffix(""))
    rows: Rows = []
    bounds: list[Goal] = []
    for name, task in damages(chosen, *x.shape[2:]).items():
        tallies = compare(models, x, name, task, chosen)
        rows += [
            {
                "task": name,
                "method": who,
                **{column: restoration.present(tally.mean(column)) for column in tally.figures},
            }
            for who, tally in tallies.items()
        ]
        bounds += goals(name, tallies)
    tables = {f"{len(x)} images of {x.shape[2]}x{x.shape[3]}, {chosen.n} restorations of each": rows}
    if chosen.judge:
        tables["Samples"], found = distances(models, chosen.judge)
        bounds += found
    common.finish(bounds, tables, chosen.out, check=chosen.check, values="means over the images")
    print(f"pictures: {chosen.out.with_suffix('')}")


if __name__ == "__main__":
    main()
