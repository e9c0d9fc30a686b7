"""Loads a model from a checkpoint, and builds the backbone and the denoiser of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import checkpoint, config, devices, distributed
from diffusion.backbones import Backbone
from diffusion.checkpoint import CheckpointError
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError
from diffusion.memory import tune_malloc
from diffusion.model.model import Model
from diffusion.progress import say


def build(experiment: Config, spec: DataSpec) -> Backbone:
    """Builds a new backbone for an experiment and its data."""
    channels = spec.shape[0]
    outputs = channels * (2 if experiment.model.learned_variance else 1)
    classes = len(spec.classes)
    return experiment.backbone.build(
        channels,
        outputs,
        classes,
        spacing=spec.spacing,
        mapped=experiment.mapped,
        condition_channels=experiment.condition_channels(channels),
    )


def assemble(experiment: Config, network: Any) -> Denoiser:  # noqa: ANN401, a backbone or what accelerate makes of it
    """Wraps a network into the denoiser of an experiment."""
    return Denoiser(network, experiment.schedule, experiment.parameterization)


def describe(experiment: Config, spec: DataSpec, step: int) -> dict[str, Any]:
    """The description of a model in its checkpoint, from which `load` makes the model again."""
    return {"config": config.to_dict(experiment), "spec": spec.to_dict(), "step": step}


def load(run: str | Path, *, device: str | torch.device | None = None) -> Model:
    """Loads the model of a run folder or of one checkpoint folder, with the averaged weights.

    `device` is a device of torch, or auto, cpu, cuda, cuda:N or mps; by default that of `distributed.device`: this
    process's GPU, if there is one. On a CPU the process from then on keeps the memory that it frees
    (`memory.tune_malloc`).

    Raises CheckpointError, which names what is damaged, when no checkpoint can be used, and InputError for a device
    that this machine does not have.
    """
    chosen = _device(device)
    folder, problems = checkpoint.find(Path(run))
    for problem in problems:
        say(f"{problem}; using {folder.name} instead")
    stored = checkpoint.read(folder, "model")
    try:
        experiment = config.from_dict(stored.description["config"], where=str(folder))
        spec, step = DataSpec.from_dict(stored.description["spec"]), int(stored.description["step"])
        backbone = _with_weights(experiment, spec, stored.tensors)
    except InputError:
        raise
    except checkpoint.DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: its description does not fit: {error!r}") from None
    if chosen.type == "cpu":
        tune_malloc()
    backbone.to(chosen).eval().requires_grad_(False)
    return Model(assemble(experiment, backbone), spec, experiment, step, chosen)


def _device(asked: str | torch.device | None) -> torch.device:
    """The device that the caller of `load` asks for; a device of torch is taken as it is."""
    if isinstance(asked, torch.device):
        return asked
    return distributed.device() if asked is None else distributed.own(devices.named(asked))


def _with_weights(experiment: Config, spec: DataSpec, tensors: Mapping[str, Tensor]) -> Backbone:
    """The backbone of an experiment with the weights `tensors`.

    Raises ValueError for tensors of other names or shapes.
    """
    # The network is built without memory first. A damaged description could ask for any amount, whereas the tensors are
    # as large as their file.
    with torch.device("meta"):
        expected = {name: value.shape for name, value in build(experiment, spec).state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ValueError(f"{len(wrong)} tensors differ from the network's in name or shape, such as {wrong[0]}")
    backbone = build(experiment, spec)
    backbone.load_state_dict(dict(tensors))
    return backbone
