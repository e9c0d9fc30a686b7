"""The training objective of an experiment: the loss that its configuration asks for."""

from __future__ import annotations

import torch

from diffusion.backbones import Backbone
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.distillation import Distillation
from diffusion.grids import UniformTime
from diffusion.noise_levels import Adaptive, LogNormal
from diffusion.objectives import AnyObjective, Objective, TrajectoryBound
from diffusion.training.adaptive import AdaptiveObjective
from diffusion.training.distill import open_teacher

# The share of the noise levels of examples that are observed which are uniform in log-SNR, so that none is left out.
UNIFORM = 0.1


def build(experiment: Config, spec: DataSpec, network: Backbone, device: torch.device) -> AnyObjective:
    """Returns the objective of an experiment; for a student, `network` also receives its teacher's weights.

    Raises InputError for a teacher that does not suit the experiment.
    """
    if experiment.distillation.teacher:
        return from_teacher(experiment, spec, network, device)
    return from_data(experiment)


def from_data(experiment: Config) -> Objective | AdaptiveObjective | TrajectoryBound:
    """Returns the objective of a network that learns from data: the bound of a short trajectory where
    `training.trajectory` asks for one, else the weighted error, whose noise levels adapt where they are measured.

    Measured noise levels are those of all examples, as they are measured on the losses of all.
    """
    if steps := experiment.training.trajectory:
        return TrajectoryBound(UniformTime()(experiment.schedule, steps))
    noise_levels, observed, hybrid = experiment.noise_levels, experiment.observed, experiment.training.hybrid
    if isinstance(noise_levels, Adaptive):
        return AdaptiveObjective(Objective(noise_levels, experiment.weighting, hybrid), noise_levels)
    by_pixel = LogNormal(observed.noise_mean, observed.noise_std, UNIFORM) if experiment.observes else None
    return Objective(noise_levels, experiment.weighting, hybrid, observed_levels=by_pixel)


def from_teacher(experiment: Config, spec: DataSpec, network: Backbone, device: torch.device) -> Distillation:
    """Returns the objective of a student and gives its network the weights of the teacher.

    Raises InputError for a teacher that does not suit the experiment.
    """
    teacher = open_teacher(experiment, spec, device)
    backbone = teacher.denoiser.backbone
    assert isinstance(backbone, Backbone)
    network.load_state_dict(backbone.state_dict())
    times = experiment.grid(experiment.schedule, experiment.sampling.steps)
    return Distillation(teacher.guided(autocast=True), times, experiment.distillation.substeps)
