"""What a run is trained on, in RUN/machine.json: for reports, and for whoever asks later why it was slow."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch

import diffusion
from diffusion import distributed
from diffusion.files import write_text
from diffusion.precision import name_of
from diffusion.reporting.names import MACHINE
from diffusion.threads import cores


def record(run: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Writes what a run is trained on into its folder, in place of an earlier record."""
    write_text(run / MACHINE, json.dumps(described(device, dtype), indent=1))


def described(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the device, the precision of the network, the processes, their cores and threads, and versions."""
    versions = {
        "diffusion": diffusion.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": name_of(dtype),
        "processes": distributed.count(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: str(version) for name, version in versions.items() if version},
    }
