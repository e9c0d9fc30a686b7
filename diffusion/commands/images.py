"""Reads damaged images: decodes their pixels, and which of them are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageColor
from torch import Tensor

from diffusion.commands.listing import ImageFile
from diffusion.data import DataSpec, PixelFormat, decode, read_header, resize_and_crop
from diffusion.data.images.decoding import BLACK, Color, Pixels, composite, to_tensor
from diffusion.errors import InputError, require
from diffusion.operators import Operator
from diffusion.operators.operator import Size

Known = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Marked:
    """The color in which unknown pixels are drawn: each of their channels differs from it by at most `threshold`, in
    [0, 1].
    """

    color: str
    threshold: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "--threshold", "in [0, 1]", self.threshold)
        try:
            ImageColor.getrgb(self.color)
        except ValueError as error:
            raise InputError(f"--unknown-color: must be a color such as #ff00ff, got {self.color!r}") from error

    def known(self, pixels: Pixels) -> Known:
        """Whether each of the pixels (H, W, 3) is known: (H, W, 1)."""
        color = np.array(ImageColor.getrgb(self.color)[:3])
        difference = np.abs(pixels.astype(np.int16) - color).max(2, keepdims=True)
        return np.asarray(difference > 255 * self.threshold)


def read_damaged(
    file: ImageFile,
    spec: DataSpec,
    background: Color,
    marked: Marked | None = None,
    *,
    whole: bool = False,
    resize: bool = False,
) -> tuple[Tensor, Tensor, str]:
    """Reads an image: (C, H, W) in [0, 1], its mask of known pixels (1, H, W), and a notice if it was resized.

    With `resize` an image of another size is resized to that of the data. Pixels are known where the mask is at least
    half white, or where they differ from the color `marked`; in both cases the image is composited on the background of
    the data. Without a mask and a color, pixels are known where the image is opaque, and its colors are those of the
    file.

    Raises InputError when the sizes of image and mask differ, when both a mask and a color are given, when an image
    without transparency has neither, and when all pixels are known, unless `whole` says that they may be.
    """
    path, (channels, height, width) = file.path, spec.shape
    if file.mask is not None and marked is not None:
        raise InputError(f"--unknown-color: must not be given with --mask, got {marked.color} and {file.mask}")
    if file.mask is not None:
        pixels = decode(path, PixelFormat(channels, background))
        known = read_mask(file.mask, path, pixels.shape[:2])
    elif marked is not None:
        rgba = decode(path, PixelFormat(4, background))
        shown = composited(rgba, background)
        pixels, known = rgba if channels == 4 else converted(shown, channels), marked.known(shown[:, :, :3])
    else:
        # The colors are taken as stored. Compositing would change those of half-transparent pixels that count as known.
        rgba = decode(path, PixelFormat(4))
        pixels, known, whole = converted(rgba, channels), rgba[:, :, 3:] >= 128, False
    if known.all() and not whole:
        raise InputError(_nothing_unknown(file, marked))
    if not resize or pixels.shape[:2] == (height, width):
        return to_tensor(pixels), torch.tensor(known).permute(2, 0, 1), ""
    fitted = fit_known(known, (height, width))
    if fitted.all() and not whole:
        raise InputError(f"{path}: no unknown pixels are left after --resize, which cuts off margins; leave it out")
    return (
        to_tensor(resize_and_crop(pixels, (height, width))),
        torch.tensor(fitted).permute(2, 0, 1),
        resized(path.name, pixels, spec),
    )


def _nothing_unknown(file: ImageFile, marked: Marked | None) -> str:
    """The message that all pixels of an image are known."""
    if file.mask is not None:
        return f"--mask: {file.mask} shows all of {file.path} as known; black is what is to be filled"
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
    hidden = _dilated(_dilated(~known[:, :, 0], reach).T, reach).T
    # Where the kernel reaches pixels that were hidden, at least half of it lies in the dilated hole in each direction,
    # a quarter in all. Elsewhere its negative lobes alone lower the mask, by some hundredths, which must not count.
    return resize_and_crop(255 * (~hidden[:, :, None]).astype(np.uint8), size) >= 0.8 * 255


def _dilated(hidden: Known, reach: int) -> Known:
    """Dilates hidden pixels (H, W) by `reach` rows up and down. The cost does not depend on `reach`."""
    ends = np.cumsum(np.pad(hidden, ((reach + 1, reach), (0, 0))), 0, dtype=np.int32)
    return np.asarray(ends[2 * reach + 1 :] > ends[: len(hidden)])


def read_mask(mask: Path, image: Path, size: tuple[int, ...]) -> Known:
    """Reads a mask for an image of the size (H, W): its known pixels, (H, W, 1)."""
    known = decode(mask, PixelFormat(1, BLACK)) >= 128
    if known.shape[:2] != size:
        raise InputError(
            f"--mask: {mask} is {known.shape[1]} x {known.shape[0]} pixels, but {image} is "
            f"{size[1]} x {size[0]}; a mask has the size of its image"
        )
    return np.asarray(known)


def composited(rgba: Pixels, background: Color) -> Pixels:
    """Composites pixels (H, W, 4) on a background, which makes them opaque: (H, W, 4)."""
    return np.asarray(composite(Image.fromarray(rgba), background))


def converted(rgba: Pixels, channels: int) -> Pixels:
    """The colors of pixels (H, W, 4) without regard to their alpha, (H, W, C); their luma for one channel."""
    if channels == 1:
        return np.asarray(Image.fromarray(rgba[:, :, :3]).convert("L"))[:, :, None]
    return rgba[:, :, :channels]


def read_clean(path: Path, spec: DataSpec, background: Color, *, resize: bool = False) -> tuple[Tensor, str]:
    """Reads an intact image, (C, H, W) in [0, 1], and a notice if it was resized.

    With `resize` an image of another size is resized to that of the data.
    """
    channels, height, width = spec.shape
    pixels = decode(path, PixelFormat(channels, background))
    if not resize or pixels.shape[:2] == (height, width):
        return to_tensor(pixels), ""
    return to_tensor(resize_and_crop(pixels, (height, width))), resized(path.name, pixels, spec)


def resized(name: str, pixels: Pixels, spec: DataSpec) -> str:
    """The notice that an image was resized to the size of the data."""
    _, height, width = spec.shape
    before = f"{pixels.shape[1]} x {pixels.shape[0]}"
    return f"{name}: resized and cropped from {before} to the model's {width} x {height}"


def read_observation(
    path: Path, operator: Operator, spec: DataSpec, background: Color
) -> tuple[Tensor, tuple[int, ...]]:
    """Reads a degraded image, (C, H, W) in [0, 1], and the shape of the image that the operator degraded."""
    header = read_header(path)
    shape = spec.shape[0], *operator.size_before((header.height, header.width))
    channels = operator(torch.zeros(1, *shape)).shape[1]
    return to_tensor(decode(path, PixelFormat(channels, background))), shape
