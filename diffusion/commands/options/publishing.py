"""The options of the commands that hand a model on: export, publish."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion.commands.options.common import Run


@dataclass(frozen=True)
class Export:
    """Write a model in files that other programs read, with the averaged weights.

    diffusers is a folder that DDPMPipeline.from_pretrained loads, of models whose backbone is unet2d. onnx is the
    network of any model as ONNX, with sample.py, which draws samples with numpy and onnxruntime alone.
    """

    run: Run
    """A run folder."""
    to: Literal["diffusers", "onnx"]
    """The form of the files."""
    out: Path | None = None
    """The folder to write; RUN/diffusers or RUN/onnx by default."""
    steps: int | None = None
    """With --to onnx: steps of the sampler, instead of those of the run."""
    label: str | None = None
    """With --to diffusers: a class, by name or number, of which alone the model is to be; -1 for that without any."""


@dataclass(frozen=True)
class Publish:
    """Publish a model on the Hugging Face hub: its averaged weights, its configuration, a card and a picture.

    The card is filled from what the run has measured. What travels is listed first, and no path of this machine is in
    it. diffusion.load("OWNER/NAME") then takes the model.
    """

    run: Run
    """A run folder."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]
    """The repository, which is made if it is not there."""
    license: str | None = None
    """The license of the model, as an identifier of the hub such as mit or cc-by-4.0; asked for on a terminal."""
    private: bool = False
    """Make a new repository private."""
    revision: str = ""
    """A branch to publish on instead of main, made if it is not there."""
    out: Path | None = None
    """Write what would be published into this folder instead of uploading it."""
    dry_run: bool = False
    """List what would travel, without uploading it."""
