"""The interface of distances between two sets.

A set is described once, a row for each of its members. Intervals need the distances of hundreds of pairs of subsets of
the same rows, so a distance takes all pairs at once and computes what they share, such as a kernel or an order, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffusion.errors import require

Pairs = Sequence[tuple[int, int]]


class Distance(ABC):
    """A number for two sets; subclasses are frozen dataclasses.

    `name` and `unit` are for tables, the unit empty for plain numbers. `better` says which sets are alike: most have a
    small distance, but a large precision. `least` is the number of members that both sets must have.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    better: ClassVar[Literal["smaller", "larger"]] = "smaller"

    @property
    def least(self) -> int:
        """The fewest members that a set can have."""
        return 2

    @abstractmethod
    def describe(self, x: Tensor) -> Tensor:
        """Returns rows (N, *) of a set x (N, *), each a function of its own member alone.

        Raises InputError where x is not a set of what the distance takes.
        """

    @abstractmethod
    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns the distances of pairs of subsets of described rows (N, *): (M,) float64 on the CPU.

        `sets` has the numbers of the rows of every subset, and `pairs` M pairs of numbers of disjoint sets, the samples
        first. `show` shows a bar.
        """

    def __call__(self, a: Tensor, b: Tensor) -> float:
        """Returns the distance of described samples a (N, *) from described real rows b (M, *).

        Raises InputError for sets with fewer than `least` members.
        """
        for field, rows in (("samples", a), ("real", b)):
            require(len(rows) >= self.least, field, f"at least {self.least} for the {self.name}", len(rows))
        numbers = torch.arange(len(a) + len(b))
        return float(self.between(torch.cat([a, b]), [numbers[: len(a)], numbers[len(a) :]], [(0, 1)])[0])


def indicators(sets: Sequence[Tensor], size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns which of `size` rows are in every set, as ones and zeros: (size, sets)."""
    inside = torch.zeros(size, len(sets), dtype=dtype, device=device)
    for column, numbers in enumerate(sets):
        inside[numbers, column] = 1
    return inside


def features(x: Tensor) -> Tensor:
    """Returns features (N, F) in float64.

    Raises InputError for another shape, and for values that are not finite.
    """
    require(x.ndim == 2 and x.shape[1] > 0, "features", "of shape (N, F)", tuple(x.shape))
    require(bool(x.isfinite().all()), "features", "finite", "NaN or infinite ones")
    return x.double()


class FeatureDistance(Distance):
    """A distance between sets of features (N, F), which describe themselves."""

    def describe(self, x: Tensor) -> Tensor:
        """Returns the features in float64."""
        return features(x)
