"""Reads images to restore: their values in units of the data, and which of them are known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from diffusion.commands.photographs.feather import ramp
from diffusion.commands.photographs.listing import ImageFile
from diffusion.commands.photographs.pad import Pad
from diffusion.data import DataSpec, PixelFormat, decode, read_header, resize_and_crop
from diffusion.data.images.bands import Bands, arranged
from diffusion.data.images.decoding import RGB, Color, Pixels, decode_to_look_at, read_bands, to_tensor
from diffusion.data.images.marks import Marked, grown
from diffusion.data.images.masks import MOSTLY, WHITE, fitted, read_mask
from diffusion.errors import InputError, require
from diffusion.operators import Operator
from diffusion.operators.operator import Size

Known = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Marking:
    """How it is said what of an image is unknown, besides its mask file or its transparency.

    `marked` is a color. A mask may be `inverted`, and have a part for each channel (`by_channel`). What is unknown is
    grown by `grow` pixels. A color counts with its rim, unless `grow` is 0. The unknown part is blended into what is
    known over `feather` pixels, and the image is enlarged by a `pad`.

    Raises InputError for numbers below 0.
    """

    marked: Marked | None = None
    inverted: bool = False
    by_channel: bool = False
    grow: int | None = None
    feather: int = 0
    pad: Pad | None = None

    def __post_init__(self) -> None:
        require(self.grow is None or self.grow >= 0, "--grow", "0 or more pixels", self.grow)
        require(self.feather >= 0, "--feather", "0 or more pixels", self.feather)


@dataclass(frozen=True)
class Damaged:
    """An image of which a part is unknown: `image` (C, H, W) in units, and the `known` values, (1 or C, H, W).

    `notices` are to be printed before the work. `blend` (1, H, W) is the share of restorations in what is shown, where
    they are blended with known pixels; None where nothing is blended.
    """

    image: Tensor
    known: Tensor
    notices: tuple[str, ...] = ()
    blend: Tensor | None = None


def read_damaged(
    file: ImageFile,
    spec: DataSpec,
    background: Color,
    marking: Marking = Marking(),
    *,
    whole: bool = False,
    resize: bool = False,
) -> Damaged:
    """Reads an image, and which of its pixels are known: by its mask, by a color, or by its transparency.

    With `resize` an image of another size is resized to that of the data. With a mask or a color the image is
    composited on the background of the data. Without them pixels are known that are nearly as opaque as any, and their
    colors are those of the file.

    Raises InputError when the sizes of image and mask differ, when both a mask and a color are given, when an image
    without transparency has neither, and when all pixels are known, unless `whole` says that they may be.
    """
    path, (channels, height, width) = file.path, spec.shape
    pixel_format = PixelFormat.of(spec, background)
    pixels, hidden, notices = _read(file, pixel_format, marking)
    if marking.by_channel and hidden.shape[2] != channels:
        count = f"{hidden.shape[2]} channel{'s' * (hidden.shape[2] > 1)}"
        raise InputError(
            f"--mask-channels: needs a mask of {channels} channels, as the model has, {file.mask} has {count}"
        )
    hidden = grown(hidden, marking.grow or 0)
    if marking.pad is not None:
        pixels, hidden = marking.pad.around(pixels), ~marking.pad.with_false(~hidden)
    if not hidden.any() and not (whole and (file.mask is not None or marking.marked)):
        raise InputError(_nothing_unknown(file, marking.marked))
    if resize and pixels.shape[:2] != (height, width):
        parts = np.split(~hidden, hidden.shape[2], 2)
        known = np.concatenate([fit_known(part, (height, width)) for part in parts], 2)
        if known.all() and not whole:
            raise InputError(f"{path}: no unknown pixels are left after --resize, which cuts off margins; leave it out")
        notices = (*notices, resized(path.name, pixels, spec))
        pixels, hidden = resize_and_crop(pixels, (height, width), pixel_format), ~known
    blend = ramp(hidden, marking.feather)
    if hidden.all():
        by = " after --resize" * resize
        raise InputError(f"{path}: all of it is to be filled{by}; to draw new images use: diffusion sample")
    hidden = grown(hidden, marking.feather)
    if hidden.all():
        raise InputError(f"--feather: nothing of {path} is further than {marking.feather} pixels from what is filled")
    if file.mask is None and (share := float(hidden.mean())) > MOSTLY:
        notices = (*notices, f"{path.name}: {share:.0%} of it is to be filled")
    return Damaged(
        to_tensor(pixels, pixel_format),
        torch.tensor(~hidden).permute(2, 0, 1),
        notices,
        None if blend is None else torch.from_numpy(blend).permute(2, 0, 1),
    )


def _read(file: ImageFile, pixel_format: PixelFormat, marking: Marking) -> tuple[Pixels, Known, tuple[str, ...]]:
    """Reads the pixels (H, W, C) of an image, its hidden values (H, W, 1 or C), and notices."""
    path, marked = file.path, marking.marked
    if file.mask is not None and marked is not None:
        raise InputError(f"--unknown-color: must not be given with --mask, got {marked.color} and {file.mask}")
    if file.mask is not None:
        pixels = decode(path, pixel_format)
        mask = read_mask(file.mask, inverted=marking.inverted, by_channel=marking.by_channel)
        mask = fitted(mask, file.mask, path, pixels.shape[:2])
        return pixels, ~mask.known, mask.notices
    for option, given in (("--invert-mask", marking.inverted), ("--mask-channels", marking.by_channel)):
        if given:
            raise InputError(f"{option}: needs a mask, and {path} has none")
    if marked is not None:
        jpeg = read_header(path).format in ("JPEG", "MPO")
        hidden = marked.hidden(_shown(path, pixel_format), jpeg=jpeg, rim=marking.grow != 0)
        return decode(path, pixel_format), hidden, ()
    return _opaque(path, pixel_format)


def _shown(path: Path, pixel_format: PixelFormat) -> Pixels:
    """The colors that an image shows, (H, W, 3) of 8 bits."""
    if pixel_format.value_range is not None or pixel_format.channels not in (1, 3, 4):
        return decode_to_look_at(path)
    return decode(path, replace(RGB, background=pixel_format.background))


def _opaque(path: Path, pixel_format: PixelFormat) -> tuple[Pixels, Known, tuple[str, ...]]:
    """Reads an image whose transparent pixels are hidden.

    The colors are taken as stored: compositing would change those of half-transparent pixels that count as known.
    """
    bands = read_bands(path)
    if not bands.alpha:
        return decode(path, pixel_format), np.zeros((*bands.values.shape[:2], 1), bool), ()
    hidden = transparent(bands)
    part = int((hidden & (bands.values[:, :, -1:] > 0)).sum())
    notices = (f"{path.name}: {part:,} pixels that are transparent in part are filled too",) * bool(part)
    if pixel_format.value_range is None and pixel_format.levels == 256 and pixel_format.channels in (1, 3, 4):
        rgba = decode(path, PixelFormat(4))
        return _without_alpha(rgba, pixel_format.channels), hidden, notices
    if pixel_format.channels in (2, 4):
        return decode(path, pixel_format), hidden, notices
    ends = pixel_format.value_range or bands.full or bands.ends
    stripped = replace(bands, values=bands.colors, alpha=False)
    values, _ = arranged(stripped, pixel_format.channels, pixel_format.background, ends)
    return pixel_format.stored(values, ends), hidden, notices


def transparent(bands: Bands) -> Known:
    """Returns which pixels of an image (H, W, 1) are hidden by its own transparency: not nearly as opaque as any."""
    if not bands.alpha:
        return np.zeros((*bands.values.shape[:2], 1), bool)
    opacity = bands.values[:, :, -1:].astype(np.float64)
    return np.asarray(opacity < WHITE * max(float(opacity.max()), 1e-9))


def _nothing_unknown(file: ImageFile, marked: Marked | None) -> str:
    """The message that all pixels of an image are known."""
    if file.mask is not None:
        return (
            f"--mask: {file.mask} shows all of {file.path} as known; black is what is to be filled, or with "
            "--invert-mask white"
        )
    if marked is not None:
        return f"{file.path}: nothing in it has --unknown-color {marked.color}; raise --threshold or check the color"
    return (
        f"{file.path}: nothing is transparent in it; say with --mask MASK what is unknown (black), or with "
        "--unknown-color how it is drawn"
    )


def fit_known(known: Known, size: Size) -> Known:
    """The known pixels (h, w, 1) after `resize_and_crop` to `size` (h, w), from those before, `known` (H, W, 1).

    A pixel is known only if all pixels that it is resized from are known.
    """
    scale = min(known.shape[0] / size[0], known.shape[1] / size[1])
    # The Lanczos kernel, which shrinks, reaches 3 pixels of the smaller image; the kernel that enlarges reaches 2 of
    # the given image. Cropping alone has no kernel.
    reach = 0 if scale == 1 else math.ceil(3 * max(scale, 1.0))
    hidden = grown(~known, reach)
    # Where the kernel reaches pixels that were hidden, at least half of it lies in the dilated hole in each direction,
    # a quarter in all. Elsewhere its negative lobes alone lower the mask, by some hundredths, which must not count.
    return resize_and_crop(255 * (~hidden).astype(np.uint8), size) >= 0.8 * 255


def _without_alpha(rgba: Pixels, channels: int) -> Pixels:
    """The colors of pixels (H, W, 4) without regard to their alpha, (H, W, C); their luma for one channel."""
    if channels == 1:
        return np.asarray(Image.fromarray(rgba[:, :, :3]).convert("L"))[:, :, None]
    return rgba[:, :, :channels]


def read_clean(path: Path, spec: DataSpec, background: Color, *, resize: bool = False) -> tuple[Tensor, str]:
    """Reads an intact image, (C, H, W) in units, and a notice if it was resized.

    With `resize` an image of another size is resized to that of the data.
    """
    _, height, width = spec.shape
    pixel_format = PixelFormat.of(spec, background)
    pixels = decode(path, pixel_format)
    if not resize or pixels.shape[:2] == (height, width):
        return to_tensor(pixels, pixel_format), ""
    fitting = resize_and_crop(pixels, (height, width), pixel_format)
    return to_tensor(fitting, pixel_format), resized(path.name, pixels, spec)


def resized(name: str, pixels: Pixels, spec: DataSpec) -> str:
    """The notice that an image was resized to the size of the data."""
    _, height, width = spec.shape
    before = f"{pixels.shape[1]} x {pixels.shape[0]}"
    return f"{name}: resized and cropped from {before} to the model's {width} x {height}"


def read_observation(
    path: Path, operator: Operator, spec: DataSpec, background: Color
) -> tuple[Tensor, Operator, tuple[int, ...]]:
    """Reads a degraded image, (C, H, W) in units, with the operator for its size, and the shape of the image before."""
    header = read_header(path)
    observed = header.height, header.width
    operator = operator.resolved(observed)
    shape = spec.shape[0], *operator.size_before(observed)
    channels = operator(torch.zeros(1, *shape)).shape[1]
    pixel_format = replace(PixelFormat.of(spec, background), channels=channels)
    return to_tensor(decode(path, pixel_format), pixel_format), operator, shape
