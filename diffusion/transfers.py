"""Copies to a device that the host does not wait for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def host_memory(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns memory of the CPU, without values yet, from which `to_device` copies to a device.

    It is pinned where the device is CUDA, so that values that are made in it need no further copy to be pinned.
    """
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Returns values on a device.

    A copy from the CPU to CUDA goes through pinned memory and is queued behind the work of the device. From pageable
    memory the host would wait until all of that work is done.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        pinned = values if values.is_pinned() else values.pin_memory()
        return pinned.to(device, non_blocking=True)
    return values.to(device)
