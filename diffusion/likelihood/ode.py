"""Runge-Kutta solvers of dy/du = f(u, y) for batches, with fixed steps or steps chosen by an embedded error estimate.

The methods are given as Butcher tableaus: Heun (2nd order), the classical method (4th), and Dormand and Prince (1980),
of 5th order with an embedded 4th order method that estimates its error. Adaptive step sizes follow Hairer, Nørsett and
Wanner, Solving Ordinary Differential Equations I, II.4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.errors import require, require_one

Slope = Callable[[float, Tensor], Tensor]
SAFETY, SHRINK, GROW, SMALLEST = 0.9, 0.2, 5.0, 1e-10


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method of order `order`.

    `nodes` are c, `matrix` is the lower triangle of a, and `weights` are b. `error` holds the weights of the error
    estimate, b minus those of the embedded method of order `order` - 1, or is empty without one.
    """

    order: int
    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    error: tuple[float, ...] = ()

    def step(
        self, slope: Slope, u: float, y: Tensor, h: float, first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns y at u + h, the error estimate (0 without one) and the slope at the last node, all (B, N).

        `first` is the slope at u, if it is known.
        """
        slopes = [slope(u, y) if first is None else first]
        for node, row in zip(self.nodes[1:], self.matrix, strict=True):
            slopes.append(slope(u + node * h, y + h * combine(row, slopes)))
        error = h * combine(self.error, slopes) if self.error else torch.zeros_like(y)
        return y + h * combine(self.weights, slopes), error, slopes[-1]


def combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """The weighted sum Σ weight slope: (B, N)."""
    total = torch.zeros_like(slopes[0])
    for weight, value in zip(weights, slopes, strict=True):
        if weight:
            total = total + weight * value
    return total


HEUN = Tableau(2, (0, 1), ((1,),), (1 / 2, 1 / 2))
CLASSICAL = Tableau(4, (0, 1 / 2, 1 / 2, 1), ((1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
DORMAND_PRINCE = Tableau(
    5,
    (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    (
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
TABLEAUS = {"heun": HEUN, "rk4": CLASSICAL, "dopri5": DORMAND_PRINCE}


class Solver(ABC):
    """Integrates y from u = `start` to u = `end`, two numbers in either order."""

    @abstractmethod
    def __call__(self, slope: Slope, y: Tensor, start: float, end: float) -> Tensor:
        """Returns y at `end`, given y at `start`: (B, N) float64 -> (B, N)."""

    @abstractmethod
    def refined(self) -> Solver:
        """A solver of the same kind with an error several times smaller, against which to measure this one's error."""


@dataclass(frozen=True)
class Fixed(Solver):
    """Takes `steps` equal steps of one method of `TABLEAUS`."""

    steps: int = 64
    method: str = "rk4"

    def __post_init__(self) -> None:
        require(self.steps >= 1, "solver.steps", "at least 1", self.steps)
        require_one(self.method, "solver.method", TABLEAUS)

    def __call__(self, slope: Slope, y: Tensor, start: float, end: float) -> Tensor:
        """Returns y at `end`, given y at `start`: (B, N) float64 -> (B, N)."""
        h = (end - start) / self.steps
        for number in range(self.steps):
            y, _, _ = TABLEAUS[self.method].step(slope, start + number * h, y, h)
        return y

    def refined(self) -> Fixed:
        """The same method with twice the steps."""
        return Fixed(2 * self.steps, self.method)


@dataclass(frozen=True)
class Adaptive(Solver):
    """Dormand-Prince with steps chosen so that the estimated error of each is at most `tolerance` (1 + |y|).

    The error is the root mean square over the coordinates of the worst example. The first step has the length `first`.

    Raises FloatingPointError if no step is small enough, for example when the slope is not finite.
    """

    tolerance: float = 1e-5
    first: float = 0.1

    def __post_init__(self) -> None:
        require(self.tolerance > 0, "solver.tolerance", "a positive number", self.tolerance)
        require(self.first > 0, "solver.first", "a positive number", self.first)

    def __call__(self, slope: Slope, y: Tensor, start: float, end: float) -> Tensor:
        """Returns y at `end`, given y at `start`: (B, N) float64 -> (B, N)."""
        u, h = start, min(self.first, abs(end - start)) * (1 if end > start else -1)
        first = slope(u, y)
        while u != end:
            last = abs(h) >= abs(end - u)
            h = end - u if last else h
            proposal, error, after = DORMAND_PRINCE.step(slope, u, y, h, first)
            scale = self.tolerance * (1 + torch.maximum(y.abs(), proposal.abs()))
            # An error of NaN is set to infinity, so that the step is rejected.
            ratio = (error / scale).square().mean(1).sqrt().max().nan_to_num(torch.inf).item()
            if ratio <= 1:
                # The last node of this tableau is u + h, so its slope is the first one of the next step.
                u, y, first = end if last else u + h, proposal, after
            elif abs(h) < SMALLEST * abs(end - start):
                raise FloatingPointError(f"solver: no step is small enough at half log-SNR {u:.3f}; is x̂ finite?")
            h *= min(GROW, max(SHRINK, SAFETY * ratio**-0.2 if ratio else GROW))
        return y

    def refined(self) -> Adaptive:
        """The same solver with a tenth of the tolerance."""
        return Adaptive(self.tolerance / 10, self.first)
