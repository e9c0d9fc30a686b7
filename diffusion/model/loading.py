"""From a checkpoint to a model, and from an experiment to its parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import checkpoint, config, distributed
from diffusion.backbones import Backbone
from diffusion.checkpoint import CheckpointError
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError
from diffusion.memory import tune_malloc
from diffusion.model.model import Model


def build(experiment: Config, spec: DataSpec) -> Backbone:
    """A new backbone for an experiment and its data."""
    channels = spec.shape[0]
    outputs = channels * (2 if experiment.model.learned_variance else 1)
    return experiment.backbone.build(channels, outputs, len(spec.classes), spacing=spec.spacing)


def assemble(experiment: Config, network: Any) -> Denoiser:  # noqa: ANN401, a backbone or what accelerate makes of it
    """The denoiser of an experiment around a network."""
    return Denoiser(network, experiment.schedule, experiment.parameterization)


def describe(experiment: Config, spec: DataSpec, step: int) -> dict[str, Any]:
    """What a checkpoint says about its model; the inverse of `load`."""
    return {"config": config.to_dict(experiment), "spec": spec.to_dict(), "step": step}


def load(run: str | Path, *, device: str | torch.device | None = None) -> Model:
    """The model of a run folder or of one checkpoint folder, with averaged weights, ready to use.

    `device` defaults to a GPU of this process if there is one; on a CPU the process keeps from then on the memory it
    frees (`memory.tune_malloc`). Raises CheckpointError when there is nothing usable, naming what is damaged.
    """
    folder, problems = checkpoint.find(Path(run))
    for problem in problems:
        tqdm.write(f"{problem}; using {folder.name} instead")
    part = checkpoint.read(folder, "model")
    try:
        experiment = config.from_dict(part.description["config"], where=str(folder))
        spec, step = DataSpec.from_dict(part.description["spec"]), int(part.description["step"])
        backbone = _described(experiment, spec, part.tensors)
    except InputError:
        raise
    except checkpoint.DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: its description does not fit: {error!r}") from None
    place = distributed.device() if device is None else torch.device(device)
    if place.type == "cpu":
        tune_malloc()
    backbone.to(place).eval().requires_grad_(False)
    return Model(assemble(experiment, backbone), spec, experiment, step, place)


def _described(experiment: Config, spec: DataSpec, tensors: Mapping[str, Tensor]) -> Backbone:
    # Without memory first: what a description asks for is taken only where the file has brought the values.
    with torch.device("meta"):
        expected = {name: value.shape for name, value in build(experiment, spec).state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ValueError(f"{len(wrong)} tensors are others than the network's, such as {wrong[0]}")
    backbone = build(experiment, spec)
    backbone.load_state_dict(dict(tensors))
    return backbone
