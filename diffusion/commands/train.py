"""`diffusion train`: trains in a run folder."""

from __future__ import annotations

from pathlib import Path

from diffusion import config, training
from diffusion.commands.options import Train


def train(options: Train) -> int:
    """Trains the experiment of a configuration and returns the exit code."""
    run = options.out or Path("runs") / options.config.stem
    return training.train(config.load(options.config, options.overrides), run, strict=options.strict)
