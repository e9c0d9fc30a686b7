"""`diffusion demo`: trains on handwritten digits by the shipped configuration."""

from __future__ import annotations

from pathlib import Path

from diffusion.commands.options import Demo, Train
from diffusion.commands.train import train

CONFIGURATION = "digits"


def demo(options: Demo) -> int:
    """Trains the experiment of configs/digits.toml, as `diffusion train digits` does, and returns the exit code."""
    return train(Train(Path(CONFIGURATION), options.overrides, options.out))
