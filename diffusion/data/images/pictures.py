"""Reads the images that Pillow opens: their 8-bit pixels as Pillow converts them, and their own values by band."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps

from diffusion.data.images import color
from diffusion.data.images.arrays import Tiff
from diffusion.data.images.bands import Bands, no_range, turned
from diffusion.data.images.formats import needed
from diffusion.data.images.pixel_format import Color, PixelFormat, Pixels
from diffusion.data.images.source import BinaryFile, Header, Source
from diffusion.data.images.tiff import Layout

EIGHT = PixelFormat(1)


@dataclass(frozen=True)
class Picture(Source):
    """An image that Pillow opened from a file."""

    image: ImageFile.ImageFile
    file: BinaryFile

    def header(self) -> Header:
        """Returns the header, for which no pixels are read."""
        width, height = self.image.size
        if self.orientation >= 5:
            width, height = height, width
        mode = self.image.mode
        if self.deep_color:
            mode = "LA;16" if "LA;16" in self._rawmode else f"{mode};16"
        frames = getattr(self.image, "n_frames", 1)
        return Header(width, height, mode, self.image.format or "", frames, color.notices(self.image))

    @property
    def deep_gray(self) -> bool:
        """Whether Pillow holds gray values of more than 8 bits, or of other types, in the frame that it is at."""
        return self.image.mode.startswith(("I", "F"))

    @property
    def deep_color(self) -> bool:
        """Whether Pillow reads 8 of the 16 bits of colors in the frame that it is at."""
        if self.image.format == "TIFF":
            return Layout.of(self.image.tag_v2).reader == "color"  # type: ignore[attr-defined]
        white = self._netpbm_white
        return not self.deep_gray and (";16" in self._rawmode or (white is not None and white > 255))

    def pixels(self, pixel_format: PixelFormat, frame: int) -> tuple[Pixels, bool]:
        """Decodes a frame to 8 bits, the full range of the file, and says whether the last channel is alpha."""
        image = color.to_srgb(_eight_bits(self._upright(frame)))
        pixels = np.asarray(_converted(image, pixel_format))
        return pixels.reshape(*pixels.shape[:2], pixel_format.channels), pixel_format.channels == 4

    def bands(self, frame: int) -> Bands:
        """Reads the values of a frame; those of 8-bit images after their conversion to sRGB and to gray or RGB."""
        if frame:
            self.image.seek(frame)  # The pages of a TIFF may differ in depth.
        if self.deep_color:
            return self._deep_color(frame)
        image = self._upright(frame)
        if self.deep_gray:
            return self._gray(image)
        image = color.to_srgb(image)
        alpha, gray = image.has_transparency_data, image.mode in ("1", "L", "LA", "La")
        mode = ("LA" if alpha else "L") if gray else ("RGBA" if alpha else "RGB")
        values = np.asarray(image.convert(mode))
        white = self._netpbm_white
        return Bands(
            _unscaled(values, 255, white).reshape(*values.shape[:2], -1),
            "gray" if gray else "rgb",
            alpha=alpha,
            white=white,
        )

    def opaque(self, frame: int) -> npt.NDArray[np.bool_] | None:
        """Returns which pixels of a frame (H, W, 1) are fully opaque, at 8 bits; None for a file without alpha."""
        image = self._upright(frame)
        if not image.has_transparency_data:
            return None
        return np.asarray(np.asarray(image.convert("RGBA").getchannel("A"))[:, :, None] == 255)

    def _gray(self, image: Image.Image) -> Bands:
        white = self._netpbm_white
        return Bands(_unscaled(_deep_gray(image), 65535, white), "gray", white=white)

    def _deep_color(self, frame: int) -> Bands:
        if self.image.format == "TIFF":
            return Tiff(self.file, Layout.of(self.image.tag_v2)).bands(frame)  # type: ignore[attr-defined]
        if frame:
            raise EOFError("holds one image")
        if self.image.format == "PNG":
            self.file.seek(0)
            values = needed("imagecodecs", "a PNG of 16 bits with colors or alpha").png_decode(self.file.read())
        elif self._tile is not None and self._tile.codec_name == "ppm":
            width, height = self.image.size
            self.file.seek(self._tile.offset)
            data = self.file.read(6 * width * height)
            if len(data) < 6 * width * height:
                raise ValueError("image file is truncated")
            values = np.frombuffer(data, ">u2").reshape(height, width, 3).astype(np.uint16)
        else:
            raise ValueError("colors of 16 bits, written as text, are not read with data.range; write them in binary")
        gray, alpha = values.shape[2] <= 2, values.shape[2] in (2, 4)
        white = self._netpbm_white
        return Bands(turned(values, self.orientation), "gray" if gray else "rgb", alpha=alpha, white=white)

    def _upright(self, frame: int) -> Image.Image:
        if frame:
            self.image.seek(frame)
        return ImageOps.exif_transpose(self.image)

    @property
    def orientation(self) -> int:
        """The turn that the EXIF data ask for."""
        # Without this test, Pillow would decode a whole PNG in search of EXIF data behind the pixels.
        if "exif" not in self.image.info:
            return 1
        found = self.image.getexif().get(ExifTags.Base.Orientation, 1)
        return found if found in range(1, 9) else 1

    @cached_property
    def _tile(self) -> Any:  # noqa: ANN401, Pillow has no name for its type
        """What Pillow knows of where and how the file holds its pixels, which it forgets as it reads them."""
        return self.image.tile[0] if self.image.tile else None

    @property
    def _rawmode(self) -> str:
        """The form of the pixels in the file, by the name that Pillow has for it."""
        arguments = None if self._tile is None else self._tile.args
        first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        return first if isinstance(first, str) else ""

    @property
    def _netpbm_white(self) -> int | None:
        """The value of white of a Netpbm file whose values Pillow scales to 8 or 16 bits, else None."""
        if self.image.format != "PPM" or self._tile is None or not self._tile.codec_name.startswith("ppm"):
            return None
        arguments = self._tile.args
        return int(arguments[1]) if isinstance(arguments, tuple) and isinstance(arguments[1], int) else None


def _unscaled(values: Pixels, top: int, white: int | None) -> Pixels:
    """Returns values as the file has them, which Pillow scaled such that `white` became `top`."""
    return values if white is None else np.rint(values * (white / top)).astype(np.uint16)


def _deep_gray(image: Image.Image) -> Pixels:
    """Returns the values (H, W, 1) of an image that is gray and deep.

    Pillow holds unsigned numbers of 16 bits as signed ones of 32 at times, which count as unsigned if none is negative.
    """
    values = np.asarray(image)[:, :, None]
    return values.astype(np.uint32) if values.dtype.kind == "i" and values.min() >= 0 else values


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit gray, which Pillow keeps in the modes I and I;16*, to 8 bits; returns other images unchanged."""
    if not image.mode.startswith(("I", "F")):
        return image
    bands = Bands(_deep_gray(image), "gray")
    if bands.full is None:
        raise no_range(bands)
    return Image.fromarray(EIGHT.stored(bands.values, bands.full)[:, :, 0])


def _converted(image: Image.Image, pixel_format: PixelFormat) -> Image.Image:
    if pixel_format.channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = composite(image, pixel_format.background)
    return image.convert("RGB" if pixel_format.channels == 3 else "L")


def composite(image: Image.Image, background: Color) -> Image.Image:
    """Composites an image on a background, which makes it opaque, in the mode RGBA."""
    behind = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(behind, image.convert("RGBA"))
