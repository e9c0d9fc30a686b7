"""Sharding of weights, gradients, averaged weights and the optimizer's moments over the processes (FSDP2).

Zhao et al. (2023, arXiv 2304.11277), in the form of torch's `fully_shard`: every tensor is cut along its first axis,
the outputs of a layer. The weights of a block are gathered before the block runs and dropped after it. Accelerate's
configuration asks for sharding, but accelerate itself shards on GPUs only; done here, it is the same on every device
and is tested on CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.backbones import Backbone
from diffusion.errors import require

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from torch.distributed.tensor import DTensor


def requested() -> bool:
    """Whether the processes were launched to shard, by the variables that `accelerate launch` sets.

    Raises InputError for the first version of FSDP.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true" or distributed.count() == 1:
        return False
    version = os.environ.get("FSDP_VERSION", "1")
    require(version == "2", "fsdp_version", "2 in the configuration of accelerate", version)
    return True


def shard(network: Backbone, device: torch.device, dtype: torch.dtype) -> None:
    """Cuts every parameter in place, block by block, so that each process keeps its own part.

    On GPUs the weights are gathered in `dtype`, in which the network multiplies, which takes half of the time where
    that is bf16 or fp16. Gradients are added up in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, policy = init_device_mesh(device.type, (distributed.count(),)), policy_for(dtype, device)
    for block in network.residual_blocks():
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)


def policy_for(dtype: torch.dtype, device: torch.device) -> MixedPrecisionPolicy:
    """Returns the dtypes of what processes exchange: those of the weights on CPUs and in float32."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if device.type == "cpu" or dtype == torch.float32:
        return MixedPrecisionPolicy()
    # Inputs stay as they are, since log-SNR needs more digits; autocast casts those of products.
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


def full_tensors(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the names and full values of tensors that may be sharded; all processes must run through it."""
    for name, value in tensors.items():
        yield name, (value.full_tensor() if is_sharded(value) else value)


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Moves a full value to the device of its parameter, in the same memory layout and sharded alike.

    A value of another shape, such as the optimizer's count of steps, is only moved.
    """
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    if not is_sharded(parameter):
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    from torch.distributed.tensor import distribute_tensor

    # Every process has read the full value, so there is nothing to send.
    mesh = parameter.device_mesh
    return distribute_tensor(value.to(parameter.device), mesh, parameter.placements, src_data_rank=None)


def is_sharded(value: Tensor) -> TypeGuard[DTensor]:
    """Whether this process holds only a part of the tensor."""
    # Not by isinstance: torch.distributed.tensor takes a while to import, and a single process does not need it.
    return hasattr(value, "full_tensor")
