"""Resizes images of any depth and number of bands, and crops them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffusion.data.images.pixel_format import RGB, PixelFormat, Pixels

Box = tuple[float, float, float, float]


def resize_and_crop(
    image: Pixels, size: tuple[int, int], pixel_format: PixelFormat | None = None, *, alpha: bool | None = None
) -> Pixels:
    """Scales an image (H, W, C) until it just covers the size (h, w), and crops its center: (h, w, C).

    Both axes are scaled by the same factor, so that shapes are preserved. Shrinking is antialiased. An image that needs
    no scaling is only cropped. Values that the kernel takes beyond the levels of the format, which is that of 8 bits by
    default, are clipped. Where the last channel is `alpha`, by default that of four channels of 8 bits, the other ones
    count in proportion to it, so that hidden colors stay hidden.
    """
    scale, box = placed(image.shape[:2], size)
    if scale == 1:
        left, top, right, bottom = map(int, box)
        return image[top:bottom, left:right]
    # Lanczos keeps the most detail when shrinking, but rings around the hard edges of an enlarged image.
    kernel = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC
    form = pixel_format or RGB
    if alpha is None:
        alpha = image.shape[2] == 4 and image.dtype == np.uint8
    if image.dtype != np.uint8:
        return _deep(image, size, kernel, box, form, alpha=alpha)
    # Pillow takes the last of two or four bands for alpha, and an image of one, three or four bands alone.
    if image.shape[2] in (1, 3) or alpha:
        resized = _eight_bits(image, size, kernel, box)
    else:
        bands = np.split(image, image.shape[2], axis=2)
        resized = np.concatenate([_eight_bits(band, size, kernel, box) for band in bands], axis=2)
    return resized if form.top >= 255 else resized.clip(0, form.top)


def placed(shape: tuple[int, int], size: tuple[int, int]) -> tuple[float, Box]:
    """Returns the scale at which an image of a shape (H, W) just covers a size (h, w), in its pixels for one of them,
    and the part of it that is then kept: left, top, right and bottom.
    """
    height, width = shape
    scale = min(height / size[0], width / size[1])
    window = size[0] * scale, size[1] * scale
    top, left = max(0.0, (height - window[0]) / 2), max(0.0, (width - window[1]) / 2)
    if scale == 1:
        top, left = float(int(top)), float(int(left))
    return scale, (left, top, min(left + window[1], width), min(top + window[0], height))


def kept(width: npt.NDArray[Any], height: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Returns the share of the area of images of these sizes, (N,) each, that `resize_and_crop` keeps: (N,)."""
    aspect = (width / height) / (size[1] / size[0])
    share: npt.NDArray[np.float64] = np.minimum(aspect, 1 / aspect)
    return share


def _eight_bits(part: Pixels, size: tuple[int, int], kernel: Image.Resampling, box: Box) -> Pixels:
    picture = Image.fromarray(part.squeeze(2) if part.shape[2] == 1 else part)
    return np.asarray(picture.resize((size[1], size[0]), kernel, box=box)).reshape(*size, part.shape[2])


def _deep(
    image: Pixels, size: tuple[int, int], kernel: Image.Resampling, box: Box, form: PixelFormat, *, alpha: bool
) -> Pixels:
    """Resizes bands of more than 8 bits, each by itself in float32."""

    def resized(band: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(Image.fromarray(band.astype(np.float32)).resize((size[1], size[0]), kernel, box=box))

    bands = [image[:, :, i].astype(np.float32) for i in range(image.shape[2])]
    if alpha:
        *colors, opacity = bands
        last = resized(opacity)
        shares = [resized(color * opacity) for color in colors]
        bands = [*(np.divide(share, last, out=np.zeros_like(last), where=last > 0) for share in shares), last]
    else:
        bands = [resized(band) for band in bands]
    result = np.stack(bands, axis=2)
    return result if form.levels is None else np.rint(result).clip(0, form.top).astype(image.dtype)
