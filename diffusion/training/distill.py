"""Learning from a trained model instead of from data alone: what `diffusion distill` trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from diffusion import config
from diffusion.backbones import Backbone
from diffusion.config import Config, DistillationConfig, SamplingConfig
from diffusion.data import DataSpec
from diffusion.distillation import Distillation
from diffusion.errors import InputError
from diffusion.grids import Karras, UniformTime
from diffusion.model import Model, load
from diffusion.noise_levels import Measured
from diffusion.objectives import AnyObjective, Objective, TrajectoryBound
from diffusion.samplers import DDIM
from diffusion.training.adaptive import AdaptiveObjective

# A student starts from its teacher's weights, so it needs a smaller rate and fewer steps.
SHARE_OF_RATE = 0.3
STEPS = 2000


def student(run: Path, calls: int, overrides: Sequence[str] = ()) -> Config:
    """The experiment that teaches a copy of a run's model to sample in that many calls, without guidance.

    Raises CheckpointError where there is no model, and ConfigError for overrides that cannot be used.
    """
    teacher = load(run, device="cpu").config
    training = replace(teacher.training, steps=STEPS, lr=SHARE_OF_RATE * teacher.training.lr)
    experiment = replace(
        teacher,
        training=training,
        sampler=DDIM(),
        grid=Karras(sigma_min=0.2, sigma_max=20.0),
        sampling=SamplingConfig(steps=calls, precision=teacher.sampling.precision),
        distillation=DistillationConfig(teacher=str(run)),
    )
    return config.override(experiment, overrides)


def objective(experiment: Config, spec: DataSpec, network: Backbone, device: torch.device) -> AnyObjective:
    """What a network is trained on. That of a student receives its teacher's weights."""
    if not experiment.distillation.teacher:
        if steps := experiment.training.trajectory:
            return TrajectoryBound(UniformTime()(experiment.schedule, steps))
        levels = experiment.noise_levels
        drawn = Objective(levels, experiment.weighting, experiment.training.hybrid)
        return AdaptiveObjective(drawn, levels) if isinstance(levels, Measured) else drawn
    teacher = open_teacher(experiment, spec, device)
    backbone = teacher.denoiser.backbone
    assert isinstance(backbone, Backbone)
    network.load_state_dict(backbone.state_dict())
    times = experiment.grid(experiment.schedule, experiment.sampling.steps)
    return Distillation(teacher.guided(autocast=True), times, experiment.distillation.substeps)


def open_teacher(experiment: Config, spec: DataSpec, device: torch.device) -> Model:
    """The model that an experiment learns from. Raises InputError if it does not suit."""
    run = experiment.distillation.teacher
    teacher = load(run, device=device)
    if teacher.teacher:
        raise InputError(f"distillation.teacher: {run} was distilled itself, from {teacher.teacher}; learn from that")
    if teacher.spec != spec:
        raise InputError(f"distillation.teacher: {run} was trained on other data, or the folder has changed since")
    for section in ("backbone", "model", "schedule", "parameterization"):
        theirs, ours = getattr(teacher.config, section), getattr(experiment, section)
        if theirs != ours:
            raise InputError(f"{section}: must be that of the teacher, {theirs}, got {ours}")
    return teacher
