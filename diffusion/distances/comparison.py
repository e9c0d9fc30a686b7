"""The distance of samples from real examples, beside that of real examples from each other, with intervals.

A distance depends on the sizes of its sets, so both numbers are for sets of the same size n:

    value    the mean distance of n samples from n real examples
    floor    the mean distance of n real examples from n others
    excess   value - floor, whose expectation is 0 where samples are real

n is the number of samples, or half the number of real examples where that is less. In each of a few rounds, n samples
and two disjoint sets of n real examples are drawn; the samples are compared with both sets, and the sets with each
other. Rounds take other members as long as there are.

Intervals. A bootstrap draws members twice, and duplicates are near neighbors and zero distances, which no set of its
size has. Here nothing is drawn twice.

Spread: half of the samples and half of the real examples are drawn, and treated as the whole. Over draws of halves
without replacement, the variance of a mean is that of the mean of all members (delete-d jackknife with d = N/2; Shao &
Wu 1989, Ann. Statist. 17, 1176, eq. 2.2). So ± z standard deviations of the halves are an interval of value, floor and
excess. It is too wide, not too narrow, for the part of a statistic that is quadratic in the members: the variance of
that part over halves is up to three times its own.

Near zero the excess of an unbiased distance is all quadratic, skewed, and the interval needs more than its spread. If
samples are real, they are exchangeable with the real examples, so the excess is one of those after a random division of
all examples into samples and real ones. It lies between the (α/2) quantiles of these with probability 1 - α exactly
(permutation test; Hoeffding 1952, Ann. Math. Statist. 23, 169). The interval of the excess therefore inverts two tests:
it holds 0 just where the permutation test at 0 accepts, and values far from 0 by the spread. Between them the variance
is linear in the excess, as that of MMD² is (Gretton et al. 2012, JMLR 13, theorem 8 and corollary 16), which makes it
an interval as Wilson's is for shares.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.distances.distance import Distance
from diffusion.errors import require
from diffusion.randomness import example_seed


@dataclass(frozen=True)
class Interval:
    """A number and its interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2

    def covers(self, truth: float) -> bool:
        """Whether the interval holds a number."""
        return self.low <= truth <= self.high

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Comparison:
    """The distance of `size` samples from as many real examples, what it is between real ones, and the difference.

    The intervals have the same `confidence` each.
    """

    value: Interval
    floor: Interval
    excess: Interval
    size: int
    confidence: float


def common_size(samples: int, real: int) -> int:
    """Returns the size at which samples are compared with real examples, and these with each other."""
    return min(samples, real // 2)


def compare(
    distance: Distance,
    samples: Tensor,
    real: Tensor,
    *,
    confidence: float = 0.9,
    repeats: int = 100,
    rounds: int = 4,
    seed: int = 0,
    show: bool = False,
) -> Comparison:
    """Compares described samples (N, *) with described real examples (M, *).

    The intervals are made of `repeats` halves and of about as many permutations, so that the quantiles are exact. Every
    number is a mean over `rounds`. `seed` draws all of them. `show` shows bars.

    Raises InputError for sets that are too small for the distance, and for options out of range.
    """
    size = common_size(len(samples), len(real))
    require(0 < confidence < 1, "confidence", "between 0 and 1", confidence)
    require(rounds >= 1, "rounds", "at least 1", rounds)
    tail = round(2 / (1 - confidence))
    require(repeats >= tail, "repeats", f"at least {tail} for intervals of {confidence:.0%}", repeats)
    require(len(samples) >= 2 * distance.least, "samples", f"at least {2 * distance.least}", len(samples))
    require(len(real) >= 4 * distance.least, "real", f"at least {4 * distance.least}", len(real))
    permutations = math.ceil(repeats / tail) * tail - 1
    plan = Plan(size, rounds, torch.Generator().manual_seed(example_seed(seed)))
    rows = torch.cat([plan.some(samples, size), plan.some(real, 2 * size)])
    ours, theirs = torch.arange(len(rows)).tensor_split([min(len(samples), rounds * size)])
    plan.add(ours, theirs)
    for _ in range(repeats):
        plan.add_halves(ours, theirs)
    for _ in range(permutations):
        mixed = torch.randperm(len(rows), generator=plan.generator)
        plan.add(mixed[: len(ours)], mixed[len(ours) :])
        for _ in range(2):
            plan.add_halves(mixed[: len(ours)], mixed[len(ours) :])
    numbers = distance.between(rows, plan.sets, plan.pairs, show=show).view(-1, rounds, 3)
    value, floor = numbers[..., :2].mean((1, 2)), numbers[..., 2].mean(1)
    excess, halves = value - floor, slice(1, 1 + repeats)
    null, first, second = excess[1 + repeats :].view(-1, 3).T
    surplus = max(0.0, float((first - second).square().mean() / 2 - null.var()))
    z = math.sqrt(2) * float(torch.erfinv(torch.tensor(confidence, dtype=torch.float64)))
    of_halves = [float(each[halves].var()) for each in (value, floor, excess)]
    # Halves vary at most four times as much as the whole, as where all is quadratic.
    of_halves[2] = max(of_halves[2] - surplus, of_halves[2] / 4)
    spreads = [z * math.sqrt(variance) for variance in of_halves]
    ties = torch.rand(1 + permutations, generator=plan.generator)
    return Comparison(
        symmetric(float(value[0]), spreads[0]),
        symmetric(float(floor[0]), spreads[1]),
        score_interval(float(excess[0]), null, spreads[2], (permutations + 1) // tail, ties),
        size,
        confidence,
    )


@dataclass
class Plan:
    """The sets to compare: in each of `rounds`, samples with both of two real sets, and these with each other."""

    size: int
    rounds: int
    generator: torch.Generator

    def __post_init__(self) -> None:
        self.sets: list[Tensor] = []
        self.pairs: list[tuple[int, int]] = []

    def some(self, rows: Tensor, each: int) -> Tensor:
        """Returns the rows (N, *), or as many of them as all rounds take with `each`."""
        count = self.rounds * each
        if len(rows) <= count:
            return rows
        return rows[torch.randperm(len(rows), generator=self.generator)[:count].to(rows.device)]

    def add_halves(self, samples: Tensor, real: Tensor) -> None:
        """Adds the sets of all rounds among half of the samples and half of the real examples."""
        ours, theirs = (
            each[torch.randperm(len(each), generator=self.generator)[: len(each) // 2]] for each in (samples, real)
        )
        self.add(ours, theirs, self.size // 2)

    def add(self, samples: Tensor, real: Tensor, size: int = 0) -> None:
        """Adds the sets of all rounds, of `size` members each, by default that of the plan."""
        size = size or self.size
        for ours, theirs in zip(self.parts(samples, size), self.parts(real, 2 * size), strict=True):
            first = len(self.sets)
            self.sets += [ours, theirs[:size], theirs[size:]]
            self.pairs += [(first, first + 1), (first, first + 2), (first + 1, first + 2)]

    def parts(self, numbers: Tensor, size: int) -> Iterator[Tensor]:
        """Yields a part of so many numbers for every round; all have been in one before any is in another."""
        fitting = len(numbers) // size
        for k in range(self.rounds):
            if k % fitting == 0:
                mixed = numbers[torch.randperm(len(numbers), generator=self.generator)]
            yield mixed[k % fitting * size :][:size]


def symmetric(value: float, half_width: float) -> Interval:
    """Returns the interval of so many units around a value."""
    return Interval(value, value - half_width, value + half_width)


def score_interval(value: float, null: Tensor, spread: float, rank: int, ties: Tensor) -> Interval:
    """Returns the interval of an excess, whose values by permutation are `null` (B,) and whose half width is `spread`.

    It holds 0 unless the value is among the `rank` least or greatest of all B + 1. The random numbers `ties` (B + 1,)
    order those that are equal.
    """
    ordered = null.sort().values
    least, most = float(ordered[rank - 1]), float(ordered[-rank])
    order = ties[1:] < ties[0]
    below = int(((null < value) | ((null == value) & order)).sum())
    if below >= len(null) + 1 - rank and value > 0:
        return Interval(value, *ends(value, most, spread))
    if below < rank and value < 0:
        low, high = ends(-value, -least, spread)
        return Interval(value, -high, -low)
    # Where 0 is accepted, the far ends of `ends` for a value on the border, so that the interval does not jump there.
    down = max(most, spread**2 / -least if least < 0 else spread)
    up = max(-least, spread**2 / most if most > 0 else spread)
    return Interval(value, min(value - down, 0.0), max(value + up, 0.0))


def ends(value: float, at_zero: float, at_value: float) -> tuple[float, float]:
    """Returns the interval, within the positive numbers, of a value > 0 whose half width is `at_zero` in 0.

    Its ends are the roots δ of (value - δ)² = w², with w² linear in δ from `at_zero`² in 0 to `at_value`² in the value.
    """
    half = value + (at_value**2 - at_zero**2) / (2 * value)
    root = math.sqrt(max(0.0, half**2 - (value**2 - at_zero**2)))
    return max(half - root, sys.float_info.min), half + root
