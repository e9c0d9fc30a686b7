"""Means with 95 % intervals, and where their widths come from.

Of N examples with values v_i, each of which has a variance by each of several sources of chance within the example
(noise, paths, dequantization, probes), the variance of the mean is

    Var = var(v)/N = between examples + Σ_sources mean_i(variance)/N

because each example draws its own random numbers: var(v) has them all in it already, and what is left of it after the
sources is the spread of the examples. Nothing is added to it but the solver's error, which is no matter of chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over examples, and the half width of its 95 % interval, None where nothing tells.

    `errors` are standard errors of the mean by source: "examples" for the choice of the examples, and each source
    within them; "solver" is a difference between two tolerances, and widens the interval as it is.
    """

    mean: float
    half_width: float | None
    errors: dict[str, float]

    @property
    def standard_error(self) -> float:
        """Of all sources of chance together."""
        return math.hypot(*(error for name, error in self.errors.items() if name != "solver"))

    def scaled(self, factor: float, shift: float = 0.0) -> Estimate:
        """The same in other units, shift + factor times the values."""
        width = None if self.half_width is None else abs(factor) * self.half_width
        errors = {name: abs(factor) * error for name, error in self.errors.items()}
        return Estimate(shift + factor * self.mean, width, errors)

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {'?' if self.half_width is None else f'{self.half_width:.4f}'}"


def estimate(
    values: Tensor, within: Mapping[str, Tensor], *, solver: float | None = None, repeats: int = 1
) -> Estimate:
    """The mean of values (N,), with their variances by source, (N,) each, and the mean error of the solver.

    One example has no spread: its interval covers what is random within it, as `repeats` estimates of it tell.

    Raises FloatingPointError that names the first example whose value is not finite.
    """
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise FloatingPointError(f"evaluation: example {int(bad[0])} has the value {float(values[bad[0]])}")
    count = len(values)
    variances = {name: float(variance.mean()) / count for name, variance in within.items()}
    chance = sum(variances.values())
    freedom = count - 1 if count > 1 else repeats - 1
    if count > 1:
        total = float(values.var()) / count
        variances = {"examples": max(0.0, total - chance), **variances}
        chance = total
    # A variance that was got as a difference may come out below zero.
    errors = {name: math.sqrt(max(0.0, variance)) for name, variance in variances.items()}
    width = student_t(freedom) * math.sqrt(max(0.0, chance)) if freedom and errors else None
    if solver is not None:
        errors["solver"] = solver
        width = None if width is None else width + solver
    return Estimate(float(values.mean()), width, errors)


@cache
def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The half width in standard errors of an interval of that level, from so many degrees of freedom.

    With t = √ν tan θ the density of Student's law is ∝ cos^(ν-1) θ, which is summed on a grid up to ν = 1000, beyond
    which it is taken as normal.
    """
    if freedom > 1000:
        return float(torch.special.ndtri(torch.tensor((1 + confidence) / 2, dtype=torch.float64)))
    # Half the law, in equal shares of the angle; the midpoints of shares that are small enough sum to its integral.
    shares = 200_000
    angle = (torch.arange(shares, dtype=torch.float64) + 0.5) * (math.pi / 2 / shares)
    law = (angle.cos().log() * (freedom - 1)).exp().cumsum(0)
    reached = int(torch.searchsorted(law, confidence * law[-1]))
    return math.sqrt(freedom) * math.tan((reached + 0.5) * math.pi / 2 / shares)
