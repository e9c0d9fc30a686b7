"""The Swiss roll of Sohl-Dickstein et al. (2015, table 1), of known entropy here, and what T Gaussian steps can reach.

    python -m benchmarks.swiss_roll [--points 4000] [--steps STEPS] [--out FILE]

K is the bound on E log p(x), in bits per point of data scaled to variance 1; it cannot exceed −h, and K − L_null is its
distance from the Gaussian's. The ceiling is the K of the best reverse trajectory of diagonal Gaussians on the same
schedule, with the exact mean and variance of every step. Trains the model of configs/swiss_roll_2015.toml on its own
schedule, which erases an equal share of the signal in every step, and on one even in log-SNR; two minutes each.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import common
from diffusion import config, process
from diffusion.backbones.rbf import RBFConfig
from diffusion.config import Config
from diffusion.data import SwissRoll, open_source
from diffusion.grids import UniformTime
from diffusion.likelihood import bound, decoder, prior_kl
from diffusion.model import Model
from diffusion.randomness import ExampleNoise, example_seed
from diffusion.schedules import DiscreteBetas, Schedule
from diffusion.training.trainer import Trainer

CONFIG = Path("configs/swiss_roll_2015.toml")
STEPS = 40
# Between these the ceiling of 40 steps even in log-SNR is highest on the default roll.
SPAN = (-3.0, 15.0)
# The bound of N(0, I) on data of variance 1, in bits per point.
NULL = -math.log2(2 * math.pi * math.e)


def noise(n: int) -> ExampleNoise:
    return ExampleNoise([example_seed(0, i) for i in range(n)])


def ceiling(roll: SwissRoll, schedule: Schedule, steps: int, x: Tensor) -> Tensor:
    """−K of the best diagonal Gaussian steps for points x (B, 2), in nats: (B,)."""
    times, randn = UniformTime()(schedule, steps), noise(len(x))
    total = prior_kl(schedule, x, times[0]) + decoder(schedule, x, times[-1], None, randn)
    for t, s in pairwise(times):
        x_t = process.marginal(schedule, x, t).sample(randn(x))
        mean, variance = roll.posterior(x_t, *schedule(t))
        reverse = process.posterior(schedule, mean, x_t, t, s)
        gain = schedule(s)[0] * process.erased(schedule, s, t)
        best = process.Gaussian(reverse.mean, reverse.variance + gain.square() * variance)
        total += process.posterior(schedule, x, x_t, t, s).kl(best)
    return total


def even(steps: int, span: tuple[float, float]) -> DiscreteBetas:
    """The table of a schedule even in log-SNR between two of them."""
    low, high = span
    log_alpha_bar = torch.nn.functional.logsigmoid(torch.linspace(high, low, steps, dtype=torch.float64))
    betas = -torch.expm1(torch.cat([log_alpha_bar[:1], log_alpha_bar.diff()]))
    return DiscreteBetas(betas=tuple(betas.tolist()))


def train(experiment: Config) -> Model:
    data = open_source(experiment.data, print)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(experiment, data, data.subset([]), Path(folder))
        for _ in tqdm(range(experiment.training.steps)):
            trainer.update(trainer.maker(trainer.step))
        return trainer.model


def bits(nats: Tensor) -> str:
    """−nats as bits: the mean and its standard error."""
    values = -nats / math.log(2)
    return f"{float(values.mean()):.3f} ± {float(values.std()) / len(values) ** 0.5:.3f}"


def measure(experiment: Config, x: Tensor) -> dict[str, object]:
    """K of a trained model and of the best one for points x (B, 2)."""
    steps, roll = experiment.training.trajectory, SwissRoll()
    model, times = train(experiment), UniformTime()(experiment.schedule, steps)
    nats = bound(model.denoiser, x.float(), times, randn=noise(len(x))).total
    return {
        "K": bits(nats),
        "K − L_null": f"{-float(nats.mean()) / math.log(2) - NULL:.3f}",
        "ceiling of K": bits(ceiling(roll, experiment.schedule, steps, x)),
        "−h": f"{-roll.entropy / math.log(2):.3f}",
    }


def main() -> None:
    parser = common.parser(__doc__, "swiss-roll")
    parser.add_argument("--points", type=int, default=4000, help="points to measure on")
    parser.add_argument("--steps", type=int, help="steps of training, by default those of the config")
    options = parser.parse_args()
    equal = config.load(CONFIG, [f"training.steps={options.steps}"] if options.steps else [])
    spaced = replace(equal, schedule=even(STEPS, SPAN), backbone=RBFConfig(steps=STEPS, span=SPAN))
    x = SwissRoll().sample(options.points, torch.Generator().manual_seed(1))
    rows = [
        {"steps": name, **measure(experiment, x)}
        for name, experiment in {"equal shares": equal, "even in log-SNR": spaced}.items()
    ]
    common.finish([], {"Swiss roll, bits per point": rows}, options.out, check=options.check)


if __name__ == "__main__":
    main()
