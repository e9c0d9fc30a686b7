"""The options of the command that completes the images of a run: complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion.commands.options.common import Device, Overrides, Run


@dataclass(frozen=True)
class Complete:
    """Fill the holes of the images that a run learned from, which data.masks names, by its network.

    The same command again goes on with the images that are missing.
    """

    run: Run
    """A run folder."""
    overrides: Overrides = ()
    """Where the data are or how their files are taken, such as data.path=photos data.masks=masks."""
    n: int = 1
    """Completions of each image."""
    steps: int | None = None
    """Steps of the sampler; 32 by default."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same images."""
    batch: int | None = None
    """Images at a time; by default as many as suit the device."""
    data_path: Path | None = None
    """The place of the run's own data, if they were moved. They are known by content."""
    out: Path | None = None
    """Where to write; RUN/completed-SEED by default. Each completion has a folder there, draw-1, draw-2 and so on."""
    again: bool = False
    """Draw images again whose completions are there already, instead of going on with the others."""
    device: Device = None
