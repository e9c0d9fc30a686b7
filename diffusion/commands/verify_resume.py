"""`diffusion verify-resume`: proves on this machine that an interrupted run resumes exactly."""

from __future__ import annotations

from diffusion import config
from diffusion.commands.options import VerifyResume
from diffusion.errors import InputError
from diffusion.training import verify


def verify_resume(options: VerifyResume) -> int:
    """Prints what differs between an interrupted run and a whole one; returns 1 if anything does."""
    if any(override.partition("=")[0].strip() == "training.steps" for override in options.overrides):
        raise InputError("training.steps: has no effect here; give the steps of the two runs by --steps")
    found = verify.verify_resume(config.load(options.config, options.overrides), options.steps)
    resumed = f"resumed from step {options.steps // 2} of {options.steps}, with training.deterministic = true"
    print("\n".join([f"{resumed}: not the same", *found]) if found else f"{resumed}: the same to the last bit")
    return int(bool(found))
