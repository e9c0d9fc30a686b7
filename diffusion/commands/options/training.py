"""The options of the commands that train: train, distill, verify-resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion.commands.options.common import ConfigFile, Overrides, Run


@dataclass(frozen=True)
class Train:
    """Train a model. The same command again goes on where it stopped; Ctrl-C saves."""

    config: ConfigFile
    """A TOML file, as in configs/."""
    overrides: Overrides = ()
    """Values that replace those of the file, such as data.path=photos training.steps=5000."""
    out: Path | None = None
    """The run folder; runs/NAME for configs/NAME.toml by default."""
    strict: bool = False
    """Refuse to go on from an older checkpoint where the newest is damaged."""


@dataclass(frozen=True)
class Distill:
    """Teach a copy of a trained model to sample in a few network evaluations, guidance included."""

    run: Run
    """The run folder of the teacher."""
    overrides: Overrides = ()
    """Values of the student's experiment, such as training.steps=5000 distillation.substeps=4."""
    nfe: int = 4
    """Network evaluations per sample."""
    out: Path | None = None
    """The student's run folder; RUN-NFE by default, as in runs/flowers-4."""


@dataclass(frozen=True)
class VerifyResume:
    """Prove on this machine that a run of a configuration, interrupted and started again, ends as if it had not been:
    the same weights, moments and losses to the last bit. Otherwise the exit code is 1.
    """

    config: ConfigFile
    """A TOML file, as in configs/."""
    overrides: Overrides = ()
    """Values that replace those of the file."""
    steps: int = 6
    """Steps of the run, which is interrupted after half of them."""
