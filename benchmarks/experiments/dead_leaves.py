"""Dead leaves (table 2 of the paper), on a reconstruction of its unpublished images (diffusion/data/dead_leaves.py).

Everything is in bits per pixel of images scaled to variance 1. The baseline of that table, fitted anew, scores on these
images as it does there, because the smallest radius of the leaves was chosen so (`python -m benchmarks.mcgsm`); hence
the published score of the diffusion model, and the best we know of, have a meaning here. The pixels' own noise is a
ceiling for all, and there are lower ones by what the leaves must cost (benchmarks/leaf_cost.py). The multi-information
of a model is h + log p: how many bits a pixel tells of the others, with h the entropy of a pixel alone, the
cross-entropy of a histogram of 100 bins (Theis, Hosseini and Bethge 2012).
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
# An hour and a half on one core instead of a day on one GPU; many small steps at a rate that falls from a high one (in
# four minutes of one core 1.24 bits per pixel, of batches of 16 1.22, at a third of the rate 1.12).
SMALL = (
    "backbone.channels=[48,96,128,128]",
    "backbone.blocks=1",
    "backbone.attention=[]",
    "training.batch=8",
    "training.lr=0.03",
    "training.warmup=100",
)
LAW = Leaves()
# Images that are measured, and noise levels of each.
TEST, DRAWS = 1024, 16
BINS = 100
# Images whose leaves are counted, to tell what they cost.
COUNTED = 200
SHOWN, ROWS = 16, 4
PUBLISHED = {"published (2015)": 1.489, "best published since": 1.50}


def marginal_entropy(train: Tensor, test: Tensor, bins: int = BINS) -> float:
    """The cross-entropy of a histogram of the values (N,), evaluated at others (M,), in bits: about the differential
    entropy of one of them. Bins have equal width from the least to the largest value of both.
    """
    low, high = (float(bound) for bound in torch.cat([train, test]).aminmax())
    # One more in every bin, so that none is impossible.
    share = torch.histc(train.double(), bins, low, high) + 1
    log_density = (share / share.sum() * bins / (high - low)).log2()
    return -float((torch.histc(test.double(), bins, low, high) * log_density).sum()) / len(test)


def images(data: Dataset, count: int) -> Tensor:
    """The first images, as the model's values (count, 1, H, W)."""
    return data.spec.encode(data.batch(range(min(count, len(data))))[0])


def held_out(experiment: Config) -> Dataset:
    """Images of the same law that no training sees: the baseline is measured on those of this seed too."""
    return open_source(config.override(experiment, ["data.seed=1", f"data.count={TEST}"]).data, print)


def density(model: Model, data: Dataset) -> Estimate:
    """The bound on log p in bits per pixel. The images are continuous: it is one on a density, with no levels."""
    evaluation = evaluate(model, data, method=BoundEstimator(draws=DRAWS, continuous=True), progress=True)
    return evaluation.terms["total"].scaled(-1 / model.spec.dim)


def baseline() -> Estimate:
    """The score of the mixture of conditional Gaussian scale mixtures."""
    bits, error = mcgsm.measure(R_MIN, mcgsm.PAIRS, mcgsm.STEPS)
    return Estimate(bits, 1.96 * error, {"windows": error})


def ceilings(size: tuple[int, int], count: int) -> dict[str, Estimate]:
    """Bounds on E log p of images of a size (H, W), in bits per pixel at variance 1, each lower than that before it:
    what is known of the leaves' cost, over so many images.
    """
    seeds = [example_seed(1, number) for number in range(count)]
    grays, shapes = (torch.from_numpy(cost(LAW, size, seeds)) for cost in (leaf_cost.grays, leaf_cost.shapes))
    return {
        "ceiling by noise": Estimate(LAW.ceiling, 0.0, {}),
        "... and grays": estimate(LAW.ceiling - grays, {}),
        "... and shapes, estimated": estimate(LAW.ceiling - grays - shapes, {}),
    }


def draw(model: Model, data: Dataset, values: Mapping[str, float], path: Path) -> Path:
    """Training images, samples, and the scores. Most leaves are dark: white is what one pixel in a thousand exceeds."""
    shown, made = model.spec.decode(images(data, SHOWN)), model.sample(SHOWN)
    white = shown.flatten().quantile(0.999)
    pages = {
        "training images": figures.draw((shown / white).clamp(0, 1)),
        "samples": figures.draw((made / white).clamp(0, 1)),
        "log-likelihood": pictures.bars(values, LAW.ceiling, "bits/pixel"),
    }
    return figures.save_png(figures.captioned(list(pages.items())), path, {"step": model.step})


def run(setting: Setting) -> Outcome:
    """Trains for the given time, on images that are made as they are needed."""
    experiment = config.load(CONFIG, SMALL)
    data, test = open_source(experiment.data, print), held_out(experiment)
    model, seconds = timed.train(experiment, data, setting.folder / "deadleaves", setting.seconds)
    found = {"baseline, by construction": baseline(), "ours": density(model, test)}
    entropy = marginal_entropy(images(data, TEST).flatten(), images(test, TEST).flatten())
    rows: Rows = [
        {"model": name, "bits/pixel": bits, "of the ceiling": bits.mean / LAW.ceiling,
         "multi-information": bits.scaled(1, entropy)}
        for name, bits in found.items()
    ]  # fmt: skip
    rows[-1] |= {"steps": model.step, "seconds": seconds}
    rows += [
        {"model": name, "bits/pixel": bits, "of the ceiling": bits / LAW.ceiling} for name, bits in PUBLISHED.items()
    ]
    height, width = model.spec.shape[1:]
    for name, bits in ceilings((height, width), COUNTED).items():
        rows.append({"model": name, "bits/pixel": bits, "multi-information": bits.scaled(1, entropy)})
    draw(model, data, {name: bits.mean for name, bits in found.items()} | PUBLISHED, setting.folder / "deadleaves.png")
    pictures.record(model, images(test, ROWS), setting.folder, "deadleaves")
    title = f"Dead leaves, a reconstruction, {height}x{width}, bits per pixel; a pixel alone has {entropy:.3f}"
    return {title: rows}, [
        Goal(f"dead leaves: bits/pixel, against {name}", found["ours"].mean, bound) for name, bound in PUBLISHED.items()
    ]
