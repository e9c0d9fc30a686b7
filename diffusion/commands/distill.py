"""`diffusion distill`: trains a student of a run's model."""

from __future__ import annotations

from diffusion import training
from diffusion.commands.options import Distill
from diffusion.training.distill import student


def distill(options: Distill) -> int:
    """Trains the student and returns the exit code."""
    out = options.out or options.run.with_name(f"{options.run.name}-{options.nfe}")
    return training.train(student(options.run, options.nfe, options.overrides), out)
