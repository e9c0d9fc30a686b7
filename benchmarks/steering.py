"""Whether equal dissipation steers better than today's defaults: timestep grids and noise levels, on digits.

    python -m benchmarks.steering [--steps 300] [--seeds 2] [--out FILE] [--check]

Trains small models of the digits of scikit-learn with the exact weighting, by each distribution of noise levels for as
many steps, and with the default objective. The first table has their held-out bounds, whose differences are example by
example. On the first model of the default objective, the second table has the bound at T steps by timestep grid, and
the third how far samples of few steps are from those of 200 steps from the same noise, for solvers of the ODE, and the
sliced Wasserstein distance of the samples from the training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common, mixture, timed
from benchmarks.common import Goal, Rows
from diffusion import config
from diffusion.data import Dataset, open_source
from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.grids import EqualDissipation, Grid, UniformLogSNR, measure_dissipation
from diffusion.likelihood import units
from diffusion.likelihood.bound import bound
from diffusion.model import Model
from diffusion.model.likelihood import example_noise
from diffusion.randomness import Stream

SMALL = ("backbone.channels=[32,32]", "training.warmup=20", "training.precision=fp32", "sampling.precision=fp32")
EXACT = "weighting.name=exact"
# The overrides of each objective. The default one of the configuration is the first.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "default: log-normal, EDM weights": (),
    "log-normal, exact weights": (EXACT,),
    "even in log-SNR": (EXACT, "noise_levels.name=measured", "noise_levels.uniform=1"),
    "measured: least variance": (EXACT, "noise_levels.name=measured", "noise_levels.every=20"),
    "dissipation: even in length": (EXACT, "noise_levels.name=dissipation", "noise_levels.every=20"),
}
BOUND_STEPS, SAMPLE_STEPS, REFERENCE = (16, 64, 256), (5, 8, 12, 20), 200
SAMPLERS = ("ddim", "dpmpp_2m", "ddpm")
# The examples that the error is measured on, the steps of the bound that are drawn for each held-out image, and
# directions of the distance.
MEASURED, DRAWS, DIRECTIONS = 512, 64, 200


def trained(folder: Path, name: str, steps: int, seed: int) -> tuple[Model, Dataset, Dataset]:
    """Trains an objective; returns the model, and the training and held-out examples."""
    values = (*SMALL, f"data.path={folder / 'images'}", f"training.steps={steps}", f"training.seed={seed}")
    experiment = config.load(Path("configs/digits.toml"), [*values, *OBJECTIVES[name]])
    examples = open_source(experiment.data, print)
    data, held_out = examples.split(experiment.data.held_out, experiment.data.seed)
    model, _ = timed.train(experiment, data, folder / f"{name}, seed {seed}")
    return model, data, held_out


def values_of(examples: Dataset) -> Tensor:
    """The images of a data set in [0, 1]: (N, C, H, W)."""
    return examples.spec.decode(examples.spec.encode(examples.batch(range(len(examples)))[0]))


def noise_levels(folder: Path, steps: int, seeds: int) -> tuple[Rows, Model, Dataset, Dataset]:
    """Returns the held-out bound by objective, and the first model of the default one with its data."""
    kept: list[tuple[Model, Dataset, Dataset]] = []
    found: dict[str, list[Tensor]] = {}
    for name in OBJECTIVES:
        for seed in range(seeds):
            model, data, held_out = trained(folder, name, steps, seed)
            kept = kept or [(model, data, held_out)]
            nats = model.likelihood().bound(values_of(held_out), draws=DRAWS).total
            found.setdefault(name, []).append(units.bits(nats) / model.spec.dim)
            print(f"{name}, seed {seed}: {float(found[name][-1].mean()):.3f} bits/dim", flush=True)
    return list(by_objective(found)), *kept[0]


def by_objective(found: Mapping[str, list[Tensor]]) -> Iterator[dict[str, object]]:
    """Rows of the bits/dim of images, (N,), by objective and seed: their means, and those over the first objective."""
    first = torch.stack(next(iter(found.values())))
    for name, each in found.items():
        bits = torch.stack(each)
        row: dict[str, object] = {"noise levels": name}
        row |= {f"seed {seed}": estimate(values, {}) for seed, values in enumerate(bits)}
        yield {**row, "over the default": estimate((bits - first).mean(0), {})}


def bound_grids(model: Model, data: Dataset) -> dict[str, Grid]:
    """The grids of the whole schedule on which bounds are compared."""
    return {"even in log-SNR": UniformLogSNR(), "equal dissipation": dissipation_of(model, data)}


def dissipation_of(model: Model, data: Dataset, *, labels: bool = False) -> EqualDissipation:
    """The grid of equal dissipation of a model, measured on training images; with `labels` of the guided denoiser."""
    chosen = data.subset(range(min(MEASURED, len(data))))
    likelihood = model.likelihood()
    x = likelihood.encode(values_of(chosen))
    label = chosen.batch(range(len(chosen)))[1] if labels else None
    denoiser = model.guided() if labels else likelihood.denoiser
    return measure_dissipation(denoiser, x, example_noise(0, Stream.GRID, 0, range(len(x)))(x), label=label)


def bounds(model: Model, data: Dataset, held_out: Dataset) -> Rows:
    """Returns the bound by number of steps and grid, in bits/dim, and its excess over that of the even grid."""
    likelihood = model.likelihood()
    x = likelihood.encode(values_of(held_out))
    rows: Rows = []
    for steps in BOUND_STEPS:
        totals = {}
        for name, grid in bound_grids(model, data).items():
            times = grid(model.denoiser.schedule, steps)
            randn = example_noise(0, Stream.PATH, 0, range(len(x)))
            total = bound(likelihood.denoiser, x, times, quantization=likelihood.quantization, randn=randn).total
            totals[name] = units.bits(total) / model.spec.dim
        even = next(iter(totals.values()))
        for name, bits in totals.items():
            rows.append({"T": steps, "grid": name, "bits/dim": estimate(bits, {}), "over even": over(bits, even)})
    return rows


def over(bits: Tensor, other: Tensor) -> Estimate:
    """How far bits (N,) are above others, example by example."""
    return estimate(bits - other, {})


def sample_grids(model: Model, data: Dataset) -> dict[str, Grid]:
    """The grids on which samples are compared, all between the ends of the model's own."""
    first, last = model.ends
    return {
        "default (Karras)": model.config.grid,
        "even in log-SNR": UniformLogSNR(first, last),
        "measured on paths": model.tuned().config.grid,
        "equal dissipation": replace(dissipation_of(model, data, labels=True), first=first, last=last),
    }


def samples(model: Model, data: Dataset) -> Rows:
    """Returns the distances of samples of few steps by grid and sampler."""
    real = values_of(data).flatten(1).double()
    n = len(real)
    directions = mixture.directions(real.shape[1], DIRECTIONS, torch.Generator().manual_seed(0))
    label, rows = model.in_turn(n), []
    for sampler in SAMPLERS:
        exact = model.sample(n, label=label, sampler=sampler, steps=REFERENCE)
        far = mixture.sliced_wasserstein(exact.flatten(1), real, directions)
        rows.append({"sampler": sampler, "steps": REFERENCE, "grid": "default (Karras)", "sliced distance": far})
        for name, grid in sample_grids(model, data).items():
            other = replace(model, config=replace(model.config, grid=grid))
            for steps in SAMPLE_STEPS:
                drawn = other.sample(n, label=label, sampler=sampler, steps=steps)
                row: dict[str, object] = {"sampler": sampler, "steps": steps, "grid": name}
                if sampler != "ddpm":
                    row["rms error"] = float((drawn - exact).square().mean().sqrt())
                row["sliced distance"] = mixture.sliced_wasserstein(drawn.flatten(1), real, directions)
                rows.append(row)
                print(row, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = common.parser(__doc__, "steering")
    options.add_argument("--steps", type=int, default=300, help="training steps of each model")
    options.add_argument("--seeds", type=int, default=2)
    chosen = options.parse_args(arguments)
    objectives, model, data, held_out = noise_levels(chosen.out.with_suffix(""), chosen.steps, chosen.seeds)
    tables = {
        f"held-out bound after {chosen.steps} steps, bits/dim": objectives,
        "bound at T steps": bounds(model, data, held_out),
        f"{len(data):,} samples": samples(model, data),
    }
    at = {row["grid"]: row["over even"] for row in tables["bound at T steps"] if row["T"] == BOUND_STEPS[1]}
    gained = at["equal dissipation"]
    assert isinstance(gained, Estimate)
    goals = [Goal(f"bits/dim at T = {BOUND_STEPS[1]} over the even grid", gained.mean, 0.0, "at most")]
    common.finish(goals, tables, chosen.out, check=chosen.check, values="mean ± half the 95 % interval")


if __name__ == "__main__":
    main()
