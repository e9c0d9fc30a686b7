"""Whether copies are found where there are some, and none where there are none: `diffusion evaluate --memorization`.

    python -m benchmarks.memorization --data DIR [--steps 7000] [--few 50] [--samples 500] [--only NAME ...] [--check]

DIR is a folder of images, which are taken as gray and resized. First the test itself is tested, without a network
("images"): on unseen images, and on training images with noise, mirrored or shifted by a pixel. Then one small network
learns `few` of them by heart, and the same one learns all but those held out, each from scratch in as many steps. The
samples of both are tested by the same held-out images. The goals: 95 % of the samples of the first are flagged, and of
the second none are called copies beyond chance. Figures of the samples that are most like copies are left in a folder
beside the JSON.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common, timed
from benchmarks.common import Goal, Rows
from diffusion import config
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.evaluation import Setting
from diffusion.evaluation.copies import Verdict
from diffusion.evaluation.finding import Finder, units
from diffusion.evaluation.memorization import CALIBRATION, Memorization
from diffusion.evaluation.memorization_table import MemorizationEvaluation
from diffusion.model import Model

GOAL = 0.95
IMAGES, BY_HEART, ALL = PARTS = ("images", "by heart", "all images")


def experiment(data: Path, side: int, steps: int) -> Config:
    """Returns the configuration of a small network for gray images of a folder."""
    return config.from_dict(
        {
            "data": {"path": str(data), "size": side, "channels": 1},
            "backbone": {"name": "unet", "channels": [32, 64], "blocks": 1, "attention": [1]},
            "training": {"steps": steps, "batch": 32, "lr": 0.01},
        }
    )


def tested(model: Model, training: Dataset, held_out: Dataset, samples: int) -> MemorizationEvaluation:
    """Looks for copies of training images among samples of a model that learned from these alone."""
    return Memorization(samples)(model, held_out, Setting(training=training, progress=True))


def known(training: Dataset, held_out: Dataset, count: int) -> Rows:
    """Tests images that are no copies, and some that are, after calibration on every other held-out image."""
    even, odd = (held_out.subset(range(start, len(held_out), 2)).evenly(CALIBRATION) for start in (0, 1))
    finder = Finder.of_pixels(training, 1, shared=False, progress=True)
    unseen = finder.verdict(units(odd, range(len(odd))), even, 0.01)
    verdicts = {"unseen images": unseen}
    for name, x in altered(units(training.evenly(count), range(min(count, len(training))))).items():
        verdicts[name] = Verdict(finder.neighbors(x, unseen.same), unseen.test, unseen.same)
    return [{"": name, **{what: str(each) for what, each in found.shares.items()}} for name, found in verdicts.items()]


def altered(x: Tensor) -> dict[str, Tensor]:
    """Returns copies of images (B, C, H, W) by what was done to them."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return {
        "copies, noise 0.05": x + 0.05 * noise,
        "copies, noise 0.1": x + 0.1 * noise,
        "copies, mirrored": x.flip(-1),
        "copies, a pixel to the left": torch.cat([x[..., 1:], x[..., -1:]], -1),
        "copies, a pixel up": torch.cat([x[..., 1:, :], x[..., -1:, :]], -2),
    }


def row(name: str, model: Model, seconds: float, result: MemorizationEvaluation) -> dict[str, object]:
    """Returns a row of the table: how the model was trained, and every share with its interval."""
    shares = {what: str(share) for what, share in result.shares.items()}
    return {"": name, "images": result.training, "steps": model.step, "seconds": seconds, **shares}


def goal(name: str, result: MemorizationEvaluation) -> Goal:
    """Returns what is expected of a network: copies alone, or none beyond chance."""
    if name == BY_HEART:
        return Goal(f"{name}, flagged", result.shares["flagged"].value, GOAL)
    return Goal(f"{name}, lower end of the share of copies", result.shares["copies"].low, 0.0, "at most")


def main() -> None:
    parser = common.parser(__doc__, "memorization")
    parser.add_argument("--data", type=Path, required=True, help="a folder of images")
    parser.add_argument("--steps", type=int, default=7000, help="training steps of each network")
    parser.add_argument("--few", type=int, default=50, help="images that the first network learns by heart")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--side", type=int, default=8, help="pixels to which images are resized")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    chosen = experiment(options.data, options.side, options.steps)
    training, held_out = open_source(chosen.data, print).split(chosen.data.held_out, chosen.data.seed)
    folder: Path = options.out.with_suffix("")
    rows: Rows = []
    goals = []
    tables: dict[str, Rows] = {}
    if IMAGES in options.only:
        tables[f"images of {options.side} pixels"] = known(training, held_out, options.samples)
    for name in [each for each in options.only if each != IMAGES]:
        part = training.evenly(options.few) if name == BY_HEART else training
        model, seconds = timed.train(chosen, part, folder / name)
        result = tested(model, part, held_out, options.samples)
        result.draw(folder / f"{name}.png", "held-out")
        rows.append(row(name, model, seconds, result))
        goals.append(goal(name, result))
        print(result.table(), flush=True)
    title = f"{options.samples:,} samples, {options.steps:,} steps of training each"
    tables |= {title: rows} if rows else {}
    common.finish(goals, tables, options.out, check=options.check, values="shares (95 % intervals)")


if __name__ == "__main__":
    main()
