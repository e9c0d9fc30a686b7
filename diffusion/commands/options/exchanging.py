"""The options of the commands that read and write models of other packages: import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Import:
    """Make a run folder of a model that somebody else trained; all commands then take it. No code of it is run.

    What is dropped or changed is said, and stands in import.json of the run.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A folder of diffusers with a UNet2DModel, a .pt file of guided-diffusion, or hf://OWNER/NAME on the hub."""
    out: Path | None = None
    """The run folder; runs/NAME by default."""
    variant: str | None = None
    """A variant of the weights in a folder of diffusers, such as fp16."""
    size: Annotated[str | None, tyro.conf.arg(metavar="HEIGHTxWIDTH")] = None
    """Size of the images, where the files say none."""
    card: str | None = None
    """The name of a published file of guided-diffusion, such as 256x256_diffusion_uncond, whose flags are known."""
    flags: str | None = None
    """The flags that a file of guided-diffusion was trained with, such as '--image_size 64 --num_channels 192'."""
    within: Annotated[str | None, tyro.conf.arg(metavar="KEY")] = None
    """The key of the weights in a file with several dictionaries of them, such as ema or model/ema."""
