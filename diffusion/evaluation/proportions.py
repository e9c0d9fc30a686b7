"""Shares of examples with exact 95 % intervals, and the excess of one over a rate that is itself estimated.

A share of n is that of independent draws (Clopper and Pearson 1934, Biometrika 26, 404-413). A rate is that of a
threshold which is the j-th smallest of m numbers: the share of all further numbers below it is distributed as
Beta(j, m + 1 - j), whatever the distribution of the numbers (David and Nagaraja 2003, Order Statistics, section 2.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.evaluation.intervals import CONFIDENCE, Estimate, student_t

# The cells of equal angle into which a distribution is divided.
CELLS = 2**17
# The shares of a distribution that its interval leaves out on either side.
TAIL = (1 - CONFIDENCE) / 2
# Halvings of an interval in which a root lies.
HALVINGS = 24


@dataclass(frozen=True)
class Beta:
    """The distribution of a share p with the density ∝ p^(a-1) (1 - p)^(b-1), a and b at least 1, to five digits.

    With p = sin² θ the density of θ is ∝ sin^(2a-1) θ cos^(2b-1) θ, which is summed on cells of equal angle.
    """

    a: float
    b: float

    @property
    def mean(self) -> float:
        """The mean share."""
        return self.a / (self.a + self.b)

    @cached_property
    def weights(self) -> Tensor:
        """The probability of each cell, (CELLS,) float64."""
        angle = (torch.arange(CELLS, dtype=torch.float64) + 0.5) * (math.pi / 2 / CELLS)
        return ((2 * self.a - 1) * angle.sin().log() + (2 * self.b - 1) * angle.cos().log()).softmax(0)

    @cached_property
    def _cumulative(self) -> Tensor:
        return torch.cat([torch.zeros(1, dtype=torch.float64), self.weights.cumsum(0)])

    @cached_property
    def _middles(self) -> tuple[Tensor, Tensor]:
        """The shares in the middles of the cells that matter, and their probabilities."""
        some = (self.weights > 1e-12).nonzero()[:, 0]
        return ((some + 0.5) * (math.pi / 2 / CELLS)).sin().square(), self.weights[some]

    def cumulative(self, p: Tensor) -> Tensor:
        """The probability of a share below each of p (*), between 0 and 1."""
        place = p.double().clamp(0, 1).sqrt().asin() * (CELLS * 2 / math.pi)
        cell = place.long().clamp(0, CELLS - 1)
        low, high = self._cumulative[cell], self._cumulative[cell + 1]
        return low + (high - low) * (place - cell)

    def quantile(self, probability: float) -> float:
        """The share below which there is that probability."""
        cell = int(torch.searchsorted(self._cumulative, probability).clamp(1, CELLS)) - 1
        place = cell + (probability - float(self._cumulative[cell])) / float(self.weights[cell])
        return math.sin(place * math.pi / 2 / CELLS) ** 2

    @property
    def interval(self) -> tuple[float, float]:
        """The shares between which there are 95 %."""
        return self.quantile(TAIL), self.quantile(1 - TAIL)

    def expected(self, other: Beta, added: float) -> float:
        """The expectation of `other.cumulative(added + (1 - added) p)` over the shares p of this distribution."""
        p, weights = self._middles
        return float((weights * other.cumulative(added + (1 - added) * p)).sum())


@dataclass(frozen=True)
class Share:
    """A share of examples, between 0 and 1, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def estimate(self) -> Estimate:
        """The share as an estimate, whose half width is half of the interval, which need not be symmetric."""
        return Estimate(
            self.value, (self.high - self.low) / 2, {"examples": (self.high - self.low) / 2 / student_t(1001)}
        )

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def share(hits: int, n: int) -> Share:
    """The share of which `hits` of n independent draws were, with the interval of Clopper and Pearson."""
    low = Beta(hits, n - hits + 1).quantile(TAIL) if hits else 0.0
    high = Beta(hits + 1, n - hits).quantile(1 - TAIL) if hits < n else 1.0
    return Share(hits / n, low, high)


def excess(hits: int, n: int, rate: Beta) -> Share:
    """The share c of n draws that are hits in any case, where the others are hits at a rate p: `hits` in all.

    The number of hits is binomial of probability c + (1 - c) p, and p has the distribution `rate`. The interval has all
    c that neither the probability of at least so many hits nor that of at most so many rejects at 2.5 %. Where hits are
    `too_few` for any c, the rate is not that of these draws, and the interval ends where that of all hits does.
    """
    if too_few(hits, n, rate):
        return Share(0.0, 0.0, share(hits, n).high)
    value = max(0.0, (hits / n - rate.mean) / (1 - rate.mean))
    at_least, at_most = Beta(max(hits, 1), n - max(hits, 1) + 1), _more_than(hits, n)
    low = _root(lambda c: rate.expected(at_least, c) - TAIL) if hits else 0.0
    high = _root(lambda c: rate.expected(at_most, c) - (1 - TAIL)) if hits < n else 1.0
    return Share(value, low, high)


def too_few(hits: int, n: int, rate: Beta) -> bool:
    """Whether so few hits of n draws, none of which is one in any case, have a probability below 2.5 %."""
    return hits < n and rate.expected(_more_than(hits, n), 0.0) > 1 - TAIL


def _more_than(hits: int, n: int) -> Beta:
    """The distribution whose `cumulative` of a rate is the probability of more than so many hits, fewer than n."""
    most = min(hits, n - 1)
    return Beta(most + 1, n - most)


def _root(function: Callable[[float], float]) -> float:
    """Where an increasing function passes through 0 between 0 and 1; an end where it does not."""
    low, high = 0.0, 1.0
    if function(low) >= 0:
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) >= 0 else (middle, high)
    return high
