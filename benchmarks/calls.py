"""How good samples are by the number of network calls: samplers, grids, students; for benchmarks.sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import quality, timed
from benchmarks.common import Rows
from benchmarks.judge import Images
from benchmarks.quality import Referee
from diffusion.grids import Karras, UniformLogSNR
from diffusion.model import Model, load
from diffusion.samplers import SAMPLERS
from diffusion.training.distill import student

GRID_CALLS = (5, 8, 12)
STUDENT_CALLS = (4, 2)
NEAR = 0.05


def needed(distances: dict[int, float], reference: float) -> float:
    """The fewest calls whose distance is at most 5 % above the reference; not a number if none is."""
    near = [calls for calls, distance in distances.items() if distance <= (1 + NEAR) * reference]
    return float(min(near, default=math.nan))


def curves(model: Model, referee: Referee, samples: int, calls: Sequence[int]) -> dict[str, dict[int, float]]:
    """Fréchet distance by sampler and calls per sample; a guided call, of a doubled batch, counts once."""
    found: dict[str, dict[int, float]] = {}
    for name, sampler in SAMPLERS.items():
        each = sampler().nfe_per_step
        found[name] = {}
        for most in calls:
            # The last step of a two-call sampler takes one: what is left of an even number of calls is not spent.
            steps = most if each == 1 else (most + 1) // 2
            count = steps if each == 1 else 2 * steps - 1
            found[name][count] = referee.distance(quality.draw(model, samples, steps=steps, sampler=name))
            print(f"{name} {count}: {found[name][count]:.2f}", flush=True)
    return found


def grids(model: Model, referee: Referee, samples: int) -> Rows:
    """Fréchet distance of the model's own sampler on three kinds of grid between the same ends."""
    first, last = model.ends
    low, high = (math.exp(-v / 2) for v in (last, first))
    kinds = {
        "uniform in log-SNR": UniformLogSNR(first, last),
        "Karras, ρ = 7": Karras(sigma_min=low, sigma_max=high),
        "measured on the model": model.tuned().config.grid,
    }
    rows: Rows = []
    for name, grid in kinds.items():
        other = replace(model, config=replace(model.config, grid=grid))
        rows += [
            {"grid": name, "calls": n, "distance": referee.distance(quality.draw(other, samples, steps=n))}
            for n in GRID_CALLS
        ]
    return rows


def teach(run: Path, images: Images, calls: int, steps: int) -> Model:
    """A student of a trained model, which is left beside it."""
    experiment = student(run, calls, [f"training.steps={steps}"])
    data = quality.dataset(images, labels=experiment.data.labels)
    return timed.train(experiment, data, run.with_name(f"{run.name}, {calls} calls"))[0]


def students(run: Path, images: Images, referee: Referee, samples: int, steps: int) -> Rows:
    """Fréchet distance of a model and of its students; a guided call is two evaluations of the network."""
    taught = {f"student, {n} calls": teach(run, images, n, steps) for n in STUDENT_CALLS}
    rows: Rows = []
    for name, model in {"teacher": load(run), **taught}.items():
        evaluations = model.config.sampling.steps * (1 if model.config.sampling.guidance == 1 else 2)
        distance = referee.distance(quality.draw(model, samples))
        rows.append({"model": name, "network evaluations per sample": evaluations, "distance": distance})
    return rows
