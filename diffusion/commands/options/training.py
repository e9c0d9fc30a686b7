"""The options of the commands that train: demo, train, distill, verify-resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion.commands.options.common import ConfigFile, Device, Overrides, Run


@dataclass(frozen=True)
class Demo:
    """Train on handwritten digits that come with the package, then sample, restore and evaluate: minutes on a CPU.

    It is `diffusion train digits`, whose experiment is in configs/digits.toml.
    """

    overrides: Overrides = ()
    """Values that replace those of the experiment, such as training.steps=300."""
    out: Path | None = None
    """The run folder; runs/digits by default."""
    device: Device = None


@dataclass(frozen=True)
class Train:
    """Train a model. The same command again goes on where it stopped; Ctrl-C saves."""

    config: ConfigFile
    """A TOML file, or the name of a shipped one, such as digits or folder64."""
    overrides: Overrides = ()
    """Values that replace those of the file, such as data.path=photos training.steps=5000."""
    out: Path | None = None
    """The run folder; runs/NAME for configs/NAME.toml by default."""
    strict: bool = False
    """Refuse to go on from an older checkpoint where the newest is damaged."""
    device: Device = None


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
    device: Device = None


@dataclass(frozen=True)
class VerifyResume:
    """Prove on this machine that a run of a configuration, interrupted and started again, ends as if it had not been:
    the same weights, moments and losses to the last bit. Otherwise the exit code is 1.
    """

    config: ConfigFile
    """A TOML file, or the name of a shipped one."""
    overrides: Overrides = ()
    """Values that replace those of the file."""
    steps: int = 6
    """Steps of the run, which is interrupted after half of them."""
    device: Device = None
