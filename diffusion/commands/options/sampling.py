"""The options of the commands that draw images, and take images to their latents and back: sample, encode, decode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from diffusion.commands.options.common import Device, DrawArguments, Images, MethodName, Run


@dataclass(frozen=True)
class Sample:
    """Draw new images from a trained model, vary an image, or with --image and --mask restore one.

    A folder holds samples of one model and one set of settings. The same command goes on where it was stopped.
    """

    run: Run
    """A run folder."""
    draw: Annotated[DrawArguments, tyro.conf.arg(name="")] = DrawArguments()
    first: int = 0
    """The number of the first sample; each depends on the seed and its number alone."""
    out: Path | None = None
    """Where to write; RUN/samples-SEED or RUN/restored-NAME by default, with the settings in its name if others lie
    there."""
    format: Literal["png", "tif", "npy"] | None = None
    """Format of the images; by default png where it holds the values of the data."""
    npz: bool = False
    """Write all samples into one file, samples.npz, too."""
    picture: bool = True
    """Write samples.png, a picture of the first 64 samples."""
    size: Annotated[str | None, tyro.conf.arg(metavar="HEIGHTxWIDTH")] = None
    """Size of images larger than the model's, such as 128x256, or one number for a square. They are made of tiles."""
    tiles: Literal["sequential", "windows"] = "sequential"
    """With --size: draw tiles one after the other, each given what it overlaps, for models trained with observed.share
    above 0; or all at once in windows that agree at every step, for any model."""
    overlap: int | None = None
    """With --size: the pixels that neighboring tiles share; by default half of their shorter side."""
    around: Path | None = None
    """With --size: an image around which the larger one is drawn."""
    place: tuple[int, int] | None = None
    """With --around: the row and the column at which that image begins; by default it is in the middle."""
    through_holes: bool = False
    """For a run on images with holes (data.masks): draw each sample through the holes of one of its images. What lies
    in them is a mean: better for single pixels among like ones, and too smooth for others."""
    data_path: Path | None = None
    """With --through-holes: where the images of the run lie now, if not where they were."""
    film: bool = False
    """Write the trajectory too, as a strip and an animation."""
    tune: bool = False
    """First measure on the model itself at which times its network evaluations are spent best."""
    given: Path | None = None
    """For a model that was trained on pairs (data.condition): what is known of each sample, such as a sketch."""
    vary: Path | None = None
    """An image to draw variations of, brought to the size of the model."""
    level: float | None = None
    """With --vary: how far they go, from 0, the image itself, to 1, new samples; 0.5 by default."""
    interpolate: tuple[Path, Path] | None = None
    """Two images, between which N images are made."""
    noise_file: Path | None = None
    """A .npy file of noise, (N, C, H, W), to begin with, such as encode writes."""
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
    device: Device = None


@dataclass(frozen=True)
class Encode:
    """Take images to their latents, the noise from which the probability flow of a model comes to them.

    They are written to a .npy file, from which decode makes the images again.
    """

    run: Run
    """A run folder."""
    images: Images
    """Images, or folders of them, brought to the size of the model."""
    out: Path
    """The .npy file to write; OUT.json beside it lists the images."""
    label: str | None = None
    """Class name or number of all of them."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is off."""
    tolerance: float = 1e-5
    """Tolerance of the solver."""
    batch: int | None = None
    """Images at a time; by default as many as suit the device."""
    device: Device = None


@dataclass(frozen=True)
class Decode:
    """Make images of latents that encode wrote; with the same label, guidance and model they are the same images."""

    run: Run
    """A run folder."""
    latents: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LATENTS")]
    """A .npy file of latents, (N, C, H, W)."""
    out: Path | None = None
    """Where to write; RUN/decoded-NAME by default."""
    label: str | None = None
    """Class name or number of all of them."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is off."""
    tolerance: float = 1e-5
    """Tolerance of the solver."""
    format: Literal["png", "tif", "npy"] | None = None
    """Format of the images; by default png where it holds the values of the data."""
    batch: int | None = None
    """Images at a time; by default as many as suit the device."""
    device: Device = None
