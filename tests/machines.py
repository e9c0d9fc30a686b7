"""Machines with other devices than this one, as torch would report them; nothing computes on these devices."""

from __future__ import annotations

import pytest
import torch

# What launchers and users set, and a test must not inherit.
VARIABLES = (
    *("DIFFUSION_DEVICE", "CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"),
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
)


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False, **variables: str) -> list[object]:
    """Has torch report so many CUDA devices and an MPS device, in a process with these environment variables.

    Returns a list that receives the devices that are made the current one.
    """
    current: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: mps)
    monkeypatch.setattr(torch.version, "cuda", "13.0" if cuda else None)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return current
