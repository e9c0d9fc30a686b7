"""The configuration that `diffusion inspect` suggests for images: a size, a network, and keys for what files hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion.data import Scan
from diffusion.data.images import ranges
from diffusion.data.images.pages import ALL
from diffusion.data.images.resizing import kept
from diffusion.noise_levels import LogNormal

# The sizes that may be suggested, and the fraction of the images that may be smaller and have to be enlarged.
SIZES, ENLARGED = (8, 16, 32, 64, 128, 256), 0.1
# The networks by the size up to which they are suggested: those of configs/digits.toml, cifar10.toml, folder64.toml,
# folder128.toml and folder256.toml.
NETWORKS: dict[int, dict[str, Any]] = {
    16: {"channels": [32, 64], "blocks": 1, "attention": [1]},
    32: {"channels": [128, 256, 256], "blocks": 3, "attention": [1, 2], "dropout": 0.1},
    64: {"channels": [128, 256, 384], "blocks": 3, "attention": [1, 2]},
    128: {"channels": [128, 192, 256, 384], "blocks": 2, "attention": [2, 3]},
    256: {"patch": 2, "channels": [128, 256, 256, 384], "blocks": 2, "attention": [2, 3]},
}
# Steps, batch and steps of warmup by size. A folder of images of 16 is trained in minutes, as digits are.
TRAINING = {
    16: (5000, 64, 100),
    32: (200_000, 256, 2000),
    64: (200_000, 128, 2000),
    128: (300_000, 64, 2000),
    256: (400_000, 32, 2000),
}
# The size above which images are trained at higher noise.
LARGE = 64
# Images share an aspect if this fraction of them is within a factor of it. It counts as square within another factor.
SHARED, FACTOR, SQUARE = 0.9, 1.1, 1.2
# The longest side of a size that is not square.
LONGEST = 1024

Sides = npt.NDArray[np.int32]


def suggest(
    found: Scan, path: str, *, labels: bool | str, masks: str = "", keys: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Suggests the sections and keys of a configuration for a scan, as the shipped ones for image folders have them.

    `keys` are those of `ranges.suggestion` for what the files hold, by default by their headers alone. The size is that
    of `suggested_size`. Images larger than 64 are trained at higher noise, by the log of the ratio of the sides,
    because their neighboring pixels are more alike.
    """
    rows = found.entries.rows
    shape = suggested_size(rows["width"], rows["height"])
    side = math.sqrt(math.prod(shape))
    base = network_of(shape)
    steps, batch, warmup = TRAINING[base]
    every = min(2000, steps // 10)
    stacks = np.count_nonzero((rows["frames"] > 1) & (rows["format"] == _code(found, "TIFF")))
    return {
        "data": {
            "path": path,
            "size": shape[0] if shape[0] == shape[1] else list(shape),
            **(ranges.suggestion(found.entries.modes, None) if keys is None else keys),
            **({"labels": labels} if labels else {}),
            **({"pages": ALL} if stacks * 2 > len(rows) else {}),
            **({"masks": masks} if masks else {}),
            "flip": True,
            "margin": min(shape) // 16,
        },
        "backbone": {"name": "unet", **NETWORKS[base]},
        **({"noise_levels": {"name": "log_normal", "mean": shifted(side)}} if side > LARGE else {}),
        "training": {"steps": steps, "batch": batch, "lr": 0.01, "warmup": warmup},
        "report": {
            "samples": every,
            "evaluate": 2 * every,
            "checkpoint": every,
            **({"pictures": 16} if side > 128 else {}),
        },
    }


def suggested_size(width: Sides, height: Sides) -> tuple[int, int]:
    """Returns the size (h, w) to train images of these sides at, (N,) each.

    It is a square, the largest power of two, up to 256, that all but a tenth of the images reach in both directions. If
    nearly all images share another aspect, it has sides that the network divides and that all but a tenth reach, at
    most as many pixels as the largest square, and at least half as many as the largest of such sizes: the one of them
    whose crop cuts off the least, and of equal ones the largest.
    """
    side = int(np.quantile(np.minimum(width, height), ENLARGED, method="lower"))
    square = max((size for size in SIZES if size <= side), default=SIZES[0])
    aspects = np.log(width / height)
    middle = np.median(aspects)
    near = np.abs(aspects - middle) < math.log(FACTOR)
    if abs(middle) < math.log(SQUARE) or near.mean() < SHARED:
        return square, square
    top, right = (int(np.quantile(each, ENLARGED, method="lower")) for each in (height, width))
    sizes = [
        (h, w)
        for h in range(4, min(top, LONGEST) + 1, 4)
        for w in range(4, min(right, LONGEST, max(SIZES) ** 2 // h) + 1, 4)
        if h % multiple_of((h, w)) == w % multiple_of((h, w)) == 0
    ]
    enough = max((math.prod(size) for size in sizes), default=0) / 2
    # The aspect is shared, so that the middle one stands for all.
    aspect, one = np.exp(np.array([middle])), np.ones(1)
    ranked = [(round(float(kept(aspect, one, size)[0]), 3), math.prod(size), size) for size in sizes]
    best = max((each for each in ranked if each[1] >= enough), default=None)
    return (square, square) if best is None else best[2]


def network_of(shape: tuple[int, int]) -> int:
    """Returns the key in NETWORKS for images of a shape (h, w), by their number of pixels."""
    area = math.prod(shape)
    return next((base for base in sorted(NETWORKS) if area <= base**2), max(NETWORKS))


def multiple_of(shape: tuple[int, int]) -> int:
    """Returns the number that the sides of a shape are multiples of, for its network to divide them."""
    network = NETWORKS[network_of(shape)]
    return int(network.get("patch", 1) * 2 ** (len(network["channels"]) - 1))


def shifted(side: float) -> float:
    """The mean of log(σ/α) in training for images of a side above 64, rounded to a tenth."""
    return round(LogNormal.mean + math.log(side / LARGE), 1)


def toml(tree: Mapping[str, Mapping[str, Any]]) -> str:
    """Writes sections of keys with plain values as TOML."""
    sections = [
        "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())])
        for name, values in tree.items()
    ]
    return "\n\n".join(sections) + "\n"


def _code(found: Scan, kind: str) -> int:
    formats = found.entries.content["formats"]
    return formats.index(kind) if kind in formats else -1
