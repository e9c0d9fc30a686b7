"""What a run must remember: weights, their average and the optimizer's moments, as named tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion import checkpoint
from diffusion.checkpoint import Part
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.model import describe

OPTIMIZER = "optimizer/"
NETWORK = "network/"


def parts(
    config: Config, spec: DataSpec, step: int, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Part]:
    """The files of a checkpoint."""
    tensors: dict[str, Tensor] = {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"{OPTIMIZER}{name}/{key}"] = value
    description = describe(config, spec, step)
    return {"model": Part(average.state_dict(), description), "training": Part(tensors, {"step": step})}


def restore(
    run: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, say: Callable[[str], None]
) -> int:
    """Puts the newest whole checkpoint of a run into the arguments and returns its step, 0 if there is none.

    Damaged checkpoints are named and passed over. Raises CheckpointError if there are some and none of them is whole.
    """
    if not checkpoint.folders(run):
        return 0
    folder, problems = checkpoint.find(run)
    for problem in problems:
        say(f"{problem}; using {folder.name} instead")
    saved = checkpoint.read(folder, "training")
    average.load_state_dict(dict(checkpoint.read(folder, "model").tensors))
    tensors = saved.tensors
    prefix = len(NETWORK)
    network.load_state_dict({key[prefix:]: value for key, value in tensors.items() if key.startswith(NETWORK)})
    for name, parameter in network.named_parameters():
        keys = (key for key in tensors if key.startswith(f"{OPTIMIZER}{name}/"))
        optimizer.state[parameter] = {key.rpartition("/")[2]: _placed(tensors[key], parameter) for key in keys}
    step = int(saved.description["step"])
    say(f"resuming {run} from step {step}")
    return step


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment on the device and in the memory layout of its parameter, which the fused optimizer takes for granted."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
