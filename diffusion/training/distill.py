"""Distillation: the experiment of a student (`diffusion distill`), and the teacher that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from diffusion import config
from diffusion.config import Config, DistillationConfig, SamplingConfig
from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError
from diffusion.grids import Karras
from diffusion.model import Model, load
from diffusion.model.transfer import in_units_of
from diffusion.samplers import DDIM

# A student starts from its teacher's weights, so it needs a smaller learning rate and fewer steps.
LR_FACTOR = 0.3
STEPS = 2000


def student(run: Path, nfe: int, overrides: Sequence[str] = ()) -> Config:
    """Returns the experiment that teaches a copy of a run's model to sample in `nfe` evaluations of the network,
    without guidance.

    Raises CheckpointError where there is no model, and ConfigError for overrides that cannot be used.
    """
    teacher = load(run, device="cpu").config
    training = replace(teacher.training, steps=STEPS, lr=LR_FACTOR * teacher.training.lr, init="", patience=0, em=0)
    experiment = replace(
        teacher,
        training=training,
        sampler=DDIM(),
        grid=Karras(sigma_min=0.2, sigma_max=20.0),
        sampling=SamplingConfig(steps=nfe, precision=teacher.sampling.precision),
        distillation=DistillationConfig(teacher=str(run)),
    )
    return config.override(experiment, overrides)


def in_units_of_teacher(dataset: Dataset, experiment: Config) -> Dataset:
    """Returns the examples of a student of an imported model in the units of that, which had no data to measure."""
    run = experiment.distillation.teacher
    teacher = load(run, device="cpu") if run else None
    if teacher is None or teacher.config.data.source != "folder" or teacher.config.data.path:
        return dataset
    return replace(dataset, spec=in_units_of(teacher.spec, dataset.spec))


def open_teacher(experiment: Config, spec: DataSpec, device: torch.device) -> Model:
    """Loads the model that an experiment learns from.

    Raises InputError where that model was distilled itself, was trained on data other than `spec`, or has another
    network, schedule or parameterization than the experiment.
    """
    run = experiment.distillation.teacher
    teacher = load(run, device=device)
    if teacher.teacher:
        raise InputError(f"distillation.teacher: {run} was distilled itself, from {teacher.teacher}; learn from that")
    if teacher.spec != spec:
        raise InputError(f"distillation.teacher: {run} was trained on other data, or the folder has changed since")
    for section in ("backbone", "model", "schedule", "parameterization", "observed", "condition"):
        theirs, ours = getattr(teacher.config, section), getattr(experiment, section)
        if theirs != ours:
            raise InputError(f"{section}: must be that of the teacher, {theirs}, got {ours}")
    return teacher
