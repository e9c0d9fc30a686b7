"""What an image to restore tells about its damage: the quality of a JPEG, and the noise on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion.commands.options import Inpaint, Restore
from diffusion.commands.photographs.jpeg_quality import jpeg_quality
from diffusion.commands.photographs.pad import Pad
from diffusion.commands.photographs.remarks import ROUNDING
from diffusion.data.images.kernel import read_kernel
from diffusion.data.images.noise_map import read_noise_map
from diffusion.errors import InputError, require
from diffusion.operators import Operator, parse
from diffusion.restoration.noise import estimate_noise

JPEG, DENOISE = "jpeg", "denoise"
# Stands for the quality of a file where all that matters is whether one has to be filled in.
ANY_QUALITY = 75


def check(command: Restore) -> None:
    """Raises InputError for an operator that is not understood, before any image is read."""
    parse(_with_quality(command.operator, ANY_QUALITY), read_kernel=read_kernel, happened=not command.damage)


def operator(command: Restore, path: Path) -> tuple[Operator, tuple[str, ...]]:
    """Returns the operator of a command for an image file, and what it tells of itself.

    A file that was compressed last has its quality in its header.

    Raises InputError for a JPEG of unknown quality that is no JPEG any more.
    """
    text = command.operator
    told: tuple[str, ...] = ()
    asks = not command.damage and _with_quality(text, ANY_QUALITY) != text
    if asks and (quality := jpeg_quality(path)) is not None:
        text = _with_quality(text, quality)
        told = (f"{path.name}: compressed at quality {quality}, as its header says",)
    return parse(text, read_kernel=read_kernel, happened=not command.damage), told


def _with_quality(text: str, quality: int) -> str:
    """The operator with a quality for the compression that comes last, if it says none."""
    *before, last = text.split("+")
    stated = f"{JPEG}:quality={quality}" if last.strip().lower().rstrip(":") == JPEG else last
    return "+".join([*before, stated])


def noise_map(command: Inpaint | Restore, path: Path, size: tuple[int, ...], pad: Pad | None = None) -> Tensor:
    """Returns the map of noise (1 or C, H, W) that a command states, for an image of a file that has the size (H, W)
    after it was enlarged by a `pad`. What was added is to be filled, so its noise does not matter.

    Raises InputError for a map of another size, and for a gray one whose white, --noise, is not stated.
    """
    assert command.noise_map is not None
    if pad is not None:
        size = size[0] - pad.top - pad.bottom, size[1] - pad.left - pad.right
    found = read_noise_map(command.noise_map, "--noise-map")
    if found.values.ndim not in (2, 3) or found.values.shape[:2] != size:
        raise InputError(
            f"--noise-map: must be {size[0]} x {size[1]} (height x width) as {path.name}, got {command.noise_map} of "
            f"the shape {found.values.shape}"
        )
    if found.gray:
        require(command.noise, "--noise", "above 0, what white in a gray --noise-map stands for", command.noise)
    else:
        rule = "left out with a --noise-map of floats, which are standard deviations themselves"
        require(not command.noise, "--noise", rule, command.noise)
    values = found.values * np.float32(command.noise or 1)
    x = torch.tensor(values if pad is None else pad.with_false(values), dtype=torch.float32)
    return x[None] if x.ndim == 2 else x.permute(2, 0, 1)


def noise(command: Restore, path: Path, y: Tensor) -> tuple[float | Tensor, tuple[str, ...]]:
    """Returns the standard deviation of the noise on an observation y (C, H, W) of a file, and what to say of it.

    It is that which the command states, a number or a map, or else an estimate, at least the noise of rounding. What a
    compression has rounded is no noise: the operator has it.

    Raises InputError for an image to denoise that is too small to tell its noise.
    """
    if command.noise_map is not None:
        return noise_map(command, path, tuple(y.shape[1:])), ()
    if command.noise is not None:
        return command.noise, ()
    last = command.operator.split("+")[-1].strip().lower()
    if last.startswith(JPEG):
        return ROUNDING, ()
    try:
        # A gray image in three equal channels has the noise of one.
        found = estimate_noise(y[:1] if bool((y == y[:1]).all()) else y)
    except InputError:
        if last == DENOISE:
            raise
        return ROUNDING, (f"{path.name}: too small to estimate its noise, taken as that of rounding to 8 bits",)
    sigma = max(found, ROUNDING)
    if sigma == ROUNDING:
        return sigma, (f"{path.name}: no noise was found beyond the rounding to 8 bits",)
    return sigma, (
        f"{path.name}: the noise is estimated as {sigma:.3f} ({255 * sigma:.1f} of 255); --noise says another",
    )
