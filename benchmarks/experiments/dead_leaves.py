"""Dead leaves (table 2 of the paper), on a reconstruction of its unpublished images, which is made by
diffusion/data/synthetic/dead_leaves.py.

Everything is in bits per pixel of images scaled to variance 1. The baseline of that table, fitted anew, has the same
score on these images, because the smallest radius of the leaves was chosen for that (`python -m benchmarks.mcgsm`).
Hence the published score of the diffusion model, and the best that we know of, can be compared with ours. The noise of
the pixels is a ceiling for all models, and the bits that the leaves cost give lower ones (benchmarks/leaf_cost.py). The
multi-information of a model is h + log p, the bits that a pixel tells of the others. h is the entropy of a single
pixel, estimated by the cross-entropy of a histogram of 100 bins (Theis, Hosseini and Bethge 2012).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import leaf_cost, mcgsm, timed
from benchmarks.common import Goal, Rows
from benchmarks.experiments import pictures
from benchmarks.experiments.setting import Outcome, Setting
from diffusion import config, figures
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.data.synthetic.dead_leaves import R_MIN, Leaves
from diffusion.evaluation import BoundEstimator, Estimate, evaluate
from diffusion.evaluation.intervals import estimate
from diffusion.model import Model
from diffusion.randomness import example_seed

CONFIG = Path("configs/dead_leaves.toml")
# For an hour and a half on one core instead of a day on one GPU: many small steps at a learning rate that falls from a
# high one. In four minutes of one core these gave 1.24 bits per pixel, batches of 16 gave 1.22, and a third of the
# learning rate 1.12.
SMALL = (
    "backbone.channels=[48,96,128,128]",
    "backbone.blocks=1",
    "backbone.attention=[]",
    "training.batch=8",
    "training.lr=0.03",
    "training.warmup=100",
)
LEAVES = Leaves()
# Images that are measured, and noise levels of each.
TEST, DRAWS = 1024, 16
BINS = 100
# Images whose leaves are counted, to estimate the bits that they cost.
COUNTED = 200
SHOWN, ROWS = 16, 4
PUBLISHED = {"published (2015)": 1.489, "best published since": 1.50}


def marginal_entropy(train: Tensor, test: Tensor, bins: int = BINS) -> float:
    """Returns the cross-entropy in bits of a histogram of `train` (N,) at the values `test` (M,), which estimates the
    differential entropy of a value. Bins have equal width from the least to the largest value of both.
    """
    low, high = (float(bound) for bound in torch.cat([train, test]).aminmax())
    # One count more in every bin, so that none has probability 0.
    share = torch.histc(train.double(), bins, low, high) + 1
    log_density = (share / share.sum() * bins / (high - low)).log2()
    return -float((torch.histc(test.double(), bins, low, high) * log_density).sum()) / len(test)


def images(data: Dataset, count: int) -> Tensor:
    """Returns the first images, in model units, (count, 1, H, W)."""
    return data.spec.encode(data.batch(range(min(count, len(data))))[0])


def held_out(experiment: Config) -> Dataset:
    """Returns images of the same distribution that training never sees; the baseline is measured on this seed too."""
    return open_source(config.override(experiment, ["data.seed=1", f"data.count={TEST}"]).data, print)


def density(model: Model, data: Dataset) -> Estimate:
    """Returns the bound on log p in bits per pixel. The images are continuous, so it bounds a density."""
    evaluation = evaluate(model, data, method=BoundEstimator(draws=DRAWS, continuous=True), progress=True)
    return evaluation.terms["total"].scaled(-1 / model.spec.dim)


def baseline() -> Estimate:
    """Returns the score of the mixture of conditional Gaussian scale mixtures, with its 95 % interval."""
    bits, error = mcgsm.measure(R_MIN, mcgsm.PAIRS, mcgsm.STEPS)
    return Estimate(bits, 1.96 * error, {"windows": error})


def ceilings(size: tuple[int, int], count: int) -> dict[str, Estimate]:
    """Returns upper bounds on E log p of images of a size (H, W), in bits per pixel at variance 1, each lower than the
    one before it. The bits that leaves cost are averaged over `count` images.
    """
    seeds = [example_seed(1, number) for number in range(count)]
    grays, shapes = (torch.from_numpy(cost(LEAVES, size, seeds)) for cost in (leaf_cost.grays, leaf_cost.shapes))
    return {
        "ceiling by noise": Estimate(LEAVES.ceiling, 0.0, {}),
        "... and grays": estimate(LEAVES.ceiling - grays, {}),
        "... and shapes, estimated": estimate(LEAVES.ceiling - grays - shapes, {}),
    }


def draw(model: Model, data: Dataset, values: Mapping[str, float], path: Path) -> Path:
    """Draws training images, samples, and scores. Most leaves are dark, so white is the 0.999 quantile of pixels."""
    shown, made = model.spec.decode(images(data, SHOWN)), model.sample(SHOWN)
    white = shown.flatten().quantile(0.999)
    pages = {
        "training images": figures.draw((shown / white).clamp(0, 1)),
        "samples": figures.draw((made / white).clamp(0, 1)),
        "log-likelihood": pictures.bars(values, LEAVES.ceiling, "bits/pixel"),
    }
    return figures.save_png(figures.captioned(list(pages.items())), path, {"step": model.step})


def run(setting: Setting) -> Outcome:
    """Trains for the given time, on images that are generated as they are needed."""
    experiment = config.load(CONFIG, SMALL)
    data, test = open_source(experiment.data, print), held_out(experiment)
    model, seconds = timed.train(experiment, data, setting.folder / "deadleaves", setting.seconds)
    found = {"baseline, by construction": baseline(), "ours": density(model, test)}
    entropy = marginal_entropy(images(data, TEST).flatten(), images(test, TEST).flatten())
    rows: Rows = [
        {"model": name, "bits/pixel": bits, "share of the ceiling": bits.mean / LEAVES.ceiling,
         "multi-information": bits.scaled(1, entropy)}
        for name, bits in found.items()
    ]  # fmt: skip
    rows[-1] |= {"steps": model.step, "seconds": seconds}
    rows += [
        {"model": name, "bits/pixel": bits, "share of the ceiling": bits / LEAVES.ceiling}
        for name, bits in PUBLISHED.items()
    ]
    height, width = model.spec.shape[1:]
    for name, bits in ceilings((height, width), COUNTED).items():
        rows.append({"model": name, "bits/pixel": bits, "multi-information": bits.scaled(1, entropy)})
    draw(model, data, {name: bits.mean for name, bits in found.items()} | PUBLISHED, setting.folder / "deadleaves.png")
    pictures.record(model, images(test, ROWS), setting.folder, "deadleaves")
    title = f"Dead leaves, a reconstruction, {height}x{width}, bits per pixel; a single pixel has entropy {entropy:.3f}"
    return {title: rows}, [
        Goal(f"dead leaves: bits/pixel, against {name}", found["ours"].mean, bound) for name, bound in PUBLISHED.items()
    ]
