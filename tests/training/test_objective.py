"""The objective that each configuration asks for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from diffusion import config
from diffusion.data import Dataset, DataSpec
from diffusion.distillation import Distillation
from diffusion.grids import UniformTime
from diffusion.model import build, load
from diffusion.noise_levels import LogNormal, Measured
from diffusion.objectives import Objective, TrajectoryBound, VError
from diffusion.training import objective
from diffusion.training.adaptive import AdaptiveObjective
from diffusion.training.distill import student
from diffusion.training.trainer import Trainer


def test_the_weighted_error_has_the_noise_levels_and_the_weight_of_the_configuration() -> None:
    experiment = config.from_dict(
        {"weighting": {"name": "v"}, "model": {"learned_variance": True}, "training": {"hybrid": 0.25}}
    )
    assert objective.from_data(experiment) == Objective(experiment.noise_levels, VError(), 0.25)


def test_a_short_trajectory_is_trained_by_its_bound() -> None:
    experiment = config.from_dict({"training": {"trajectory": 5}})
    found = objective.from_data(experiment)
    assert isinstance(found, TrajectoryBound)
    assert torch.equal(found.times, UniformTime()(experiment.schedule, 5))


def test_measured_noise_levels_adapt() -> None:
    experiment = config.from_dict({"noise_levels": {"name": "measured", "bins": 4}, "weighting": {"name": "exact"}})
    found = objective.from_data(experiment)
    assert isinstance(found, AdaptiveObjective) and found.noise_levels == Measured(bins=4)


def test_observed_examples_have_the_noise_levels_of_their_section() -> None:
    experiment = config.from_dict({"observed": {"share": 0.5, "noise_mean": 0.7, "noise_std": 1.5}})
    found = objective.from_data(experiment)
    assert isinstance(found, Objective) and found.observed_levels == LogNormal(0.7, 1.5, objective.UNIFORM)
    plain = objective.from_data(config.from_dict({}))
    assert isinstance(plain, Objective) and plain.observed_levels is None


def test_a_student_gets_the_weights_of_its_teacher_and_the_times_of_its_grid(trained: Path) -> None:
    teacher = load(trained, device="cpu")
    experiment = student(trained, 3, ["distillation.substeps=2"])
    torch.manual_seed(1)
    network = build(experiment, teacher.spec)
    found = objective.build(experiment, teacher.spec, network, torch.device("cpu"))
    assert isinstance(found, Distillation) and found.substeps == 2
    assert torch.equal(found.times, experiment.grid(experiment.schedule, 3))
    own = teacher.denoiser.backbone.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, own[name]) for name, value in network.state_dict().items())


def test_without_a_teacher_the_network_is_left_as_it_is(trained: Path) -> None:
    model = load(trained, device="cpu")
    network = build(model.config, model.spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = objective.build(model.config, model.spec, network, torch.device("cpu"))
    assert found == objective.from_data(model.config)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def points(count: int, correlation: float) -> Dataset:
    """Points in the plane, Gaussian of mean 0 and variance 1."""
    root = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    values = (np.random.default_rng(0).normal(size=(count, 2)) @ root.T).astype(np.float32)
    return Dataset(values, DataSpec((2,), None), None, [str(i) for i in range(count)])


def misses(unseen: float, run: Path) -> tuple[float, float]:
    """Trains a small network on points with a share of unseen coordinates.

    Returns by how many nats log p(seen) + log p(hidden | seen) misses log p(x), and the bound on log p(seen) its
    exact value, on average.
    """
    tree = {
        "data": {"source": "swiss_roll"},
        "backbone": {"name": "mlp", "width": 16, "blocks": 1, "octaves": 0},
        "schedule": {"name": "edm", "sigma_min": 0.02, "sigma_max": 40.0},
        "training": {"steps": 200, "batch": 64, "lr": 0.02, "warmup": 10, "precision": "fp32"},
        "observed": {"share": 0.8, "noisy": 0.0, "unseen": unseen},
    }
    data, known = points(4000, 0.9), torch.tensor([True, False])
    trainer = Trainer(config.from_dict(tree), data, data.subset([]), run)
    while trainer.step < 200:
        trainer.update(trainer.maker(trainer.step))
    model, x = trainer.model, torch.from_numpy(np.asarray(data.values[:500]))
    of_x, of_seen, of_hidden = (
        float(model.bound(x, draws=32, **masks).total.mean())  # type: ignore[arg-type]
        for masks in ({}, {"seen": known}, {"known": known})
    )
    return of_seen + of_hidden - of_x, of_seen - math.log(2 * math.pi * math.e) / 2


def test_the_chain_rule_holds_for_a_network_that_has_met_unseen_pixels(tmp_path: Path) -> None:
    """Measured: 0.17 and 0.15 nats, and without 0.84 and 0.95, for a network of 16 units after 200 steps."""
    chain, seen = misses(0.5, tmp_path / "with")
    assert abs(chain) < 0.3 and abs(seen) < 0.3
    without = misses(0.0, tmp_path / "without")
    assert without[0] > 2.5 * abs(chain) and without[1] > 2.5 * abs(seen)
