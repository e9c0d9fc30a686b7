"""Measures samples larger than the images of a model: seams between tiles, and correlations near and far.

    python -m benchmarks.tiles RUN [--data IMAGES] [--scale 4] [--n 8] [--steps 24] [--overlaps 0.5 0.25]

Samples of RUN's model, `--scale` times as high and wide as its images, are drawn by tiles one after the other, where
the network takes a noise level for every pixel, and by windows that agree at every step. Plain samples side by side are
the worst there can be, crops of IMAGES the best.

The seam is the mean difference of neighboring pixels across the borders of tiles over that of all others; 1 is
seamless. Its error is that of the mean over images. Correlations are mean products of pixels at a distance along rows
and columns, less the square of the mean, over the variance of the pixels of crops, or without IMAGES of plain samples.
A picture shows the first sample of each kind.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.common import Goal, Rows
from diffusion import figures
from diffusion.data import PixelFormat, decode
from diffusion.data.images.decoding import SUFFIXES, to_tensor
from diffusion.draw import TILES
from diffusion.model import Model, load
from diffusion.restoration.tiles import Tiles

# What a seam may be.
SEAM = 0.95, 1.05


@dataclass(frozen=True)
class Kind:
    """Images (N, C, H, W) of one kind: their `owner` (H, W) tells tiles apart, and each took so many seconds and
    evaluations of the network.
    """

    name: str
    images: Tensor
    owner: Tensor
    seconds: float = math.nan
    evaluations: float = math.nan


def drawn(model: Model, size: tuple[int, int], n: int, steps: int, overlap: int, tiles: str) -> Kind:
    """Draws n images of a size; the classes take turns."""
    begin = time.perf_counter()
    x = model.sample(n, size=size, tiles=tiles, overlap=overlap, steps=steps, label=model.in_turn(n))
    seconds = (time.perf_counter() - begin) / n
    plan = Tiles.over(size, model.spec.shape[1:], overlap)
    return Kind(f"{tiles}, {overlap} pixels shared", x, plan.owner, seconds, plan.count * steps)


def side_by_side(model: Model, size: tuple[int, int], n: int, steps: int) -> Kind:
    """Puts plain samples beside each other, and cuts off what lies beyond the size."""
    down, right = (-(-side // own) for side, own in zip(size, model.spec.shape[1:], strict=True))
    count = n * down * right
    begin = time.perf_counter()
    x = model.sample(count, steps=steps, label=model.in_turn(count))
    seconds = (time.perf_counter() - begin) / n
    rows = x.reshape(n, down, right, *x.shape[1:]).permute(0, 3, 1, 4, 2, 5)
    whole = rows.reshape(n, x.shape[1], down * x.shape[2], right * x.shape[3])[..., : size[0], : size[1]]
    number = torch.arange(down * right).reshape(down, right)
    owner = number.repeat_interleave(x.shape[2], 0).repeat_interleave(x.shape[3], 1)[: size[0], : size[1]]
    return Kind("plain, side by side", whole, owner, seconds, down * right * steps)


def crops(model: Model, source: Path, size: tuple[int, int], owner: Tensor) -> Kind | None:
    """Cuts crops of a size beside each other out of an image, or those of a folder; None where none is so large."""
    pixels, found = PixelFormat.of(model.spec, model.config.data.background), list[Tensor]()
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    for path in paths:
        x = to_tensor(decode(path, pixels), pixels)
        tops, lefts = (range(0, side - own + 1, own) for side, own in zip(x.shape[1:], size, strict=True))
        found += [x[:, top : top + size[0], left : left + size[1]] for top in tops for left in lefts]
    return Kind("crops of the data", torch.stack(found), owner) if found else None


def seam(kind: Kind) -> tuple[float, float]:
    """Returns how much more neighbors differ across borders of tiles than elsewhere, and its standard error."""
    across, within = torch.zeros(len(kind.images)), torch.zeros(len(kind.images))
    counts = [0, 0]
    for axis in (-2, -1):
        steps = kind.images.diff(dim=axis).abs().mean(1)
        border = kind.owner.diff(dim=axis) != 0
        across += steps[:, border].sum(1)
        within += steps[:, ~border].sum(1)
        counts[0] += int(border.sum())
        counts[1] += int((~border).sum())
    ratios = across / counts[0] / (within.mean() / counts[1])
    return float(ratios.mean()), float(ratios.std() / len(ratios) ** 0.5) if len(ratios) > 1 else math.nan


def correlations(images: Tensor, distances: Sequence[int], variance: float | None = None) -> list[float]:
    """Returns the covariance of pixels of images (N, C, H, W) at distances along rows and columns, over a variance, by
    default their own; NaN where the images are not so large.
    """
    x = images.double()
    mean, own = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0).mean()
    centered = x - mean
    return [float(each / (own if variance is None else variance)) for each in _products(centered, distances)]


def _products(x: Tensor, distances: Sequence[int]) -> Iterator[Tensor]:
    for distance in distances:
        pairs = [
            x.narrow(axis, 0, x.shape[axis] - distance) * x.narrow(axis, distance, x.shape[axis] - distance)
            for axis in (-2, -1)
            if distance < x.shape[axis]
        ]
        yield torch.cat([each.flatten() for each in pairs]).mean() if pairs else torch.tensor(math.nan)


def distances_of(own: int) -> list[int]:
    """Returns distances from 0 to half beyond a tile of side `own`."""
    near = [0, *(2**power for power in range(own.bit_length()) if 2**power < own)]
    return [*near, own, own + own // 2]


def tables(kinds: Sequence[Kind], own: int) -> tuple[Rows, Rows]:
    """Returns the rows of costs and seams, and those of correlations over the variance of the last kind, with a column
    for each.
    """
    seams = [(kind, *seam(kind)) for kind in kinds]
    costs = [
        _filled(
            {
                "images": kind.name,
                "number": len(kind.images),
                "seam": found,
                "its error": error,
                "evaluations": kind.evaluations,
                "seconds": kind.seconds,
            }
        )
        for kind, found, error in seams
    ]
    distances = distances_of(own)
    variance = float(kinds[-1].images.double().var((0, 2, 3), correction=0).mean())
    columns = {kind.name: correlations(kind.images, distances, variance) for kind in kinds}
    far = [
        _filled({"distance": distance, **{name: values[row] for name, values in columns.items()}})
        for row, distance in enumerate(distances)
    ]
    return costs, far


def _filled(row: dict[str, object]) -> dict[str, object]:
    """Returns a row without what was not measured."""
    return {name: value for name, value in row.items() if value == value}


def main() -> None:
    parser = common.parser(__doc__, "tiles")
    parser.add_argument("run", type=Path, help="run of a model of images")
    parser.add_argument("--data", type=Path, help="an image, or a folder of them, to compare with crops of")
    parser.add_argument("--scale", type=int, default=4, help="how much higher and wider samples are than the images")
    parser.add_argument("--n", type=int, default=8, help="samples of each kind")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.5, 0.25], help="shares of a tile")
    options = parser.parse_args()
    model = load(options.run)
    height, width = model.spec.shape[1:]
    size = options.scale * height, options.scale * width
    pixels = [max(1, round(share * min(height, width))) for share in options.overlaps]
    ways = TILES if model.config.mapped else TILES[1:]
    kinds = [drawn(model, size, options.n, options.steps, overlap, way) for way in ways for overlap in pixels]
    kinds.append(side_by_side(model, size, options.n, options.steps))
    real = None if options.data is None else crops(model, options.data, size, kinds[0].owner)
    kinds += [] if real is None else [real]
    costs, far = tables(kinds, min(height, width))
    picture = options.out.with_suffix(".png")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    shown = [
        kind.images[0] for kind in (kinds[0], kinds[len(pixels) * (len(ways) - 1)], *kinds[len(ways) * len(pixels) :])
    ]
    figures.save_png(figures.draw(torch.stack(shown)), picture, {"run": options.run.name, "steps": options.steps})
    found = float(str(costs[0]["seam"]))
    goals = [
        Goal(f"seam of {kinds[0].name}", found, SEAM[0]),
        Goal(f"seam of {kinds[0].name}", found, SEAM[1], "at most"),
    ]
    title = f"{size[0]}x{size[1]} by a model of {height}x{width}, {options.steps} steps"
    named = {title: costs, "covariance at a distance, over the variance of the last": far}
    common.finish(goals, named, options.out, check=options.check, device=model.device, values="means")
    print(picture)


if __name__ == "__main__":
    main()
