"""`diffusion train`: trains in a run folder."""

from __future__ import annotations

from pathlib import Path

from diffusion import config, shipped, training
from diffusion.commands.options import Train
from diffusion.distributed import say


def train(options: Train) -> int:
    """Trains the experiment of a configuration and returns the exit code."""
    file = config.locate(options.config)
    if file.is_relative_to(shipped.folder()):
        say(f"configuration {file}")
    run = options.out or Path("runs") / file.stem
    return training.train(config.load(file, options.overrides), run, strict=options.strict)
