"""Copies to a device that the host does not wait for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Returns values on a device.

    A copy from the CPU to CUDA goes through pinned memory and is queued behind the work of the device. From pageable
    memory the host would wait until all of that work is done.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        pinned = values if values.is_pinned() else values.pin_memory()
        return pinned.to(device, non_blocking=True)
    return values.to(device)
