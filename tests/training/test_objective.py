"""The objective that each configuration asks for."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion import config
from diffusion.distillation import Distillation
from diffusion.grids import UniformTime
from diffusion.model import build, load
from diffusion.noise_levels import LogNormal, Measured
from diffusion.objectives import Objective, TrajectoryBound, VError
from diffusion.training import objective
from diffusion.training.adaptive import AdaptiveObjective
from diffusion.training.distill import student


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
