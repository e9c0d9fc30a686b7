"""`diffusion distill`: trains a student of a run's model."""

from __future__ import annotations

from diffusion import training
from diffusion.checkpoint import run_of
from diffusion.commands.options import Distill
from diffusion.commands.train import page_line
from diffusion.distributed import say
from diffusion.errors import InputError
from diffusion.training.distill import student


def distill(options: Distill) -> int:
    """Trains the student and returns the exit code."""
    if any(override.partition("=")[0].strip() == "sampling.steps" for override in options.overrides):
        raise InputError("sampling.steps: are the network evaluations of a student; give them by --nfe")
    run = run_of(options.run)
    name = run.name if run == options.run else f"{run.name}-{options.run.name}"
    out = options.out or run.with_name(f"{name}-{options.nfe}")
    code = training.train(student(options.run, options.nfe, options.overrides), out)
    if code == 0:
        say(page_line(out))
    return code
