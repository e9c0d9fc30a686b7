"""The state of a run as named tensors: weights, their average, the optimizer's moments and other parts with a state."""

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
    """Anything with a state besides the weights; all processes must call its methods together."""

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state, the same on all processes."""

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the state that `state_dict` returned; an empty one, from a run without it, is a new beginning."""


def state_dict(
    config: Config,
    spec: DataSpec,
    step: int,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
    at_once: int,
) -> dict[str, Part]:
    """Returns the files of a checkpoint, with full tensors on the main process and none on the others, which must call
    this too. `at_once` is the number of examples that the device takes at once.
    """
    tensors: dict[str, Tensor] = {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{OPTIMIZER}{name}/{key}"] = value
    for prefix, other in others.items():
        tensors |= {f"{prefix}/{name}": value for name, value in other.state_dict().items()}
    description = describe(config, spec, step)
    return {
        "model": Part(_on_cpu(average.state_dict()), description),
        "training": Part(_on_cpu(tensors), {"step": step, "at_once": at_once}),
    }


def load_state(
    run: Path,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    others: Mapping[str, Stateful],
    say: Callable[[str], None],
) -> tuple[int, int | None]:
    """Loads the newest whole checkpoint of a run into the arguments.

    Returns its step, 0 if there is none, and the number of examples that the device took at once, None if there is no
    record of it. Damaged checkpoints are named and passed over. Raises CheckpointError if there are checkpoints and
    none of them is whole.
    """
    if not checkpoint.folders(run):
        return 0, None
    folder, problems = checkpoint.find(run)
    for problem in problems:
        say(f"{problem}; using {folder.name} instead")
    saved = checkpoint.read(folder, "training")
    load_weights(average, checkpoint.read(folder, "model").tensors)
    tensors = saved.tensors
    load_weights(network, _under(NETWORK, tensors))
    for name, parameter in network.named_parameters():
        moments = _under(f"{OPTIMIZER}{name}/", tensors)
        optimizer.state[parameter] = {key: sharding.shard_like(value, parameter) for key, value in moments.items()}
    for prefix, other in others.items():
        other.load_state_dict(_under(f"{prefix}/", tensors))
    try:
        step, at_once = int(saved.description["step"]), saved.description.get("at_once")
        at_once = None if at_once is None else int(at_once)
    except checkpoint.DAMAGE as error:
        raise CheckpointError(f"{folder}: damaged checkpoint: its description: {error!r}") from None
    say(f"resuming {run} from step {step}")
    return step, at_once


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads full tensors into a network that may be sharded."""
    own = network.state_dict()
    network.load_state_dict({k: sharding.shard_like(v, own[k]) if k in own else v for k, v in tensors.items()})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Tensors are gathered and moved one after the other: a device might not hold all full ones at once.
    return {name: value.cpu() for name, value in sharding.full_tensors(tensors) if distributed.is_main()}
