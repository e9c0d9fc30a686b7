"""Whether the 90 % intervals of distances between sets cover the truth as often as they promise.

    python -m benchmarks.distances --data FOLDER [--repeats 500] [--images 400] [--only NAME ...] [--out FILE] [--check]

Each repeat draws two disjoint sets of real images from the folder, the samples and the real ones, and compares them.
In the case "real" the samples stay as they are, so the excess is 0. In the case "altered" the samples are darker, where
a distance is of images. Where it is of features, these are the means of 4x4 blocks of an image in the case "real", and
in the case "altered" points of two Gaussians in 4 dimensions whose means differ. There the extrapolated Fréchet
distance and the kernel distance are known. What is not known in closed form is taken from the mean of all repeats.

The goal is that the excess covers 0 in 88 to 92 % of the repeats of the case "real". Intervals are made of few
divisions of the examples (--halves, --rounds) and the image distances use few patches and directions, so that all
repeats take some minutes. The test at 0 is exact for any number of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks import common
from benchmarks.common import Goal, Rows
from diffusion.data import PixelFormat, open_folder
from diffusion.distances import FEATURE_DISTANCES, IMAGE_DISTANCES, Comparison, Distance, compare
from diffusion.distances.kernel import PatchMMD
from diffusion.distances.sliced import SlicedWasserstein

CONFIDENCE = 0.9
# The exponent that darkens samples, the dimensions of the Gaussians, and what all values of their means differ by.
GAMMA, DIMENSIONS, SHIFT = 1.3, 4, 0.4
SMALL: dict[str, Distance] = {
    "sliced_wasserstein": SlicedWasserstein(patches=4, directions=8),
    "patch_mmd": PatchMMD(patches=4),
}
BOUNDS: tuple[tuple[float, Literal["at least", "at most"]], ...] = ((0.88, "at least"), (0.92, "at most"))
# Draws described samples and real examples by the number of the repeat.
Draw = Callable[[int], tuple[Tensor, Tensor]]


def kernel_truth(shift: float, dimensions: int) -> float:
    """MMD² under (x·y/d + 1)³ of N(0, I) and N(shift, I), from the differences of their moments.

    The kernel is Σ_i C(3, i) <x^i, y^i>/d^i with tensor powers, so MMD² = Σ_i C(3, i) ‖E x^i - E y^i‖²/d^i. With the
    mean m and s = ‖m‖², the squared norms of the differences m, m⊗m and m⊗m⊗m + (m ⊗ I in three orders) are s, s² and
    s³ + 6 s² + (3 d + 6) s.
    """
    s = dimensions * shift**2
    third = s**3 + 6 * s**2 + (3 * dimensions + 6) * s
    return 3 * s / dimensions + 3 * s**2 / dimensions**2 + third / dimensions**3


TRUTHS = {"frechet_extrapolated": DIMENSIONS * SHIFT**2, "kernel": kernel_truth(SHIFT, DIMENSIONS)}


def real_images(images: Tensor, count: int, repeat: int) -> tuple[Tensor, Tensor]:
    """Draws two disjoint sets of `count` images."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(repeat))[: 2 * count]
    return images[chosen[:count]], images[chosen[count:]]


def gaussians(count: int, repeat: int) -> tuple[Tensor, Tensor]:
    """Draws as many points of both Gaussians."""
    generator = torch.Generator().manual_seed(repeat)
    points = torch.randn(2, count, DIMENSIONS, generator=generator, dtype=torch.float64)
    return points[0] + SHIFT, points[1]


def draws(name: str, images: Tensor, count: int) -> dict[str, Draw]:
    """Returns the cases of a distance, by name."""

    def described(repeat: int, gamma: float) -> tuple[Tensor, Tensor]:
        samples, real = real_images(images, count, repeat)
        return SMALL[name].describe(samples**gamma), SMALL[name].describe(real)

    if name in SMALL:
        return {"real": lambda repeat: described(repeat, 1.0), "altered": lambda repeat: described(repeat, GAMMA)}
    blocks = F.adaptive_avg_pool2d(images, 4).flatten(1).double()
    return {"real": lambda repeat: real_images(blocks, count, repeat), "altered": partial(gaussians, count)}


def row(name: str, case: str, found: Sequence[Comparison]) -> dict[str, object]:
    """Returns the shares of intervals that cover the truth, their half widths, and 1.645 standard deviations."""
    cells: dict[str, object] = {"distance": name, "samples": case}
    for part in ("value", "floor", "excess"):
        intervals = [getattr(each, part) for each in found]
        values = torch.tensor([each.value for each in intervals], dtype=torch.float64)
        truth = float(values.mean())
        if part == "excess" and case == "real":
            truth = 0.0
        elif part != "floor" and case == "altered":
            truth = TRUTHS.get(name, truth)
        cells[part] = truth
        cells[f"{part} covered"] = sum(each.covers(truth) for each in intervals) / len(found)
        cells[f"{part} width"] = sum(each.half_width for each in intervals) / len(found)
        cells[f"{part} spread"] = 1.645 * float(values.std())
    return cells


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__, "distances")
    parser.add_argument("--data", type=Path, required=True, help="folder of images")
    parser.add_argument("--size", type=int, default=28, help="side of the images")
    parser.add_argument("--repeats", type=int, default=500, help="comparisons of each case")
    parser.add_argument("--images", type=int, default=400, help="images in each of both sets")
    parser.add_argument("--halves", type=int, default=20, help="halves in each interval")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each number")
    parser.add_argument("--cases", nargs="*", choices=("real", "altered"), default=["real", "altered"])
    every = [*IMAGE_DISTANCES, *FEATURE_DISTANCES]
    parser.add_argument("--only", nargs="*", choices=every, default=every, help="distances; by default all")
    options = parser.parse_args(arguments)
    pixel_format = PixelFormat(1)
    data = open_folder(options.data, size=(options.size, options.size), pixel_format=pixel_format)
    images = data.batch(range(len(data)))[0].float() / data.spec.top
    if len(images) < 2 * options.images:
        parser.error(f"--images: must be at most {len(images) // 2}, half of those in the folder, got {options.images}")
    rows: Rows = []
    goals = []
    for name, case in itertools.product(options.only, options.cases):
        distance = SMALL.get(name) or FEATURE_DISTANCES[name]()
        draw = draws(name, images, options.images)[case]
        found = [
            compare(distance, *draw(k), confidence=CONFIDENCE, repeats=options.halves, rounds=options.rounds, seed=k)
            for k in tqdm(range(options.repeats), f"{name}, {case}")
        ]
        rows.append(row(name, case, found))
        if case == "real":
            share = rows[-1]["excess covered"]
            assert isinstance(share, float)
            goals += [Goal(f"{name}: 0 covered", share, bound, way) for bound, way in BOUNDS]
    tables = {f"{CONFIDENCE:.0%} intervals at n = {options.images // 2}": rows}
    common.finish(goals, tables, options.out, check=options.check, values="means over the repeats")


if __name__ == "__main__":
    main()
