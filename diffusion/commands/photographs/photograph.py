"""A photograph as its file holds it: its own values at full depth, and what stands beside its pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from diffusion.commands.photographs.metadata import Metadata, has_damaged_exif
from diffusion.commands.photographs.pad import Pad
from diffusion.commands.photographs.writing import Encoding, Values
from diffusion.data import ImageError, read_header
from diffusion.data.images import color
from diffusion.data.images.bands import Bands
from diffusion.data.images.decoding import read_bands
from diffusion.data.images.formats import INSTALL, PILLOW_FORMATS, library

# Modes whose values are kept as they are, and why other ones are not: what they become is said before the work.
KEPT = ("L", "LA", "RGB", "RGBA")
CONVERTED = {
    "1": "has two levels of gray, its results have 256",
    "P": "has a palette, its results have none",
    "PA": "has a palette, its results have none",
    "CMYK": "is in CMYK, its results are in RGB (sRGB)",
    "LAB": "is in CIELAB, its results are in RGB (sRGB)",
    "YCbCr": "is in YCbCr, its results are in RGB",
    "HSV": "is in HSV, its results are in RGB",
}
DEEP = {"LA;16", "RGB;16", "RGBA;16"}


@dataclass(frozen=True)
class Photograph:
    """The values of an image file, upright, with black as the lowest and straight alpha, and its metadata.

    `encoding` is how the file is written, None where its format is not. `into_profile` converts sRGB to the colors of
    the file, and is None where these are the same. `notices` say what cannot come back with results.
    """

    bands: Bands
    metadata: Metadata = field(default_factory=Metadata)
    encoding: Encoding | None = None
    into_profile: ImageCms.ImageCmsTransform | None = None
    notices: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.bands.values.shape[:2]
        return height, width

    @property
    def alpha(self) -> Values | None:
        """The opacity (H, W), and None without one."""
        return self.bands.values[:, :, -1] if self.bands.alpha else None

    def padded(self, pad: Pad) -> Photograph:
        """The photograph with copies of its border on the padded sides."""
        return replace(self, bands=replace(self.bands, values=pad.around(self.bands.values)))


def read_photograph(path: Path) -> Photograph:
    """Reads an image file as it is. Raises ImageError when it cannot be read."""
    header = read_header(path)
    frames = (f"holds {header.frames} images, of which the first is restored",) if header.frames > 1 else ()
    try:
        with Image.open(path, formats=PILLOW_FORMATS) as image:
            found = _picture(path, image, header.mode)
    except OSError:  # Arrays, DICOM and TIFF files that Pillow does not read.
        encoding = Encoding.by_suffix(Path("x.tif")) if header.format == "TIFF" else None
        return Photograph(_plain(read_bands(path)), encoding=encoding, notices=frames)
    except Exception as error:  # Readers raise errors of almost every type on damaged files.
        raise ImageError(path, str(error) or type(error).__name__) from error
    return replace(found, notices=(*frames, *found.notices))


def _picture(path: Path, image: Image.Image, mode: str) -> Photograph:
    """The photograph that Pillow opened."""
    encoding, notices = Encoding.of(image, path), []
    deep = mode in DEEP and library("tifffile" if image.format == "TIFF" else "imagecodecs") is not None
    if mode in DEEP and not deep:
        notices.append(f"has 16 bits, its results have 8 ({INSTALL})")
    metadata = Metadata.of(image)
    if has_damaged_exif(image):
        notices.append("has damaged EXIF data, its results have none")
    if "photoshop" in image.info or getattr(image, "tag_v2", {}).keys() & {33723, 34377}:
        notices.append("holds IPTC or Photoshop data, its results do not")
    plain = image.mode in KEPT and not deep and mode.removesuffix(";16") in KEPT
    inverse = _into_profile(image) if plain or deep else None
    if (plain or deep) and image.info.get("icc_profile") and inverse is None and not _is_srgb(image):
        notices.append("has a color profile that images cannot be converted to, its results are in sRGB")
        plain, deep = False, False
    if plain:
        return Photograph(_own_bands(image), metadata, encoding, inverse, tuple(notices))
    if image.mode in CONVERTED:
        notices.append(CONVERTED[image.mode])
    kept = deep or image.mode.startswith(("I", "F"))
    own = metadata if kept else metadata.in_srgb()
    bands = _plain(read_bands(path))
    return Photograph(replace(bands, values=_narrow(bands.values, image)), own, encoding, inverse, tuple(notices))


def _own_bands(image: Image.Image) -> Bands:
    """The values of an image of 8 bits as they are."""
    upright = ImageOps.exif_transpose(image)
    gray = upright.mode in ("L", "LA")
    if upright.has_transparency_data:
        upright = upright.convert("LA" if gray else "RGBA")
    values = np.asarray(upright)
    return Bands(values.reshape(*values.shape[:2], -1), "gray" if gray else "rgb", alpha=upright.mode in ("LA", "RGBA"))


def _plain(bands: Bands) -> Bands:
    """Values whose lowest is black, with straight alpha."""
    values = bands.values
    full = bands.full or (0, 1)
    if bands.inverted:
        values = (full[0] + full[1] - values).astype(values.dtype)
    if bands.premultiplied:
        alpha = values[:, :, -1:].astype(np.float64) / full[1]
        straight = np.divide(values, alpha, out=np.zeros(values.shape), where=alpha > 0)
        straight[:, :, -1] = values[:, :, -1]
        values = np.rint(straight).clip(0, full[1]).astype(values.dtype)
    return replace(bands, values=values, inverted=False, premultiplied=False)


def _narrow(values: Values, image: Image.Image) -> Values:
    """Whole numbers in the type of their file, where Pillow widens them: those of 16 bits."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize != 4:
        return values
    if image.format == "PPM":
        return values.astype(np.uint16)
    tags = getattr(image, "tag_v2", {})
    if tags.get(258) == (16,):
        return values.astype(np.int16 if tags.get(339) == (2,) else np.uint16)
    return values


def _is_srgb(image: Image.Image) -> bool:
    """Whether reading takes the colors of an image as they are, in spite of its profile."""
    probe = Image.new(image.mode, (1, 1))
    probe.info["icc_profile"] = image.info.get("icc_profile")
    return color.to_srgb(probe) is probe


def _into_profile(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """The transform from sRGB to the colors of an image; None where there is nothing to convert, or no way to."""
    data = image.info.get("icc_profile")
    if not data or _is_srgb(image):
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = "L" if profile.profile.xcolor_space.strip() == "GRAY" else "RGB"
        return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
