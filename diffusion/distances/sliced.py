"""The sliced Wasserstein distance of patches (Rabin et al. 2011; Karras et al. 2018, arXiv 1710.10196, section 5).

In one dimension the distance of sets with the distribution functions F and G is ∫ |F(u) - G(u)| du. The sliced distance
is its mean over random directions, and here over the levels of a pyramid too. It is positive for finite sets of the
same distribution, so only distances of sets of the same size can be compared.

F and G are compared at all values, or at 512 of them, which are quantiles of both sets together. The distances of
thousands of pairs of sets are then a product of matrices, and differ from the integral by less than 2 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.distances import patches
from diffusion.distances.distance import Distance, Pairs, indicators
from diffusion.progress import track
from diffusion.randomness import example_seed

# The most points at which distribution functions are compared.
POINTS = 512


@dataclass(frozen=True)
class SlicedWasserstein(Distance):
    """The sliced Wasserstein distance of images (N, C, H, W) in [0, 1], in standard deviations of their patches.

    `patches` of every image and level are projected on `directions`; both are functions of `seed`.
    """

    name: ClassVar[str] = "sliced Wasserstein distance"

    patches: int = 16
    directions: int = 64
    seed: int = 0

    def describe(self, x: Tensor) -> Tensor:
        """Returns the patches of images: (N, patches, levels, C, values)."""
        return patches.describe(x, self.patches, self.seed)

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns ∫ |F - G| of every pair, averaged over directions and levels."""
        inside = indicators(sets, len(rows), torch.float32, rows.device)
        members = inside.sum(0, dtype=torch.float64)[:, None] * rows.shape[1]
        a, b = torch.tensor(pairs, device=rows.device).reshape(-1, 2).T
        total = torch.zeros(len(pairs), dtype=torch.float64, device=rows.device)
        levels = patches.normalized(rows)
        lines = [(number, direction) for number in range(len(levels)) for direction in range(self.directions)]
        for number, direction in track(lines, len(lines), self.name, "direction", show=show):
            values = levels[number] @ self._directions(number, levels)[direction]
            points = grid(values.flatten())
            # The whole numbers of patches are exact in float32, so that all sets go through one fast product.
            below = (inside.T @ counts(values, points)).double().cumsum_(1).div_(members)[:, :-1]
            total += (below[a] - below[b]).abs_() @ points.diff().double()
        return total.cpu() / len(lines)

    def _directions(self, number: int, like: Tensor) -> Tensor:
        """The directions (directions, D) of a level, unit vectors in the patches (*, D)."""
        generator = torch.Generator().manual_seed(example_seed(self.seed, number))
        directions = torch.randn(self.directions, like.shape[-1], generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(directions, dim=1).to(like)


def grid(values: Tensor) -> Tensor:
    """Returns all values (V,) in order, or POINTS of them at equal steps of their order: (points,)."""
    ordered = values.sort().values
    if len(values) <= POINTS:
        return ordered
    return ordered[torch.linspace(0, len(values) - 1, POINTS, dtype=torch.float64, device=values.device).round().long()]


def counts(values: Tensor, points: Tensor) -> Tensor:
    """Returns how many values (N, P) of every row lie above the point before, up to a point: (N, points) float32."""
    bins = torch.searchsorted(points, values)
    found = torch.zeros(len(values), len(points), device=values.device)
    return found.scatter_add_(1, bins, torch.ones((), device=values.device).expand_as(bins))
