"""Writes images in units to files in the values of the data: the inverse of decoding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffusion.data.images.formats import INSTALL, library, needed
from diffusion.data.images.pixel_format import Range
from diffusion.data.images.tiff import DESCRIPTION, read_tags
from diffusion.data.spec import DataSpec
from diffusion.errors import InputError
from diffusion.files import replacing

# The key of what made a file: a text chunk of a PNG, a key of the JSON in the description of a TIFF.
KEY = "diffusion"
PNG, TIFF, NPY = {".png"}, {".tif", ".tiff"}, {".npy"}


def save_image(image: Tensor, path: Path, spec: DataSpec, info: Mapping[str, Any]) -> Path:
    """Writes an image (C, H, W) in units, as a model returns it, in one step to a file in the values of the data.

    These are 8 bits without a `spec.value_range`; with one, the lowest value is written for 0 and the highest for 1. So
    a file that `decode` has read comes back with its own values, as far as they lie in the range. C may differ from
    that of the spec.

    The suffix decides the format: .png for up to four channels of 8 bits and for gray of 16 bits, .tif for all others
    (it needs tifffile), .npy for any, as H x W or H x W x C. `suffix(spec)` returns the one that suits. `info` becomes
    the JSON text "diffusion" of a PNG, a part of the description of a TIFF, and a file NAME.npy.json beside an array;
    `read_info` reads each.

    Raises InputError for a suffix that cannot hold the image, or needs a library that is not installed.
    """
    kind, values = path.suffix.lower(), file_values(image, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in PNG:
        if not _fits_png(values.dtype, values.shape[2]):
            raise InputError(f"{path}: a PNG cannot hold {_described(values)}; name it {path.stem}{suffix(spec)}")
        picture = Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG", pnginfo=png_text(info))
    elif kind in TIFF:
        if library("tifffile") is None:
            needs = f"writing a TIFF needs tifffile, which is not installed: {INSTALL}"
            raise InputError(f"{path}: {needs}; or name it .npy")
        with replacing(path) as temporary:
            tags = {"description": json.dumps({KEY: dict(info)})}
            write_tiff(values, temporary, color=values.shape[2] in (3, 4), tags=tags)
    elif kind in NPY:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, values[:, :, 0] if values.shape[2] == 1 else values, allow_pickle=False)
        with replacing(_beside(path)) as temporary:
            temporary.write_text(json.dumps({KEY: dict(info)}), encoding="utf-8")
    else:
        raise InputError(f"{path}: must end with .png, .tif or .npy, got {path.suffix or 'no suffix'}")
    return path


def suffix(spec: DataSpec) -> str:
    """Returns the suffix of files for images of a spec: .png where it can hold them, else .tif, without tifffile
    .npy.
    """
    dtype = _dtype(*_ends(spec), whole=spec.levels is not None)
    if _fits_png(dtype, spec.shape[0]):
        return ".png"
    return ".tif" if library("tifffile") else ".npy"


def file_values(image: Tensor, spec: DataSpec) -> npt.NDArray[Any]:
    """Returns an image (C, H, W) in units as (H, W, C) in the values of files.

    Quantized data are rounded to whole numbers of the smallest type that holds the range; continuous data are float32.
    """
    low, high = _ends(spec)
    units = image.detach().cpu().permute(1, 2, 0).double().numpy()
    if spec.levels is None:
        return np.asarray(low + units * (high - low), np.float32)
    # The levels are rounded to first: they are what the model knows.
    values = low + np.rint(units.clip(0, 1) * spec.top) * ((high - low) / spec.top)
    rounded: npt.NDArray[Any] = np.rint(values).astype(_dtype(low, high, whole=True))
    return rounded


def png_text(info: Mapping[str, Any]) -> PngInfo:
    """Returns `info` as JSON in the text chunk "diffusion" of a PNG."""
    text = PngInfo()
    text.add_text(KEY, json.dumps(dict(info)))
    return text


def read_info(path: Path) -> dict[str, Any]:
    """Returns the `info` that a file was written with.

    Raises KeyError for a file without it.
    """
    if path.suffix.lower() in NPY:
        return dict(json.loads(_beside(path).read_text(encoding="utf-8"))[KEY])
    if path.suffix.lower() in TIFF:
        with path.open("rb") as file:
            return dict(json.loads(read_tags(file)[DESCRIPTION])[KEY])
    with Image.open(path) as image:
        return dict(json.loads(image.info[KEY]))


def write_tiff(
    values: npt.NDArray[Any], path: Path, *, color: bool, alpha: bool = False, tags: Mapping[str, Any]
) -> None:
    """Writes values (H, W, B) of any type to a TIFF, band beside band.

    The first three bands are red, green and blue with `color`, else the first is gray. With `alpha` the last one is the
    opacity. Others are unspecified. `tags` are further options of `tifffile.imwrite`.

    Raises InputError without tifffile.
    """
    bands = values.shape[2]
    extra = bands - (3 if color else 1)
    needed("tifffile", "writing a TIFF").imwrite(
        path,
        values[:, :, 0] if bands == 1 else values,
        photometric="rgb" if color else "minisblack",
        planarconfig=None if bands == 1 else "contig",
        extrasamples=["unspecified"] * (extra - alpha) + ["unassalpha"] * alpha or None,
        metadata=None,
        **tags,
    )


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _ends(spec: DataSpec) -> Range:
    if spec.value_range is not None:
        return spec.value_range
    if spec.levels is None:
        return 0.0, 1.0
    return 0.0, 255.0 if spec.levels <= 256 else 65535.0


def _dtype(low: float, high: float, *, whole: bool) -> np.dtype[Any]:
    if not whole:
        return np.dtype(np.float32)
    types = (np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.int64)
    return np.dtype(next(t for t in types if np.iinfo(t).min <= low and high <= np.iinfo(t).max))


def _fits_png(dtype: np.dtype[Any], channels: int) -> bool:
    return (dtype == np.uint8 and channels <= 4) or (dtype == np.uint16 and channels == 1)


def _described(values: npt.NDArray[Any]) -> str:
    return f"{values.shape[2]} channels of {values.dtype}"
