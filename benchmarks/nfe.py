"""Sample quality by the number of denoiser evaluations (NFE): samplers, grids, students; for benchmarks.sampling."""

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

GRID_NFE = (5, 8, 12)
STUDENT_NFE = (4, 2)
NEAR = 0.05


def needed(distances: dict[int, float], reference: float) -> float:
    """Returns the smallest NFE whose distance is at most 5 % above the reference, or NaN if there is none."""
    near = [nfe for nfe, distance in distances.items() if distance <= (1 + NEAR) * reference]
    return float(min(near, default=math.nan))


def curves(model: Model, referee: Referee, samples: int, budgets: Sequence[int]) -> dict[str, dict[int, float]]:
    """Returns the Fréchet distance by sampler and NFE per sample, for every sampler with at most each NFE of `budgets`.

    A guided evaluation, which is one of a doubled batch, counts once.
    """
    found: dict[str, dict[int, float]] = {}
    for name, sampler in SAMPLERS.items():
        each = sampler().nfe_per_step
        found[name] = {}
        for most in budgets:
            # The last step of a sampler with two evaluations per step takes one, so an even budget leaves one unspent.
            steps = most if each == 1 else (most + 1) // 2
            nfe = steps if each == 1 else 2 * steps - 1
            found[name][nfe] = referee.distance(quality.draw(model, samples, steps=steps, sampler=name))
            print(f"{name}, NFE {nfe}: {found[name][nfe]:.2f}", flush=True)
    return found


def grids(model: Model, referee: Referee, samples: int) -> Rows:
    """Returns the Fréchet distance of the model's own sampler on three kinds of timestep grid between the same ends."""
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
            {"grid": name, "NFE": n, "distance": referee.distance(quality.draw(other, samples, steps=n))}
            for n in GRID_NFE
        ]
    return rows


def teach(run: Path, images: Images, nfe: int, steps: int) -> Model:
    """Distills the trained model of a run folder for `steps` training steps into a student that samples with `nfe`
    evaluations. The student's run folder is left beside the teacher's.
    """
    experiment = student(run, nfe, [f"training.steps={steps}"])
    data = quality.dataset(images, labels=experiment.data.labels)
    return timed.train(experiment, data, run.with_name(f"{run.name}, {nfe} NFE"))[0]


def students(run: Path, images: Images, referee: Referee, samples: int, steps: int) -> Rows:
    """Returns the Fréchet distance of a model and of its students; a guided step evaluates the network twice."""
    taught = {f"student, {n} NFE": teach(run, images, n, steps) for n in STUDENT_NFE}
    rows: Rows = []
    for name, model in {"teacher": load(run), **taught}.items():
        evaluations = model.config.sampling.steps * (1 if model.config.sampling.guidance == 1 else 2)
        distance = referee.distance(quality.draw(model, samples))
        rows.append({"model": name, "network evaluations per sample": evaluations, "distance": distance})
    return rows
