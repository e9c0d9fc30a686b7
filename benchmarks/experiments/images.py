"""The likelihood of 8-bit images after a given time of training: CIFAR-10 (table 1 of the paper), Fashion-MNIST, and
crops of photographs.

The bound is on the probability of the 8-bit image itself. It is measured on all test images, each at a few noise
levels. The probability flow is solved for a few of them, dequantized by the noise of the clean end, which these models
allow because they are trained with Fourier features of the gray levels. K and K - L_null are the same numbers in the
unit of the paper (diffusion/likelihood/units.py), whose 5.4 bits/pixel on CIFAR-10 are 4.20 bits/dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import cifar, quality, timed
from benchmarks.common import Goal, Rows
from benchmarks.experiments import pictures
from benchmarks.experiments.setting import Outcome, Setting
from benchmarks.judge import Images
from diffusion import config, figures
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.evaluation import BoundEstimator, FlowEstimator, LikelihoodEvaluation, evaluate

CIFAR10, FASHION = Path("configs/cifar10_likelihood.toml"), Path("configs/fashion_mnist_likelihood.toml")
PHOTOGRAPHS = Path("configs/photographs_likelihood.toml")
# Crops of photographs that are measured.
CROPS = 4000
# Noise levels of each test image; the number of images whose flow is solved, and its estimator.
DRAWS, FLOWS = 4, 32
FLOW = FlowEstimator(probes=2, tolerance=1e-3, dequantization="noise")
SAMPLES, ROWS = 64, 4
PUBLISHED: tuple[Mapping[str, object], ...] = (
    {"model": "Sohl-Dickstein et al. 2015", "bits/dim": 4.20, "K, bits/pixel": 5.4, "K − L_null": 11.5},
    {"model": "Ho et al. 2020", "bits/dim": 3.70},
    {"model": "Kingma et al. 2021", "bits/dim": 2.65},
)
# The bits/dim to reach on CIFAR-10, by the minutes of training.
GOALS = {10.0: 4.20, 90.0: 3.5}


def row(name: str, found: LikelihoodEvaluation) -> dict[str, object]:
    """Returns the row of the table for an evaluation."""
    return {
        "model": f"{name}, {found.method}",
        "bits/dim": found.terms["total"],
        "K, bits/pixel": found.k["K"],
        "K − L_null": found.k["K - L_null"],
        "images": found.examples,
    }


def measure(
    setting: Setting, name: str, experiment: Config, data: Dataset, held_out: Dataset
) -> tuple[LikelihoodEvaluation, Rows]:
    """Trains an experiment, writes its figures, and returns the bound and the rows of the table."""
    model, seconds = timed.train(experiment, data, setting.folder / name, setting.seconds)
    bound = evaluate(model, held_out, method=BoundEstimator(draws=DRAWS), progress=True)
    flow = evaluate(model, held_out, method=FLOW, limit=FLOWS, progress=True)
    figures.save_png(figures.draw(quality.draw(model, SAMPLES)), setting.folder / f"{name}.png", {"step": model.step})
    pictures.record(model, model.spec.encode(held_out.batch(range(ROWS))[0]), setting.folder, name)
    return bound, [row("ours", bound) | {"steps": model.step, "seconds": seconds}, row("ours", flow)]


def of_images(
    setting: Setting, name: str, path: Path, train: Images, test: Images
) -> tuple[LikelihoodEvaluation, Rows]:
    """Measures the experiment whose configuration is at `path`, on images in memory."""
    experiment = config.load(path)
    data, held_out = (quality.dataset(images, labels=experiment.data.labels) for images in (train, test))
    return measure(setting, name, experiment, data, held_out)


def cifar10(setting: Setting) -> Outcome:
    """Runs the experiment on CIFAR-10."""
    data = setting.source("the folder of CIFAR-10, its binary version or a zip of images")
    bound, rows = of_images(setting, "cifar10", CIFAR10, cifar.read(data, "train"), cifar.read(data, "test"))
    return {f"CIFAR-10, test images, {setting.minutes:g} minutes of training": [*rows, *map(dict, PUBLISHED)]}, [
        Goal(f"CIFAR-10: bits/dim after {minutes:g} minutes", bound.mean["total"], limit, "at most")
        for minutes, limit in GOALS.items()
        if setting.minutes >= minutes
    ]


def fashion(setting: Setting) -> Outcome:
    """Runs the experiment on Fashion-MNIST."""
    data = setting.source("the folder of the four .gz files of Fashion-MNIST")
    _, rows = of_images(setting, "fashion", FASHION, Images.read(data, "train"), Images.read(data, "t10k"))
    return {f"Fashion-MNIST, test images, {setting.minutes:g} minutes of training": rows}, []


def photographs(setting: Setting) -> Outcome:
    """Runs the experiment on random crops of photographs, measured on crops of other photographs."""
    folder = setting.source("a folder of photographs, with the folders train and test in it")
    experiment = config.load(PHOTOGRAPHS)
    experiment = replace(experiment, data=replace(experiment.data, path=str(folder / "train")))
    others = replace(experiment.data, path=str(folder / "test"), seed=1, count=CROPS)
    data, held_out = (open_source(options, print) for options in (experiment.data, others))
    _, rows = measure(setting, "photographs", experiment, data, held_out)
    return {f"Crops of photographs, {setting.minutes:g} minutes of training": rows}, []
