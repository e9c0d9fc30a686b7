"""Writes the values of an image, with its metadata, in the formats that photographs have."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from diffusion.commands.photographs.metadata import HOLDS, Metadata
from diffusion.data.images.encoding import write_tiff
from diffusion.data.images.formats import INSTALL, library
from diffusion.errors import InputError
from diffusion.files import replacing

Values = npt.NDArray[Any]

# The quality at which photographs are compressed that were not compressed before.
QUALITY = 95
# The bytes of a PNG up to the end of its first chunk, the header.
PNG_START = 33
MPO = "MPO"
# Tags of a TIFF. The first two are written by tifffile itself.
DESCRIPTION, SOFTWARE, XMP = 270, 305, 700


@dataclass(frozen=True)
class Encoding:
    """A format of image files, as Pillow calls it, and the options of `save` that a file of it was made with.

    They are the tables and the subsampling of a JPEG, whether a WebP is lossless, and the compression of a TIFF.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, image: Image.Image, path: Path) -> Encoding | None:
        """The encoding of an image that is open from a path; None where its format is not written, or takes no more
        colors than the image has.
        """
        kind = "JPEG" if image.format == MPO else image.format
        if kind not in HOLDS or (image.mode in ("1", "P", "PA") and kind not in ("PNG", "TIFF", "BMP")):
            return None
        return cls(kind, _options(image, path, kind))

    @classmethod
    def by_suffix(cls, path: Path) -> Encoding | None:
        """The encoding that the suffix of a path asks for; None for one that is not written."""
        Image.init()
        kind = Image.registered_extensions().get(path.suffix.lower(), "")
        return cls(kind, DEFAULTS.get(kind, {})) if kind in HOLDS else None

    @property
    def has_alpha(self) -> bool:
        """Whether the format holds an opacity."""
        return self.kind not in ("JPEG", "BMP", "PPM")

    def refuses(self, dtype: np.dtype[Any], bands: int, *, alpha: bool) -> str:
        """Why it cannot hold values (H, W, B) of a type; empty if it can."""
        deep = dtype == np.uint16
        if alpha and not self.has_alpha:
            return f"{self.kind} has no transparency"
        if self.kind == "PPM" and dtype == np.float32 and bands == 1:
            return ""  # As PFM, the form of netpbm for floats.
        if self.kind not in ("PNG", "TIFF") and dtype != np.uint8 and not (self.kind == "PPM" and deep):
            return f"{self.kind} has 8 bits, not {dtype}"
        if self.kind != "TIFF" and (bands - alpha not in (1, 3) or dtype not in (np.uint8, np.uint16)):
            return f"{self.kind} does not hold {bands} bands of {dtype}"
        needed = "imagecodecs" if self.kind == "PNG" and deep and bands > 1 else ""
        needed = "tifffile" if self.kind == "TIFF" and _beyond_pillow(dtype, bands, alpha) else needed
        if not needed or library(needed):
            return ""
        return f"{self.kind} of {bands} bands of {dtype} needs {needed}: {INSTALL}"


DEFAULTS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": QUALITY, "subsampling": 0},
    "WEBP": {"quality": QUALITY},
    "AVIF": {"quality": QUALITY},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
PNG = Encoding("PNG")


def write_image(
    values: Values,
    path: Path,
    encoding: Encoding,
    metadata: Metadata,
    *,
    alpha: bool = False,
    info: Mapping[str, Any] | None = None,
) -> Path:
    """Writes values (H, W, B) of 8 bits, 16 bits or another type to a file in one step.

    The last band is the opacity if `alpha`. `info` becomes the text "diffusion" of a PNG, and is not kept in others.

    Raises InputError for values that the format cannot hold.
    """
    if reason := encoding.refuses(values.dtype, values.shape[2], alpha=alpha):
        raise InputError(f"{path}: {reason}")
    text = json.dumps(dict(info)) if info else ""
    options = {**encoding.options, **metadata.options(encoding.kind, text)}
    deep = values.dtype == np.uint16 and values.shape[2] > 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if encoding.kind == "PNG" and deep:
            temporary.write_bytes(_deep_png(values, options))
        elif encoding.kind == "PPM" and values.dtype == np.uint16:
            temporary.write_bytes(_deep_netpbm(values))
        elif encoding.kind == "TIFF" and _beyond_pillow(values.dtype, values.shape[2], alpha):
            color = values.shape[2] - alpha == 3
            write_tiff(values, temporary, color=color, alpha=alpha, tags=_tags(metadata))
        else:
            _picture(values, alpha=alpha).save(temporary, format=encoding.kind, **_fitting(options, values))
    return path


def _picture(values: Values, *, alpha: bool) -> Image.Image:
    if values.shape[2] == 1:
        return Image.fromarray(values[:, :, 0])
    # Pillow takes two bands for gray and alpha, four for colors and alpha.
    assert values.shape[2] - alpha in (1, 3)
    return Image.fromarray(values)


def _fitting(options: dict[str, Any], values: Values) -> dict[str, Any]:
    """The options of a JPEG without the tables and the subsampling of colors, if the image is gray."""
    if values.shape[2] > 1 or "qtables" not in options:
        return options
    return {**options, "qtables": options["qtables"][:1], "subsampling": -1}


def _options(image: Image.Image, path: Path, kind: str) -> dict[str, Any]:
    """The options of `save` that come nearest to how a file was made."""
    if kind == "JPEG":
        return _jpeg(image)
    if kind == "WEBP" and _is_lossless(path):
        return {"lossless": True, "exact": True}
    if kind == "TIFF":
        compression = image.info.get("compression", "raw")
        lossless = compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
        return {"compression": compression} if lossless else DEFAULTS["TIFF"]
    return DEFAULTS.get(kind, {})


def _jpeg(image: Image.Image) -> dict[str, Any]:
    tables = getattr(image, "quantization", {})
    sampling = JpegImagePlugin.get_sampling(image) if isinstance(image, JpegImagePlugin.JpegImageFile) else -1
    if not tables or image.mode not in ("L", "RGB"):
        return DEFAULTS["JPEG"]
    ordered = [tables[key] for key in sorted(tables)]
    return {
        "qtables": ordered,
        "subsampling": sampling if sampling >= 0 else 0,
        "progressive": bool(image.info.get("progressive")),
        "optimize": True,
    }


def _is_lossless(path: Path) -> bool:
    """Whether a WebP file has a chunk of lossless pixels, which comes first or after a header and a profile."""
    with path.open("rb") as file:
        return b"VP8L" in file.read(1 << 16)


def _beyond_pillow(dtype: np.dtype[Any], bands: int, alpha: bool) -> bool:
    """Whether Pillow has no mode for a TIFF."""
    if dtype in (np.uint16, np.float32):
        return bands > 1
    return dtype != np.uint8 or bands - alpha not in (1, 3)


def _deep_png(values: Values, options: dict[str, Any]) -> bytes:
    """A PNG of several bands of 16 bits, which Pillow does not write, with the metadata that Pillow writes."""
    codecs = library("imagecodecs")
    assert codecs is not None
    pixels: bytes = codecs.png_encode(np.ascontiguousarray(values))
    buffer = BytesIO()
    Image.new("L", (1, 1)).save(buffer, format="PNG", **options)
    start = pixels[:PNG_START]
    return start + b"".join(_beside_pixels(buffer.getvalue())) + pixels[PNG_START:]


def _deep_netpbm(values: Values) -> bytes:
    """A Netpbm file of 16 bits, of which Pillow writes gray ones alone."""
    height, width, bands = values.shape
    kind = 5 if bands == 1 else 6
    return f"P{kind}\n{width} {height}\n{np.iinfo(np.uint16).max}\n".encode() + values.astype(">u2").tobytes()


def _beside_pixels(png: bytes) -> list[bytes]:
    """The chunks of a PNG other than its header, pixels and end."""
    chunks, place = [], PNG_START
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        chunk = png[place : place + length + 12]
        if chunk[4:8] not in (b"IDAT", b"IEND"):
            chunks.append(chunk)
        place += length + 12
    return chunks


def _tags(metadata: Metadata) -> dict[str, Any]:
    """The metadata, and the compression of a photograph, as options of `tifffile.imwrite`."""
    texts = _texts(metadata.exif)
    xmp = [(XMP, 1, len(metadata.xmp), metadata.xmp, True)] if metadata.xmp else []
    return {
        "compression": "adobe_deflate",
        "software": texts.pop(SOFTWARE, False),
        "description": texts.pop(DESCRIPTION, None),
        "iccprofile": metadata.profile,
        "resolution": metadata.dpi,
        "resolutionunit": "INCH" if metadata.dpi else None,
        "extratags": [*xmp, *((tag, 2, len(text.encode()) + 1, text, True) for tag, text in texts.items())],
    }


def _texts(exif: bytes | None) -> dict[int, str]:
    """The tags of EXIF data that are texts, such as title, artist and copyright."""
    found = Image.Exif()
    found.load(exif or b"")
    return {tag: value for tag, value in found.items() if isinstance(value, str)}
