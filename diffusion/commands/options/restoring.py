"""The options of the commands that restore images: inpaint, restore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffusion.commands.options.common import Device, DrawArguments, Images, MethodName, Run
from diffusion.registries import names

OPERATORS = ", ".join(names("operators", "OPERATORS"))


@dataclass(frozen=True)
class Restorations:
    """The options of drawing restorations, and of where they are written."""

    draw: Annotated[DrawArguments, tyro.conf.arg(name="")] = DrawArguments(n=4)
    method: MethodName = "auto"
    """The method of restoration; docs/restoration.md says where each one is biased."""
    out: Path | None = None
    """Where to write; RUN/restored-NAME by default. Each of several images gets a folder of its name there. For one
    image also a file such as result.png: the mean, or with --n 1 the restoration, alone."""
    resize: bool = False
    """Bring whole images to the size that the model was trained on, instead of covering them by windows of it."""
    as_input: bool = False
    """Write one file per image, under its own name and in its own format: one restoration, which is drawn alone."""
    mean: bool = False
    """With --as-input: the mean of all n restorations, which is nearest in mean square and smoother than any."""
    again: bool = False
    """Restore images again whose results are there already, instead of going on with the others."""


@dataclass(frozen=True)
class Inpaint:
    """Restore the unknown part of images, several times over."""

    run: Run
    """A run folder."""
    images: Images
    """Damaged images, or folders of them. A transparent PNG is its own mask."""
    mask: Path | None = None
    """The mask: white is known, black is to be filled; strokes on a transparent layer are to be filled. Or a folder of
    masks with the names of the images. Without it, NAME_mask.png or masks/NAME.png beside NAME.jpg is its mask."""
    unknown_color: str | None = None
    """The color, such as #ff00ff, in which the unknown part is drawn into the images."""
    threshold: float | None = None
    """The largest difference from that color, in [0, 1], of each channel of an unknown pixel; by default 0.1, and more
    in what stands out in that color and in a JPEG, which blurs colors."""
    invert_mask: bool = False
    """In the mask white is to be filled and black is known, as in many other programs."""
    mask_channels: bool = False
    """The mask has a part for each channel of the image, of which some are known where others are not."""
    grow: int | None = None
    """Grow what is unknown by so many pixels. With 0 a color is taken without its rim, where it is mixed with the
    image."""
    feather: int = 0
    """Blend the filling into what is known over so many pixels around it, which then do not stay as they are."""
    pad: str | None = None
    """Enlarge the image and fill what is new, as in left=16,top=8 or all=32."""
    noise: float = 0.0
    """Standard deviation of the noise on the known part, in [0, 1]; 0 keeps known pixels as they are."""
    noise_map: Path | None = None
    """Noise that differs from pixel to pixel, for models that learned to restore: a gray image, white for --noise and
    black for pixels to keep as they are, or a .npy file or TIFF of floats, standard deviations in [0, 1]."""
    device: Device = None
    options: Annotated[Restorations, tyro.conf.arg(name="")] = Restorations()


@dataclass(frozen=True)
class Restore:
    """Restore images that were blurred, made smaller, gray or noisy, or compressed, several times over."""

    run: Run
    """A run folder."""
    images: Images
    """Degraded images, or folders of them."""
    operator: Annotated[
        str,
        tyro.conf.arg(
            help=f"The degradation: {OPERATORS}. Options follow the name, as in blur:sigma=2, and several are applied "
            "one after another, as in blur:sigma=1+downsample:factor=2."
        ),
    ]
    noise: float | None = None
    """Standard deviation of the noise on the images, in [0, 1]; estimated from each image by default."""
    noise_map: Path | None = None
    """Noise that differs from pixel to pixel, for denoise and models that learned to restore: a gray image, white for
    --noise and black for pixels to keep as they are, or a .npy file or TIFF of floats, standard deviations in
    [0, 1]."""
    damage: bool = False
    """Take whole images and degrade them first, to try a restoration out."""
    device: Device = None
    options: Annotated[Restorations, tyro.conf.arg(name="")] = Restorations()
