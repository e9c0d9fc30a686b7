"""Dead leaves: images of disks that occlude each other, with statistics like those of nature and a known noise floor.

The disks lie on top of each other. Their centers are uniform over the plane, their radii have density ∝ r⁻³ on
[r_min, r_max], which looks alike at all scales, and each has a gray level. A pixel shows the first disk over its center
(Matheron 1968; Lee, Mumford and Huang 2001, Occlusion Models for Natural Images). Disks are laid front to back until
they cover all pixels, so that a window has the stationary distribution exactly (Kendall and Thönnes 1999) and is
distributed like any part of a larger one. White noise is added whose standard deviation is `noise` times that of the
result. It bounds the likelihood of every model of these images, per pixel of data scaled to variance 1:

    E log p ≤ -½ log(2πe noise²)

Sohl-Dickstein et al. (2015, arXiv 1503.03585, table 2) evaluate on such images but publish no parameters. The defaults
here are a reconstruction from other figures of that group. A noise of 0.0761 puts the bound at 1.669 bits. The gray
levels 1 - u^(1/b), a beta distribution that is skewed like intensities in nature, give a pixel at variance 1 an entropy
of 1.651 bits. With the default r_min, the baseline of their table 2 scores as it does there
(`python -m benchmarks.mcgsm`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from diffusion.data.dataset import Dataset
from diffusion.data.generated import Generated
from diffusion.data.hashing import uniform
from diffusion.data.names import Numbered
from diffusion.data.spec import DataSpec
from diffusion.errors import require
from diffusion.randomness import ExampleNoise, example_seed

# The number of the first disk over a pixel, where no disk covers it yet.
BARE = np.iinfo(np.int64).max

R_MIN, R_MAX = 2.72, 128.0
NOISE = 0.0761
# The exponent b of the gray levels.
SKEW = 9.32
# The uniform draws of each disk by their numbers, and the number of draws.
KIND, RADIUS, ROW, COLUMN, GRAY, DRAWS = range(6)
# The mean number of disks over a pixel that are laid in the first round and in each later one. After the first round,
# e⁻⁴ of the pixels are bare.
FIRST, NEXT = 4.0, 2.0
# The approximate number of pixels of disks that are processed at once.
CHUNK = 1 << 21

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Leaves:
    """The distribution of the images: radii in pixels, `noise` in units of the standard deviation of a pixel."""

    r_min: float = R_MIN
    r_max: float = R_MAX
    noise: float = NOISE

    def __post_init__(self) -> None:
        radii = self.r_min, self.r_max
        require(0 < self.r_min < self.r_max, "radii", "an increasing pair of positive numbers", radii)
        require(0 <= self.noise < 1, "noise", "in [0, 1)", self.noise)

    @property
    def mean(self) -> float:
        """The mean of a pixel."""
        return 1 / (1 + SKEW)

    @property
    def std(self) -> float:
        """The standard deviation of a pixel with its noise."""
        return self.mean * math.sqrt(SKEW / (2 + SKEW)) / math.sqrt(1 - self.noise**2)

    @property
    def ceiling(self) -> float:
        """The upper bound on E log p by the noise, in bits per pixel at variance 1; infinite without noise."""
        return -normal_entropy(self.noise) if self.noise else math.inf

    def images(self, size: tuple[int, int], seeds: Sequence[int]) -> npt.NDArray[np.float32]:
        """Draws an image from each seed, (B, 1, H, W): gray levels in [0, 1] plus noise."""
        keys = np.array(seeds, np.uint64)
        gray = self.grays(keys[:, None, None], self.cover(size, seeds))
        noise = ExampleNoise([example_seed(seed) for seed in seeds])(torch.empty(len(keys), *size)).numpy()
        return (gray + self.noise * self.std * noise).astype(np.float32)[:, None]

    def cover(self, size: tuple[int, int], seeds: Sequence[int]) -> Integers:
        """Returns the number of the first disk over the center of each pixel: (B, H, W)."""
        group = max(1, int(CHUNK / (FIRST * math.prod(size))))
        keys = np.array(seeds, np.uint64)
        return np.concatenate([self._cover(size, keys[i : i + group]) for i in range(0, len(keys), group)])

    def disks(self, size: tuple[int, int], keys: Keys, numbers: Integers) -> tuple[Floats, Floats, Floats]:
        """Returns the disks with the given numbers in each image: (B,), (N,) -> rows, columns and radii, (B, N) each.

        Rows and columns of the centers are in pixels from the center of the first pixel. Numbers count only the disks
        whose bounding box meets the window.
        """
        kind, radius, *center = (uniform(keys[:, None], numbers * DRAWS + draw) for draw in (KIND, RADIUS, ROW, COLUMN))
        r = self._radius(size, kind, radius)
        row, column = (u * (side + 2 * r) - r - 0.5 for u, side in zip(center, size, strict=True))
        return row, column, r

    def grays(self, keys: Keys, numbers: Integers) -> Floats:
        """Returns the gray levels in [0, 1] of the disks with the given numbers in each image; arguments broadcast."""
        return 1 - uniform(keys, numbers * DRAWS + GRAY) ** (1 / SKEW)

    def _masses(self, size: tuple[int, int]) -> tuple[float, float, float]:
        """Integrates r⁻³ (H + 2r)(W + 2r), the density of disks that may meet the window, over the radii.

        Returns the integrals of its terms in r⁻³, r⁻² and r⁻¹.
        """
        low, high = self.r_min, self.r_max
        area, edge = math.prod(size), 2 * sum(size)
        return area * (low**-2 - high**-2) / 2, edge * (1 / low - 1 / high), 4 * math.log(high / low)

    def _radius(self, size: tuple[int, int], kind: Floats, u: Floats) -> Floats:
        """Draws radii from the mixture of the three terms of `_masses`: `kind` chooses the term, u the quantile."""
        low, high = self.r_min, self.r_max
        masses = np.cumsum(self._masses(size))
        quantiles = (
            (low**-2 + u * (high**-2 - low**-2)) ** -0.5,
            1 / (1 / low + u * (1 / high - 1 / low)),
            low * (high / low) ** u,
        )
        return np.choose(np.searchsorted(masses[:2] / masses[2], kind), quantiles)

    def _cover(self, size: tuple[int, int], keys: Keys) -> Integers:
        height, width = size
        # ∫ π r² r⁻³ dr is the mean number of these disks over a pixel; a layer has a mean of one disk over each pixel.
        disks_per_layer = sum(self._masses(size)) / (math.pi * math.log(self.r_max / self.r_min))
        first = np.full((len(keys), height * width), BARE)
        bare, laid, layers = np.arange(len(keys)), 0, FIRST
        while len(bare):
            count = math.ceil(layers * disks_per_layer)
            disks = self.disks(size, keys[bare], np.arange(laid, laid + count))
            disk, pixel = rasterize(size, *(v.ravel() for v in disks))
            image, number = np.divmod(disk, count)
            np.minimum.at(first.reshape(-1), bare[image] * (height * width) + pixel, laid + number)
            bare = bare[(first[bare] == BARE).any(1)]
            laid, layers = laid + count, NEXT
        return first.reshape(len(keys), height, width)


def normal_entropy(std: float) -> float:
    """Returns the differential entropy of a normal distribution, in bits."""
    return math.log2(2 * math.pi * math.e * std**2) / 2


def rasterize(size: tuple[int, int], row: Floats, column: Floats, r: Floats) -> tuple[Integers, Integers]:
    """Finds all pairs of a disk and a pixel whose center lies in it: (N,) each -> numbers of disks and pixels, (P,)."""
    height, width = size
    disk, y = _inside(row - r, row + r, height)
    # Rounding may place a row that only touches its disk slightly outside of it.
    half = np.sqrt(np.maximum(r[disk] ** 2 - (y - row[disk]) ** 2, 0))
    line, x = _inside(column[disk] - half, column[disk] + half, width)
    return disk[line], y[line] * width + x


def _inside(low: Floats, high: Floats, side: int) -> tuple[Integers, Integers]:
    """Lists the integers of 0, ..., side - 1 in the intervals [low, high] (N,).

    Returns the number of the interval and the integer of each pair: (P,), (P,).
    """
    first = np.maximum(np.ceil(low), 0).astype(np.int64)
    count = np.maximum(np.minimum(np.floor(high), side - 1).astype(np.int64) - first + 1, 0)
    owner = np.repeat(np.arange(len(first)), count)
    return owner, np.arange(len(owner)) + np.repeat(first - np.cumsum(count) + count, count)


@dataclass(frozen=True)
class Images(Generated):
    """`count` images of a distribution, each a function of the seed and its number."""

    distribution: Leaves
    size: tuple[int, int]
    count: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (count, 1, H, W) of an array of all images."""
        return self.count, 1, *self.size

    def make(self, numbers: Integers) -> npt.NDArray[np.float32]:
        """Draws the images with the given numbers: (B, 1, H, W)."""
        return self.distribution.images(self.size, [example_seed(self.seed, number) for number in numbers.tolist()])


def dead_leaves(n: int, seed: int, size: tuple[int, int], distribution: Leaves = Leaves()) -> Dataset:
    """Returns n images of a size (H, W), generated when they are indexed.

    Mean and std of the spec are those of the distribution, under which model values have mean 0 and variance 1.

    Raises InputError unless n is at least 1.
    """
    require(n >= 1, "data.count", "at least 1", n)
    spec = DataSpec((1, *size), levels=None, mean=distribution.mean, std=distribution.std)
    images = Images(distribution, size, n, seed)
    return Dataset(images, spec, None, Numbered("dead_leaves", n), contents=images.contents())
