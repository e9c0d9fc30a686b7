"""Loads a model from a checkpoint, and builds the backbone and the denoiser of an experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

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

# The functions of torch that networks make tensors by: of a size, and of numbers between two ends.
SIZED = {torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand}
SPACED = {torch.arange, torch.linspace, torch.logspace}
# The most values of constants that a network has beside those of its checkpoint.
CONSTANTS = 2**16


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
    linear = experiment.model.variance == "linear"
    return Denoiser(network, experiment.schedule, experiment.parameterization, linear_variance=linear)


def describe(experiment: Config, spec: DataSpec, step: int) -> dict[str, Any]:
    """The description of a model in its checkpoint, from which `load` makes the model again."""
    return {"config": config.to_dict(experiment), "spec": spec.to_dict(), "step": step}


def load(run: str | Path, *, device: str | torch.device | None = None) -> Model:
    """Loads the model of a run folder or of one checkpoint folder, with the averaged weights.

    `device` is a device of torch, or auto, cpu, cuda, cuda:N or mps; by default that of `distributed.device`: this
    process's GPU, if there is one. On a CPU the process from then on keeps the memory that it frees
    (`memory.tune_malloc`). Within `keeping` a model that was the last one is not read again.

    Raises CheckpointError, which names what is damaged, when no checkpoint can be used, and InputError for a device
    that this machine does not have.
    """
    chosen = _device(device)
    folder, problems = checkpoint.find(Path(run))
    for problem in problems:
        say(f"{problem}; using {folder.name} instead")
    kept, key = _KEPT.get(), (folder.resolve(), folder.stat().st_mtime_ns, chosen)
    if kept is not None and key in kept:
        return kept[key]
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
    model = Model(assemble(experiment, backbone), spec, experiment, step, chosen)
    if kept is not None:
        kept.clear()
        kept[key] = model
    return model


# The model that was loaded last, by its checkpoint, the time at which that was written, and its device.
_KEPT: ContextVar[dict[tuple[Path, int, torch.device], Model] | None] = ContextVar("kept", default=None)


@contextmanager
def keeping() -> Iterator[None]:
    """A context in which the model that was loaded last is kept, for programs that load the same one again and again.

    It is loaded anew once its run has a newer checkpoint.
    """
    before = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(before)


def _device(asked: str | torch.device | None) -> torch.device:
    """The device that the caller of `load` asks for; a device of torch is taken as it is."""
    if isinstance(asked, torch.device):
        return asked
    return distributed.device() if asked is None else distributed.own(devices.named(asked))


def _with_weights(experiment: Config, spec: DataSpec, tensors: Mapping[str, Tensor]) -> Backbone:
    """The backbone of an experiment with the weights `tensors`.

    Raises ValueError for tensors of other names or shapes.
    """
    # A damaged description could ask for any amount of memory, whereas the tensors are as large as their file.
    with Bounded(sum(value.numel() for value in tensors.values()) + CONSTANTS):
        backbone = build(experiment, spec)
    expected = {name: value.shape for name, value in backbone.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise ValueError(f"{len(wrong)} tensors differ from the network's in name or shape, such as {wrong[0]}")
    backbone.load_state_dict(dict(tensors))
    return backbone


class Bounded(TorchFunctionMode):
    """Within this context at most `values` values are made in new tensors, all together: they are counted before.

    Raises ValueError for more. Torch's device "meta" would tell the size of a network too, but takes longer to import
    what it needs than all else that `load` does.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values, self.left = values, values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Calls a function of torch, once the values that it makes are counted."""
        kwargs = kwargs or {}
        if func in SIZED or func in SPACED:
            given = [*args, *(kwargs[name] for name in ("size", "end", "steps") if name in kwargs)]
            numbers = [n for each in given for n in (each if isinstance(each, (tuple, list)) else (each,))]
            self.left -= math.prod(numbers) if func in SIZED else math.ceil(max(numbers))
            if self.left < 0:
                raise ValueError(f"a network of more than {self.values:,} values, which are all that its file has")
        return func(*args, **kwargs)
