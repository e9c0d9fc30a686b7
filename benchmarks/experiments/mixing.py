"""Mixing: the weights of 25 well-separated modes in samples of a diffusion, and in those of Langevin dynamics.

The modes are the `Lattice`, with unequal and with equal weights. Halfway between two of them the energy is 50 kT above
that of a mode. A diffusion learns from points and draws from it by its own sampler. Unadjusted Langevin dynamics is
given the exact score of the modes,

    x' = x + η ∇ log p(x) + √(2η) z,

as many evaluations per point as the diffusion and a hundred times as many, and several step sizes η. The best is shown
of those that keep the width of the modes, and the best of all, if that is another: a step near 2 σ², where the dynamics
becomes unstable, widens the modes until points get to others. It starts in the middle mode, and from N(0, I).

A point counts for the nearest mode. The error of a mode is the absolute difference between its share of the points and
its weight; beside the largest stands how large it is on average for so many exact draws. `near` is the share of points
within four standard deviations of a mode, 0.9997 of exact draws. `relative` is the root mean square error of the shares
relative to the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks import timed
from benchmarks.common import Goal, Rows
from benchmarks.experiments.setting import Outcome, Setting
from diffusion import config, figures
from diffusion.data import Lattice, open_source
from diffusion.model import Model
from diffusion.progress import track

CONFIG = Path("configs/mixing.toml")
POINTS, EXACT = 40_000, 20
# Langevin steps in units of the variance of a mode, in which those above 2 are unstable; and how many times the
# evaluations of the diffusion it is given.
STEP_SIZES, TIMES, LONG = (0.1, 0.5, 1.0, 1.9), (1, 100), 2_000
SHOWN, LIMIT, MIDDLE = 2000, 2.4, 12
NEAR, KEPT, WITHIN = 4.0, 0.95, 0.01
SEED = 1


@dataclass(frozen=True)
class Shares:
    """The share of points at each mode of a lattice, (25,), and that of those near one."""

    modes: Lattice
    shares: Tensor
    near: float

    @classmethod
    def of(cls, modes: Lattice, x: Tensor) -> Shares:
        """Counts points x (N, 2)."""
        mode = modes.mode(x)
        distance = (x.double() - modes.centers[mode]).norm(dim=1)
        shares = torch.bincount(mode, minlength=len(modes.weights)).double() / len(x)
        return cls(modes, shares, float((distance < NEAR * modes.std).double().mean()))

    @property
    def error(self) -> float:
        """The largest absolute error of a share."""
        return float((self.shares - self.modes.weights).abs().max())

    @property
    def relative(self) -> float:
        """The root mean square error of the shares relative to the weights."""
        return float((self.shares / self.modes.weights - 1).square().mean().sqrt())

    def row(self, name: str, points: int, calls: int) -> dict[str, object]:
        """A row of the table."""
        row: dict[str, object] = {"sampler": name, "calls per point": calls, "points": points}
        return {**row, "largest error": self.error, "relative": self.relative, "near": self.near}


def by_chance(modes: Lattice, points: int) -> float:
    """The largest error of a share in so many exact draws, on average over EXACT of them."""
    generator = torch.Generator().manual_seed(0)
    errors = [Shares.of(modes, modes.sample(points, generator)).error for _ in range(EXACT)]
    return sum(errors) / len(errors)


def langevin(modes: Lattice, x: Tensor, calls: int, step: float, generator: torch.Generator) -> Tensor:
    """Takes so many Langevin steps from points x (N, 2), of a size in units of the variance of a mode."""
    size = step * modes.std**2
    for _ in track(range(calls), calls, f"Langevin, η = {step:g} σ²", "step"):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + size * modes.score(x) + (2 * size) ** 0.5 * noise
    return x


def starts(modes: Lattice) -> dict[str, Callable[[int, torch.Generator], Tensor]]:
    """What draws the points that Langevin dynamics starts from."""

    def normal(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    return {
        "one mode": lambda n, generator: modes.centers[MIDDLE] + modes.std * normal(n, generator),
        "N(0, I)": normal,
    }


def of_steps(modes: Lattice, start: str, points: int, calls: int) -> dict[float, Tensor]:
    """The points (N, 2) to which Langevin dynamics takes its starts, by step size."""
    found = {}
    for step in STEP_SIZES:
        generator = torch.Generator().manual_seed(SEED)
        found[step] = langevin(modes, starts(modes)[start](points, generator), calls, step, generator)
    return found


def best(modes: Lattice, found: Mapping[float, Tensor], least: float) -> float:
    """The step size of the smallest largest error, among those that keep the share `least` of the points near modes, if
    there are any.
    """
    shares = {step: Shares.of(modes, x) for step, x in found.items()}
    return min(shares, key=lambda step: (shares[step].near < least, shares[step].error))


def trained(modes: Lattice, folder: Path) -> Model:
    """Trains the diffusion on points of the modes, unless that was done."""
    experiment = config.load(CONFIG)
    data = open_source(experiment.data, print)
    if modes.even:
        points = modes.sample(len(data), torch.Generator().manual_seed(experiment.data.seed)).float().numpy()
        data = replace(data, values=points)
    run = folder / f"mixing, {'equal' if modes.even else 'unequal'} weights"
    return timed.once(experiment, data, run, math.inf)[0]


def of_weights(modes: Lattice, setting: Setting) -> tuple[Rows, dict[str, Tensor], float]:
    """Returns the rows of one set of weights, the points to show, and the largest error of the diffusion."""
    model = trained(modes, setting.folder)
    calls = model.steps_of_grid(model.config.sampling.steps) * model.config.sampler.nfe_per_step
    x = model.sample(POINTS)
    ours = Shares.of(modes, x)
    exact = modes.sample(POINTS, torch.Generator().manual_seed(SEED))
    rows: Rows = [
        Shares.of(modes, exact).row("exact draws", POINTS, 0),
        ours.row("diffusion", POINTS, calls),
    ]
    shown = {"exact": exact, "diffusion": x}
    for start in starts(modes):
        for times in TIMES:
            count = POINTS if times == 1 else LONG
            found = of_steps(modes, start, count, times * calls)
            for step in sorted({best(modes, found, KEPT), best(modes, found, 0.0)}):
                name = f"Langevin from {start}, η = {step:g} σ²"
                rows.append(Shares.of(modes, found[step]).row(name, count, times * calls))
            if times == 1:
                shown[f"Langevin from {start}"] = found[best(modes, found, KEPT)]
    return rows, shown, ours.error


def picture(modes: Lattice, shown: Mapping[str, Tensor]) -> Image.Image:
    """Draws points of every sampler, (N, 2) by name, and below them the shares of the modes by their weights."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.6), dpi=130, layout="constrained")
    panels = figure.subplot_mosaic([[str(i) for i in range(len(shown))], ["shares"] * len(shown)], height_ratios=[3, 2])
    order = modes.weights.argsort()
    below = panels["shares"]
    below.step(range(25), modes.weights[order], where="mid", color="black", linewidth=1, label="truth")
    for i, ((name, x), mark) in enumerate(zip(shown.items(), ("", "o", "x", "+"), strict=True)):
        figures.scatter(panels[str(i)], x[:SHOWN], LIMIT)
        panels[str(i)].set_title(name, fontsize=9)
        if mark:
            below.plot(range(25), Shares.of(modes, x).shares[order], mark, color="black", markersize=4, label=name)
    below.set(xlabel="modes by weight", ylabel="share of the points", yscale="symlog", xticks=[])
    below.set_yscale("symlog", linthresh=0.1)
    below.set_ylim(bottom=-0.004)
    below.legend(frameon=False, fontsize=8)
    return figures.rendered(figure)


def run(setting: Setting) -> Outcome:
    """Runs the experiment. The time of training is that of the configuration."""
    tables: dict[str, Rows] = {}
    goals: list[Goal] = []
    for modes in (Lattice(), Lattice(even=True)):
        name = "equal" if modes.even else "unequal"
        rows, shown, error = of_weights(modes, setting)
        chance = by_chance(modes, POINTS)
        tables[f"25 modes of {name} weights; {chance:.4f} is the largest error of {POINTS:,} exact draws"] = rows
        path = setting.folder / f"mixing-{name}.png"
        figures.save_png(picture(modes, shown), path, {"largest error": error})
        goals.append(Goal(f"Mixing: largest error of {name} weights", error, WITHIN, "at most"))
    return tables, goals
