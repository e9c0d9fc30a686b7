"""What a run must remember, as named tensors: weights, their average, the optimizer's moments, and whatever else is to
go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion import checkpoint, distributed
from diffusion.checkpoint import CheckpointError, Part
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.model import describe
from diffusion.training import sharding

OPTIMIZER = "optimizer/"
NETWORK = "network/"


class Stateful(Protocol):
    """What has a state besides the weights; all processes must call its methods together."""

    def tensors(self) -> dict[str, Tensor]:
        """The state, the same on all processes."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; of nothing, where there was no such state, a new beginning."""


def parts(
    config: Config,
    spec: DataSpec,
    step: int,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
    at_once: int,
) -> dict[str, Part]:
    """The files of a checkpoint, with full tensors on the main process and none on the others, which must call this
    too. `at_once` is the number of examples that the device takes at once.
    """
    tensors: dict[str, Tensor] = {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{OPTIMIZER}{name}/{key}"] = value
    for place, other in others.items():
        tensors |= {f"{place}/{name}": value for name, value in other.tensors().items()}
    description = describe(config, spec, step)
    return {
        "model": Part(_kept(average.state_dict()), description),
        "training": Part(_kept(tensors), {"step": step, "at_once": at_once}),
    }


def restore(
    run: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
    say: Callable[[str], None],
) -> tuple[int, int | None]:
    """Puts the newest whole checkpoint of a run into the arguments and returns its step, 0 if there is none, and how
    many examples the device took at once.

    Damaged checkpoints are named and passed over. Raises CheckpointError if there are some and none of them is whole.
    """
    if not checkpoint.folders(run):
        return 0, None
    folder, problems = checkpoint.find(run)
    for problem in problems:
        say(f"{problem}; using {folder.name} instead")
    saved = checkpoint.read(folder, "training")
    load(average, checkpoint.read(folder, "model").tensors)
    tensors = saved.tensors
    load(network, _under(NETWORK, tensors))
    for name, parameter in network.named_parameters():
        keys = (key for key in tensors if key.startswith(f"{OPTIMIZER}{name}/"))
        optimizer.state[parameter] = {
            key.rpartition("/")[2]: sharding.shard_like(tensors[key], parameter) for key in keys
        }
    for place, other in others.items():
        other.load(_under(f"{place}/", tensors))
    try:
        step, at_once = int(saved.description["step"]), saved.description.get("at_once")
        at_once = None if at_once is None else int(at_once)
    except checkpoint.DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: its description: {error!r}") from None
    say(f"resuming {run} from step {step}")
    return step, at_once


def load(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts full tensors into a network that may be sharded."""
    own = network.state_dict()
    network.load_state_dict({k: sharding.shard_like(v, own[k]) if k in own else v for k, v in tensors.items()})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # One after the other to the CPU: all at once a device might not hold them.
    return {name: value.cpu() for name, value in sharding.full_tensors(tensors) if distributed.is_main()}
