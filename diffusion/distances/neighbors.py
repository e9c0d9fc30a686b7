"""Precision, recall, density and coverage: what share of one set lies within the balls around the members of another.

The ball of a member reaches to its k-th nearest neighbor in its own set.

    precision   the share of samples within a ball of the real set (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1-2)
    recall      the share of the real set within a ball of the samples
    density     the number of balls of the real set that a sample lies in, over k (Naeem et al. 2020, arXiv 2002.09797)
    coverage    the share of balls of the real set that hold a sample (the same)

All four depend on the sizes of the sets. They are large where sets are alike, precision and coverage up to 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.distances.distance import FeatureDistance, Pairs
from diffusion.errors import require
from diffusion.progress import track

# The values of a block of distances, which bounds the memory; and the neighbors that are listed at first, times k.
BLOCK, FIRST = 2**24, 16


@dataclass(frozen=True)
class Near:
    """The nearest others of every row, the nearest first: their squared `distances` and `numbers`, (N, L)."""

    distances: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, rows: Tensor, length: int, *, show: bool = False) -> Near:
        """Returns the `length` nearest others of rows (N, F)."""
        squares = rows.square().sum(1)
        step = max(1, BLOCK // len(rows))
        found = []
        starts = range(0, len(rows), step)
        for first in track(starts, len(starts), "nearest neighbors", "block", show=show):
            part = slice(first, first + step)
            distances = torch.addmm(squares, rows[part], rows.T, alpha=-2) + squares[part, None]
            distances.diagonal(first).fill_(torch.inf)
            found.append(distances.topk(length, dim=1, largest=False))
        return cls(torch.cat([each.values for each in found]), torch.cat([each.indices for each in found]))

    def within(self, balls: Tensor, others: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
        """Returns the numbers (len(balls), L) of those near every ball, and which of them are `others` inside of it.

        None where a list is too short to hold a ball.
        """
        size, length = self.distances.shape
        own, other = torch.zeros(2, size, dtype=torch.uint8, device=balls.device)
        own[balls], other[others] = 1, 1
        distances, numbers = self.distances.index_select(0, balls), self.numbers.index_select(0, balls)
        # Selecting from the flat list is several times as fast as indexing by a matrix.
        count = own.index_select(0, numbers.flatten()).view_as(numbers).cumsum(1, dtype=torch.int32)
        radius = distances.gather(1, (count < k).sum(1, keepdim=True).clamp_(max=length - 1))
        ends = (count[:, -1:] < k) | (radius == distances[:, -1:])
        if length < size - 1 and bool(ends.any()):
            return None
        return numbers, other.index_select(0, numbers.flatten()).view_as(numbers) * (distances <= radius)


class NeighborShare(FeatureDistance):
    """A share of members within balls up to the `k`-th neighbor."""

    better: ClassVar[Literal["smaller", "larger"]] = "larger"

    k: int

    @property
    def least(self) -> int:
        """The fewest members, of which each has k others."""
        return self.k + 1

    @abstractmethod
    def share(self, near: Near, samples: Tensor, real: Tensor) -> float | None:
        """Returns the number for sets of rows, None where the lists of neighbors are too short."""

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns the number of every pair, from lists of the nearest neighbors among all rows.

        The lists are made twice as long until they hold every ball, so that the result is exact.
        """
        require(self.k >= 1, "k", "at least 1", self.k)
        length = min(FIRST * self.k, len(rows) - 1)
        near = Near.of(rows, length, show=show)
        found: list[float] = []
        for a, b in track(pairs, len(pairs), self.name, "pair", show=show):
            while (share := self.share(near, sets[a], sets[b])) is None:
                length = min(2 * length, len(rows) - 1)
                near = Near.of(rows, length, show=show)
            found.append(share)
        return torch.tensor(found, dtype=torch.float64)


def share_inside(near: Near, members: Tensor, balls: Tensor, k: int) -> float | None:
    """Returns the share of members within any of the balls."""
    if (found := near.within(balls, members, k)) is None:
        return None
    numbers, inside = found
    balls_around = torch.zeros(len(near.numbers), dtype=torch.int64, device=numbers.device)
    balls_around.index_add_(0, numbers.flatten(), inside.flatten().long())
    return float((balls_around > 0).sum()) / len(members)


@dataclass(frozen=True)
class Precision(NeighborShare):
    """The share of samples that lie within a ball of the real set."""

    name: ClassVar[str] = "precision"

    k: int = 3

    def share(self, near: Near, samples: Tensor, real: Tensor) -> float | None:
        """Returns the precision of samples."""
        return share_inside(near, samples, real, self.k)


@dataclass(frozen=True)
class Recall(NeighborShare):
    """The share of the real set that lies within a ball of the samples."""

    name: ClassVar[str] = "recall"

    k: int = 3

    def share(self, near: Near, samples: Tensor, real: Tensor) -> float | None:
        """Returns the recall of samples."""
        return share_inside(near, real, samples, self.k)


@dataclass(frozen=True)
class Density(NeighborShare):
    """How many balls of the real set a sample lies in, over k."""

    name: ClassVar[str] = "density"

    k: int = 5

    def share(self, near: Near, samples: Tensor, real: Tensor) -> float | None:
        """Returns the density of samples."""
        found = near.within(real, samples, self.k)
        return None if found is None else float(found[1].sum()) / (self.k * len(samples))


@dataclass(frozen=True)
class Coverage(NeighborShare):
    """The share of balls of the real set that hold a sample."""

    name: ClassVar[str] = "coverage"

    k: int = 5

    def share(self, near: Near, samples: Tensor, real: Tensor) -> float | None:
        """Returns the coverage by samples."""
        found = near.within(real, samples, self.k)
        return None if found is None else float(found[1].any(1).sum()) / len(real)
