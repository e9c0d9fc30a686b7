"""Compares the designs of the U-Net after the same time of training on the same machine, data, widths and objective.

    python -m benchmarks.backbones --data FOLDER [--seconds 150] [--config CONFIG] [--out DIR]

Each design trains with the learning rate that suits it, for as many steps as fit into the time at its own speed,
measured first. The figure is the training objective on held-out images at fixed noise, with averaged weights: lower is
better. Prints a table and writes JSON beside the run folders.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import diffusion
from diffusion import config
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.model import Model, load
from diffusion.objectives import Objective, loss
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.training import train
from diffusion.training.trainer import Trainer

LEARNING_RATES = {"magnitude": 0.01, "group_norm": 0.001}
TRIAL_STEPS = 12


def held_out_loss(model: Model, held_out: Dataset, count: int = 1024) -> tuple[float, float]:
    """Mean and standard error of the objective over held-out images, each at four noise levels."""
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
                each.append(loss(model.denoiser, objective, x, u, noise(x)))
            losses.append(torch.stack(each).mean(0))
    total = torch.cat(losses)
    return float(total.mean()), float(total.std() / count**0.5)


def trial(experiment: Config, dataset: Dataset, run: Path) -> tuple[float, float, float]:
    """Seconds per step, GFLOP per image and millions of parameters, of a trainer that is thrown away."""
    training, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
    trainer = Trainer(experiment, training, held_out, run)
    with FlopCounterMode(display=False) as counter:
        trainer.update(trainer.maker(0))
    for step in range(1, 3):
        trainer.update(trainer.maker(step))
    start = time.perf_counter()
    for step in range(3, TRIAL_STEPS):
        trainer.update(trainer.maker(step))
    seconds = (time.perf_counter() - start) / (TRIAL_STEPS - 3)
    parameters = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    return seconds, counter.get_total_flops() / experiment.training.batch / 1e9, parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="image folder")
    parser.add_argument("--seconds", type=float, default=150.0, help="training time for each design")
    parser.add_argument("--config", type=Path, default=Path("configs/fashion_mnist.toml"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-backbones"))
    options = parser.parse_args()
    rows = []
    for design, lr in LEARNING_RATES.items():
        overrides = [f"data.path={options.data}", f"backbone.design={design}", f"training.lr={lr}"]
        run = options.out / f"{design}-{int(time.time())}"
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
                "parameters_m": parameters,
                "gflop_per_image": gflop,
                "images_per_s": experiment.training.batch / seconds,
                "steps": steps,
                "held_out_loss": mean,
                "standard_error": error,
            }
        )
    print(
        f"\n{platform.processor() or platform.machine()}, torch {torch.__version__}, diffusion {diffusion.__version__}"
    )
    print(f"{'design':12s} {'M params':>9s} {'GFLOP/img':>10s} {'images/s':>9s} {'steps':>7s}  held-out loss")
    for row in rows:
        print(
            f"{row['design']:12s} {row['parameters_m']:9.2f} {row['gflop_per_image']:10.2f} {row['images_per_s']:9.0f} "
            f"{row['steps']:7d}  {row['held_out_loss']:.4f} ± {row['standard_error']:.4f}"
        )
    (options.out / "backbones.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
