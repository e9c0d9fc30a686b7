"""The Swiss roll (table 1 and figure 1 of the paper), on a roll of known entropy.

K is the paper's bound on E log p(x), in bits per point of data scaled to variance 1. It cannot exceed -h, the negative
entropy of the roll. Two kinds of model are measured.

The first diffusion model, configs/swiss_roll_2015.toml, is trained on three schedules: its own, which removes an equal
share of the signal in every step, one evenly spaced in log-SNR, and the one with the highest ceiling. Beside each
stands its ceiling, the K of the best reverse trajectory of diagonal Gaussians on the same schedule, with the exact mean
and variance of every step.

Our model, configs/swiss_roll.toml, is measured in continuous time, by K and by the probability flow with the exact
trace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import timed
from benchmarks.common import Goal, Rows
from benchmarks.experiments import pictures
from benchmarks.experiments.setting import Outcome, Setting
from diffusion import config, gaussian
from diffusion.backbones.rbf import RBFConfig
from diffusion.config import Config
from diffusion.data import SwissRoll, open_source
from diffusion.denoiser import Prediction
from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.grids import UniformTime
from diffusion.likelihood import bound, units
from diffusion.model import Model
from diffusion.model.likelihood import example_noise
from diffusion.randomness import Stream
from diffusion.schedules import DiscreteBetas, Schedule

FIRST, OURS = Path("configs/swiss_roll_2015.toml"), Path("configs/swiss_roll.toml")
STEPS = 40
# The log-SNRs at the ends of the schedule evenly spaced in log-SNR.
SPAN = (-3.0, 15.0)
# The log-SNRs among which the best schedule is sought, and the number of points that the search uses.
LATTICE = torch.linspace(-4.0, 18.0, 89, dtype=torch.float64)
TRIED = 1000
# Points on which K is measured, noise levels of each, and points whose flow is solved.
POINTS, DRAWS, FLOWS = 4000, 2048, 1000
SHOWN = 2000
PUBLISHED = 2.35
GAP, FLOW_GAP, SECONDS = 0.05, 0.02, 120.0
NULL = float(units.bits(torch.tensor(units.null_log_likelihood(2))))


@dataclass(frozen=True)
class Best:
    """The reverse trajectory of the best diagonal Gaussians on a grid of decreasing times.

    It predicts the exact mean E[x|x_t]. The exact variance of each coordinate of x_s given x_t is given as the
    interpolation between the limits of a learned variance.
    """

    roll: SwissRoll
    schedule: Schedule
    times: Tensor

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns the prediction for x_t (B, 2) at t () or (B,), all at one time of the grid."""
        t = t.flatten()[0]
        s = self.times[self.times < t][0]
        mean, variance = self.roll.posterior(x_t, *self.schedule(t))
        (_, sigma_t), (alpha_s, sigma_s) = self.schedule(t), self.schedule(s)
        # Var[x_s|x_t] = Var[x_s|x, x_t] + gain² Var[x|x_t], where gain is the factor of x in E[x_s|x, x_t].
        gain = alpha_s * gaussian.snr_drop(self.schedule, s, t)
        given_x = gaussian.posterior(self.schedule, mean, x_t, t, s).variance
        ratio = 1 + gain.square() * variance / given_x
        return Prediction(mean, ratio.log() / (sigma_t / sigma_s).square().log())


def ceiling(roll: SwissRoll, schedule: Schedule, steps: int, x: Tensor) -> Tensor:
    """Returns K of the best diagonal Gaussian steps for points x (B, 2), in nats: (B,)."""
    times = UniformTime()(schedule, steps)
    return of_steps(Best(roll, schedule, times), times, x)


def of_steps(denoiser: bound.AnyDenoiser, times: Tensor, x: Tensor) -> Tensor:
    """Returns K of a denoiser over all steps of a grid, for points x (B, 2), in nats: (B,)."""
    return bound.bound_2015(denoiser, x, times, randn=example_noise(0, Stream.PATH, 0, range(len(x)))).total


def discrete(log_snr: Tensor) -> DiscreteBetas:
    """Returns the discrete schedule with the decreasing log-SNRs `log_snr` (T,)."""
    log_alpha_bar = torch.nn.functional.logsigmoid(log_snr.double())
    betas = -torch.expm1(torch.cat([log_alpha_bar[:1], log_alpha_bar.diff()]))
    return DiscreteBetas(betas=tuple(betas.tolist()))


def best(roll: SwissRoll, count: int, lattice: Tensor, x: Tensor) -> DiscreteBetas:
    """Returns the schedule of `count` log-SNRs from an increasing lattice with the highest ceiling of K, for points x
    (B, 2), by dynamic programming. The learned schedule of the paper can at most reach that ceiling.

    With the exact mean and variance Var[x|x_t] of each coordinate, a step from t to s costs ½ Σ E log(1 + (SNR_s -
    SNR_t) Var[x|x_t]), and K = log(σ_T²/σ_1²) - log 2πe less the costs.
    """
    randn, snr = example_noise(0, Stream.PATH, 0, range(len(x))), lattice.exp()
    cost = torch.full((len(lattice), len(lattice)), math.inf, dtype=torch.float64)
    for t, log_snr in enumerate(lattice):
        alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
        variance = roll.posterior(alpha * x + sigma * randn(x), alpha, sigma)[1]
        gained = (snr[t + 1 :] - snr[t]).reshape(-1, 1, 1)
        cost[t, t + 1 :] = torch.log1p(gained * variance).sum(2).mean(1) / 2
    noisy = torch.nn.functional.logsigmoid(-lattice)
    # The least cost of reaching each log-SNR, less log σ² at the first one, and the log-SNR before it.
    least, before = -noisy, []
    for _ in range(count - 1):
        least, previous = (least[:, None] + cost).min(0)
        before.append(previous)
    path = [int((least + noisy).argmin())]
    for previous in reversed(before):
        path.append(int(previous[path[-1]]))
    return discrete(lattice[path])


def row(name: str, nats: Tensor, exact: Tensor) -> dict[str, object]:
    """Returns a row of the table from log p of points, or a bound on it, and the true values: both (N,), in nats."""
    bits = estimate(units.bits(nats), {})
    return {"model": name, "bits/point": bits, "over L_null": bits.scaled(1, -NULL), "below -h": gap(nats, exact)}


def gap(nats: Tensor, exact: Tensor) -> Estimate:
    """Returns how far log p is below the true one, in bits: point by point, so that variation over points cancels."""
    return estimate(units.bits(exact - nats), {})


def train(experiment: Config, run: Path) -> tuple[Model, float]:
    return timed.train(experiment, open_source(experiment.data, print), run)


def first(folder: Path, x: Tensor, exact: Tensor) -> Rows:
    """Returns the rows of the first model, on each schedule."""
    equal, roll = config.load(FIRST), SwissRoll()
    even = discrete(torch.linspace(*reversed(SPAN), STEPS, dtype=torch.float64))
    # With an output layer for each log-SNR of the lattice, each step has one.
    layers = RBFConfig(steps=len(LATTICE), span=(float(LATTICE[0]), float(LATTICE[-1])))
    experiments = {
        "equal shares": equal,
        "even in log-SNR": replace(equal, schedule=even, backbone=RBFConfig(steps=STEPS, span=SPAN)),
        "highest ceiling": replace(equal, schedule=best(roll, STEPS, LATTICE, x[:TRIED]), backbone=layers),
    }
    rows: Rows = []
    for name, experiment in experiments.items():
        model, seconds = train(experiment, folder / f"swissroll, 2015, {name}")
        steps = experiment.training.trajectory
        times = UniformTime()(experiment.schedule, steps)
        nats = of_steps(model.denoiser, times, x.float())
        highest = estimate(units.bits(ceiling(roll, experiment.schedule, steps, x)), {})
        rows.append({**row(f"first, {name}", nats, exact), "ceiling": highest, "seconds": seconds})
        pictures.trajectories(model, x[:SHOWN].float(), folder / f"swissroll-2015-{name.split()[0]}.png")
    return rows


def ours(folder: Path, x: Tensor, exact: Tensor) -> Rows:
    """Returns the rows of our model by K and by the flow."""
    model, seconds = train(config.load(OURS), folder / "swissroll")
    pictures.trajectories(model, x[:SHOWN].float(), folder / "swissroll.png")
    k = model.likelihood().bound_2015(x, draws=DRAWS, continuous=True).total
    flow = model.likelihood(dtype=torch.float64).flow(x[:FLOWS]).log_likelihood
    return [
        {**row("ours, K in continuous time", k, exact), "seconds": seconds},
        row("ours, flow with the exact trace", flow, exact[:FLOWS]),
    ]


def figure(row: Mapping[str, object], column: str = "bits/point") -> float:
    """Returns the number in a column of a row."""
    value = row[column]
    return value.mean if isinstance(value, Estimate) else float(str(value))


def run(setting: Setting) -> Outcome:
    """Runs the experiment. The time of training is that of the configurations."""
    roll = SwissRoll()
    x = roll.sample(POINTS, torch.Generator().manual_seed(1))
    exact = roll.log_density(x)
    limit = -float(units.bits(torch.tensor(roll.entropy)))
    rows = first(setting.folder, x, exact)
    bound, flow = ours(setting.folder, x, exact)
    published = {"model": "published (2015), a roll of unstated noise", "bits/point": PUBLISHED, "over L_null": 6.45}
    title = f"Swiss roll, bits per point; -h = {limit:.3f}, which {STEPS} diagonal Gaussian steps stay below (ceiling)"
    return {title: [published, *rows, bound, flow]}, [
        Goal("Swiss roll: K of the first model, bits", figure(rows[0]), PUBLISHED),
        Goal("Swiss roll: K of ours, bits", figure(bound), PUBLISHED),
        Goal("Swiss roll: gap of ours, bits", figure(bound, "below -h"), GAP, "at most"),
        Goal("Swiss roll: distance of the flow from -h, bits", abs(figure(flow, "below -h")), FLOW_GAP, "at most"),
        Goal("Swiss roll: training of ours, seconds", figure(bound, "seconds"), SECONDS, "at most"),
    ]
