"""Compares samples with real examples by several distances, without a network and by the features of one.

Every image is described once, in batches, and every process describes a part of them. The distances are then divided
among the processes too. Which distances there are depends on the examples:

    images    those of `distances.IMAGE_DISTANCES`, and with a network those of `distances.FEATURE_DISTANCES`
    points    the sliced Wasserstein distance of their coordinates, and the shares near each other in space
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.distances import FEATURE_DISTANCES, IMAGE_DISTANCES, Comparison, Distance, Interval, compare
from diffusion.distances.comparison import common_size
from diffusion.distances.distance import Pairs
from diffusion.distances.sliced import SlicedWasserstein
from diffusion.errors import require
from diffusion.evaluation.features import FeatureNetwork, eight_bit
from diffusion.evaluation.intervals import CONFIDENCE
from diffusion.progress import track

# The rows of a set of examples by what describes them: the name of a distance, or FEATURES.
Described = dict[str, Tensor]
FEATURES = "features"
# The distances of features that coordinates of points have too: they see what is near, where a projection does not.
NEAR = ("precision", "recall", "density", "coverage")
# What the distances by the features of FID are called.
FID_NAMES = {"frechet": "FID", "frechet_extrapolated": "FID at N = ∞", "kernel": "KID"}
# The distances whose every pair takes a singular value decomposition: their repeats and rounds.
SLOW, SLOW_REPEATS, SLOW_ROUNDS = ("frechet", "frechet_extrapolated"), 40, 1
# The extrapolation needs so many times as many members as features.
ENOUGH = 4


@dataclass(frozen=True)
class OfPoints(Distance):
    """The sliced Wasserstein distance of points (N, D), in standard deviations of their coordinates."""

    name = SlicedWasserstein.name

    def describe(self, x: Tensor) -> Tensor:
        """Returns each point as one patch of one level: (N, 1, 1, 1, D)."""
        return x[:, None, None, None]

    def between(self, rows: Tensor, sets: Sequence[Tensor], pairs: Pairs, *, show: bool = False) -> Tensor:
        """Returns the distance of every pair."""
        return SlicedWasserstein().between(rows, sets, pairs, show=show)


@dataclass(frozen=True)
class Row:
    """A distance between samples and real examples: its name in tables, the comparison, and which sets are alike.

    `whole` is the distance of all samples from all real examples, which other programs compute; it has no interval.
    """

    name: str
    comparison: Comparison
    whole: float
    better: str

    @property
    def told_apart(self) -> bool:
        """Whether samples are told from real examples: the interval of the excess does not hold 0."""
        return not self.comparison.excess.covers(0.0)


@dataclass(frozen=True)
class Sets:
    """What is compared: the rows of samples and of real examples, one of them for each member."""

    samples: Described
    real: Described

    def of(self, samples: Tensor, real: Tensor) -> Sets:
        """The members for which the masks (N,) and (M,) are true, of which some classes have few."""
        return Sets(
            {key: rows[samples] for key, rows in self.samples.items()},
            {key: rows[real] for key, rows in self.real.items()},
        )

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of samples and of real examples."""
        return len(next(iter(self.samples.values()))), len(next(iter(self.real.values())))


@dataclass(frozen=True)
class Comparing:
    """Describes examples of a `shape` and compares sets of them, by a network too where there is one."""

    shape: tuple[int, ...]
    network: FeatureNetwork | None = None
    seed: int = 0
    shared: bool = False
    progress: bool = False

    @cached_property
    def plain(self) -> dict[str, Distance]:
        """The distances that take examples as they are."""
        if len(self.shape) == 1:
            return {"sliced_wasserstein": OfPoints(), **{name: FEATURE_DISTANCES[name]() for name in NEAR}}
        return {name: kind() for name, kind in IMAGE_DISTANCES.items()}

    @cached_property
    def distances(self) -> dict[str, Distance]:
        """All distances by name."""
        by_features = {} if self.network is None else {name: kind() for name, kind in FEATURE_DISTANCES.items()}
        return {**self.plain, **by_features}

    def name(self, key: str) -> str:
        """What a distance is called: FID and KID only by the weights that they are defined by."""
        if key in self.plain or self.network is None:
            return self.distances[key].name
        if self.network.is_fid and key in FID_NAMES:
            return FID_NAMES[key]
        return f"{self.distances[key].name} ({self.network.name})"

    def describe(self, batches: Iterable[Tensor]) -> Described:
        """Describes batches of examples: images (B, C, H, W) in [0, 1], or points (B, D).

        With `shared` they are those of this process, and the rows are those of all.
        """
        found = [self._describe(batch) for batch in batches]
        blank = {key: rows[:0] for key, rows in self._describe(torch.zeros(1, *self.shape)).items()}
        joined = {key: torch.cat([rows, *(each[key] for each in found)]) for key, rows in blank.items()}
        return {key: distributed.gather(rows) for key, rows in joined.items()} if self.shared else joined

    def _describe(self, x: Tensor) -> Described:
        rows = {name: distance.describe(x) for name, distance in self.plain.items()}
        return rows if self.network is None else {**rows, FEATURES: self.network(eight_bit(x))}

    @staticmethod
    def size(samples: int, real: int) -> int:
        """The size n of the sets that are compared."""
        return common_size(samples, real)

    def possible(self, samples: int, real: int) -> dict[str, Distance]:
        """The distances for which there are enough samples and real examples."""
        size = self.size(samples, real)
        return {key: distance for key, distance in self.distances.items() if size >= self.least(key)}

    def least(self, key: str) -> int:
        """The size of the sets that a distance needs, of which halves are taken for its interval."""
        least = 2 * self.distances[key].least
        if key == "frechet_extrapolated" and self.network is not None:
            return max(least, ENOUGH * self.network.module.width)
        return least

    def check(self, samples: int, real: int, *fields: str) -> None:
        """Raises InputError, with the names of the two fields, where there are too few for any distance."""
        least = min(map(self.least, self.distances))
        require(samples >= least, fields[0], f"at least {least}", samples)
        require(real >= 2 * least, fields[1], f"such that there are {2 * least} real examples to compare with", real)

    def compare(self, sets: Sets) -> dict[str, Row]:
        """Compares samples with real examples by all distances for which there are enough of both."""
        keys = [*self.possible(*sets.counts)]
        found = self._shared([(key, sets) for key in keys], show=self.progress)
        return dict(zip(keys, found, strict=True))

    def by_class(self, parts: Mapping[str, Sets]) -> dict[str, Row]:
        """Compares the samples and real examples of each class by one distance.

        For images it is one without bias: its expectation does not depend on n, so that classes of several sizes
        compare.
        """
        key = "patch_mmd" if self.network is None else "kernel"
        jobs = [(key if key in self.distances else next(iter(self.distances)), sets) for sets in parts.values()]
        return dict(zip(parts, self._shared(jobs, show=False), strict=True))

    def _shared(self, jobs: Sequence[tuple[str, Sets]], *, show: bool) -> list[Row]:
        """The rows of all jobs, of which each process computes a part."""
        mine = distributed.share(len(jobs)) if self.shared else range(len(jobs))
        alone = self.progress and not show and len(mine) > 0
        done = [self._numbers(*jobs[i], show=show) for i in track(mine, len(mine), "comparing", "class", show=alone)]
        numbers = torch.tensor(done, dtype=torch.float64).reshape(len(done), -1 if done else NUMBERS)
        numbers = distributed.gather(numbers) if self.shared else numbers
        return [self._row(key, each) for (key, _), each in zip(jobs, numbers.tolist(), strict=True)]

    def _numbers(self, key: str, sets: Sets, *, show: bool) -> list[float]:
        """The numbers of a row, which processes exchange."""
        distance, rows = self.distances[key], key if key in self.plain else FEATURES
        samples, real = sets.samples[rows], sets.real[rows]
        slow = {"repeats": SLOW_REPEATS, "rounds": SLOW_ROUNDS} if key in SLOW else {}
        found = compare(distance, samples, real, confidence=CONFIDENCE, seed=self.seed, show=show, **slow)
        intervals = (found.value, found.floor, found.excess)
        numbers = [number for each in intervals for number in (each.value, each.low, each.high)]
        return [*numbers, float(found.size), distance(samples, real)]

    def _row(self, key: str, numbers: Sequence[float]) -> Row:
        value, floor, excess = (Interval(*numbers[i : i + 3]) for i in (0, 3, 6))
        comparison = Comparison(value, floor, excess, int(numbers[9]), CONFIDENCE)
        return Row(self.name(key), comparison, numbers[10], self.distances[key].better)


# The numbers of a row.
NUMBERS = 11
