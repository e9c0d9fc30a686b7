"""The Fréchet distance of the Gaussians with the moments of two sets (Heusel et al. 2017, arXiv 1706.08500, eq. 6).

    d² = |m - n|² + tr C + tr D - 2 tr (C D)^½

With C = AᵀA and D = BᵀB, the eigenvalues of C D are the squared singular values of A Bᵀ, so the last trace is their
sum. No matrix is squared, and no root is taken of eigenvalues that rounding may have made negative. A is the centered
set itself, or, where it has more members than features, the triangular factor of it.

The distance of finite sets is too large by about a constant over their size, which depends on the distribution. Its
extrapolation removes that (Chong & Forsyth 2020, arXiv 1911.07023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.distances.distance import FeatureDistance, Pairs
from diffusion.progress import track
from diffusion.randomness import example_seed


@dataclass(frozen=True)
class Moments:
    """The mean (F,) of a set, and a factor A (R, F) of its covariance AᵀA."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Returns the moments of rows (N, F), with the unbiased covariance."""
        mean = rows.mean(0)
        factor = (rows - mean) / math.sqrt(len(rows) - 1)
        return cls(mean, torch.linalg.qr(factor, mode="r").R if len(rows) > rows.shape[1] else factor)

    def distance(self, other: Moments) -> float:
        """Returns d²."""
        common = torch.linalg.svdvals(self.factor @ other.factor.T).sum()
        spread = self.factor.square().sum() + other.factor.square().sum()
        return float((self.mean - other.mean).square().sum() + spread - 2 * common)


@dataclass(frozen=True)
class Frechet(FeatureDistance):
    """The Fréchet distance of features: FID where they are those of Inception."""

    name: ClassVar[str] = "Fréchet distance"

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns d² of every pair. The moments of a set are kept as long as a pair needs them."""
        last = {number: k for k, pair in enumerate(pairs) for number in pair}
        moments: dict[int, Moments] = {}
        found = []
        for k, pair in enumerate(track(pairs, len(pairs), self.name, "pair", show=show)):
            for number in pair:
                if number not in moments:
                    moments[number] = Moments.of(rows[sets[number]])
            found.append(moments[pair[0]].distance(moments[pair[1]]))
            moments = {number: value for number, value in moments.items() if last[number] > k}
        return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class FrechetExtrapolated(FeatureDistance):
    """The Fréchet distance at infinitely many members, linear in 1/N.

    The line goes through the distance of the whole sets and the mean distance of their halves, which `seed` chooses. It
    holds where even the halves have several times as many members as features.
    """

    name: ClassVar[str] = "Fréchet distance at N = ∞"

    seed: int = 0

    @property
    def least(self) -> int:
        """Two members in each half."""
        return 4

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns the extrapolated d² of every pair."""
        generator = torch.Generator().manual_seed(example_seed(self.seed))
        parts: list[Tensor] = []
        for numbers in sets:
            half = len(numbers) // 2
            mixed = numbers[torch.randperm(len(numbers), generator=generator)]
            parts += [numbers, mixed[:half], mixed[half : 2 * half]]
        part_pairs = [(3 * a + k, 3 * b + k) for a, b in pairs for k in range(3)]
        found = Frechet().between(rows, parts, part_pairs, show=show).view(-1, 3)
        whole, halves = found[:, 0], found[:, 1:].mean(1)
        # The means of 1/N over the two sets of a pair, which the line is drawn over.
        inverse = torch.tensor([1 / len(numbers) for numbers in sets], dtype=torch.float64)
        inverse_half = torch.tensor([1 / (len(numbers) // 2) for numbers in sets], dtype=torch.float64)
        a, b = torch.tensor(pairs).reshape(-1, 2).T
        x, x_half = inverse[a] + inverse[b], inverse_half[a] + inverse_half[b]
        return whole - (halves - whole) * x / (x_half - x)
