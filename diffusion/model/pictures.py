"""Turns what a model returns into images of Pillow and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffusion.data import DataSpec
from diffusion.data.images.encoding import file_values, save_image, suffix
from diffusion.errors import InputError, require


def to_images(x: Tensor, spec: DataSpec) -> list[Image.Image]:
    """Returns images in units, (B, C, H, W) or one (C, H, W), as images of Pillow in the values of files.

    Raises InputError for points, and for images that Pillow does not hold, of more than 8 bits with several channels or
    of more than four channels.
    """
    require(spec.is_image, "x", "images; this model knows points", tuple(x.shape))
    rows = x[None] if x.ndim == 3 else x
    require(rows.ndim == 4, "x", "(B, C, H, W) or (C, H, W)", tuple(x.shape))
    return [_image(row, spec) for row in rows]


def save_restorations(
    folder: Path, samples: Iterable[Tensor], mean: Tensor, spec: DataSpec, info: Mapping[str, Any]
) -> list[Path]:
    """Writes restorations as restored-0, restored-1, ... and their mean as mean, and returns the paths.

    Raises InputError for points, and for a folder that holds any of these already; nothing is written then.
    """
    require(spec.is_image, "save", "for images; this model knows points", spec.shape)
    kind = suffix(spec)
    there = [path.name for path in folder.glob("*") if path.stem == "mean" or path.name.startswith("restored-")]
    if there:
        raise InputError(f"folder: {folder} holds results already, such as {min(there)}; name another one")
    paths = [save_image(x, folder / f"restored-{i}{kind}", spec, {**info, "index": i}) for i, x in enumerate(samples)]
    return [*paths, save_image(mean, folder / f"mean{kind}", spec, info)]


def _image(x: Tensor, spec: DataSpec) -> Image.Image:
    values = file_values(x, spec)
    try:
        return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
    except TypeError:
        raise InputError(
            f"x: Pillow holds no images of {values.shape[2]} channels of {values.dtype}; "
            "diffusion.data.images.encoding.save_image writes them"
        ) from None
