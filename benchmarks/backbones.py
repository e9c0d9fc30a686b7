"""Compares the designs of the U-Net after the same time of training on the same machine, data, widths and objective.

    python -m benchmarks.backbones --data FOLDER [--seconds 150] [--config CONFIG] [--out FILE]

Each design trains with the learning rate that suits it, for as many steps as fit into the time at its own speed,
which is measured first. The figure is the training objective on held-out images with the averaged weights, at noise
that is the same for every design; lower is better. ± is one standard error over the images. The command prints a table
and writes JSON beside the run folders.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks import common, flops
from benchmarks.common import Rows
from benchmarks.training import seconds_per_step, step
from diffusion import config
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.model import Model, load
from diffusion.objectives import Batch, Objective
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.training import train
from diffusion.training.trainer import Trainer

LEARNING_RATES = {"magnitude": 0.01, "group_norm": 0.001}
TRIAL_STEPS = 12


def held_out_loss(model: Model, held_out: Dataset, count: int = 1024) -> tuple[float, float]:
    """Returns the mean and standard error of the objective over at most `count` held-out images, each at four noise
    levels.
    """
    objective = Objective(model.config.noise_levels, model.config.weighting)
    count = min(count, len(held_out))
    losses = []
    with torch.no_grad():
        for start in range(0, count, 128):
            values, _ = held_out.batch(range(start, min(start + 128, count)))
            x = model.spec.encode(held_out.center(values)).to(model.device)
            noise = ExampleNoise([example_seed(7, start + i) for i in range(len(x))])
            each = []
            for quarter in range(4):
                u = (torch.arange(len(x), dtype=torch.float64) / len(x) + (quarter + 0.5) / 4) % 1
                each.append(objective.loss(model.denoiser, Batch(x, u, noise(x))))
            losses.append(torch.stack(each).mean(0))
    total = torch.cat(losses)
    return float(total.mean()), float(total.std() / count**0.5)


def trial(experiment: Config, dataset: Dataset, run: Path) -> tuple[float, float, float]:
    """Returns the seconds per step, GFLOP per image and millions of parameters of a trainer that is thrown away."""
    trainer = Trainer(experiment, *dataset.split(experiment.data.held_out, experiment.data.seed), run)
    gflop = flops.count(step(trainer)) / experiment.training.batch / 1e9
    parameters = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    return seconds_per_step(trainer, TRIAL_STEPS), gflop, parameters


def main() -> None:
    parser = common.parser(__doc__, "backbones")
    parser.add_argument("--data", type=Path, required=True, help="image folder")
    parser.add_argument("--seconds", type=float, default=150.0, help="training time for each design")
    parser.add_argument("--config", type=Path, default=Path("configs/fashion_mnist.toml"))
    options = parser.parse_args()
    rows: Rows = []
    for design, lr in LEARNING_RATES.items():
        overrides = [f"data.path={options.data}", f"backbone.design={design}", f"training.lr={lr}"]
        run = options.out.with_suffix("") / f"{design}-{int(time.time())}"
        experiment = config.load(options.config, overrides)
        dataset = open_source(experiment.data, print)
        seconds, gflop, parameters = trial(experiment, dataset, run)
        steps = max(1, int(options.seconds / seconds))
        end = [f"training.steps={steps}", f"report.samples={steps}", f"report.evaluate={steps}"]
        train(config.load(options.config, overrides + end), run)
        _, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
        mean, error = held_out_loss(load(run), held_out)
        rows.append(
            {
                "design": design,
                "M parameters": parameters,
                "GFLOP/image": gflop,
                "images/s": experiment.training.batch / seconds,
                "steps": steps,
                "held-out loss": f"{mean:.4f} ± {error:.4f}",
            }
        )
    tables = {f"After {options.seconds:g} s of training": rows}
    common.finish([], tables, options.out, check=options.check, values="± is one standard error")


if __name__ == "__main__":
    main()
