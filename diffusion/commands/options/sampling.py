"""The options of the commands that draw new images: sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffusion.commands.options.common import DrawArguments, MethodName, Run


@dataclass(frozen=True)
class Sample:
    """Draw new images from a trained model, or with --image and --mask restore one."""

    run: Run
    """A run folder."""
    draw: Annotated[DrawArguments, tyro.conf.arg(name="")] = DrawArguments()
    out: Path | None = None
    """Where to write; RUN/samples-SEED or RUN/restored-NAME by default."""
    film: bool = False
    """Write the trajectory too, as a strip and an animation."""
    tune: bool = False
    """First measure on the model itself at which times its network evaluations are spent best."""
    image: Path | None = None
    """An image to restore. A transparent PNG is its own mask."""
    mask: Path | None = None
    """The mask of the image: white is known, black is to be filled."""
    method: MethodName = "auto"
    """The method of restoration."""
    noise: float = 0.0
    """Standard deviation of the noise on the known part of the image, in [0, 1]."""
    resize: bool = False
    """Bring the image to restore to the size that the model was trained on, instead of covering it by windows."""
