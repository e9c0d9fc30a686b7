"""Loads a model from a run folder, or from an address on the hub: `diffusion.load`."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from diffusion import model
from diffusion.model import Model


def load(run: str | Path, *, revision: str | None = None, device: str | torch.device | None = None) -> Model:
    """Loads the model of a run folder, of one checkpoint folder, or of an address on the hub (`model.load`).

    An address is hf://OWNER/NAME, or OWNER/NAME where neither this nor a folder OWNER is on this machine. `revision` is
    a branch, a tag or a commit of it. Raises InputError as `resolve.local` does, and for a revision of a run on this
    machine.
    """
    if revision is None and os.path.lexists(run):
        return model.load(run, device=device)
    from diffusion.exchange import resolve  # What asks the hub takes a while to import.

    address = resolve.address_of(run, revision or "")
    return model.load(resolve.local(address) if address else run, device=device)
