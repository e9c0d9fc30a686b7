"""Means over examples with 95 % intervals, and the decomposition of their errors by source.

The value v_i of each of N examples varies between examples, and within an example by several independent random sources
(noise, paths, dequantization, probes). The variance of the mean is

    Var = var(v)/N = variance between examples/N + Σ_sources mean_i(variance within example i)/N,

because each example has its own random numbers. So var(v) contains the variances of all sources already, and what
remains after subtracting them is the variance between examples. Only the error of a solver is added to the interval,
because it is not random.
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
    """A mean over examples, and the half width of its 95 % interval, None where it cannot be estimated.

    `errors` decomposes the standard error of the mean by source: "examples" for the choice of the examples, and one for
    each random source within them. "solver" is no standard error but the mean difference between two tolerances, which
    is added to the half width.
    """

    mean: float
    half_width: float | None
    errors: dict[str, float]

    @property
    def standard_error(self) -> float:
        """The standard error of the mean, from all random sources together."""
        return math.hypot(*(error for name, error in self.errors.items() if name != "solver"))

    def scaled(self, factor: float, shift: float = 0.0) -> Estimate:
        """The estimate of the mean of shift + factor · value, such as a change of units."""
        width = None if self.half_width is None else abs(factor) * self.half_width
        errors = {name: abs(factor) * error for name, error in self.errors.items()}
        return Estimate(shift + factor * self.mean, width, errors)

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {'?' if self.half_width is None else f'{self.half_width:.4f}'}"


def estimate(
    values: Tensor, within: Mapping[str, Tensor], *, solver: float | None = None, repeats: int = 1
) -> Estimate:
    """Estimates the mean of `values` (N,).

    `within` has the variance of each value by random source, (N,) each. `solver` is the mean error of the solver. With
    one example the interval covers the random variance within it alone, which `repeats` independent estimates of the
    value have measured.

    Raises FloatingPointError that names the first example whose value is not finite.
    """
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise FloatingPointError(f"evaluation: example {int(bad[0])} has the value {float(values[bad[0]])}")
    count = len(values)
    variances = {name: float(variance.mean()) / count for name, variance in within.items()}
    total = sum(variances.values())
    degrees = count - 1 if count > 1 else repeats - 1
    if count > 1:
        random_variance, total = total, float(values.var()) / count
        variances = {"examples": max(0.0, total - random_variance), **variances}
    # A variance that was computed as a difference may be below zero.
    errors = {name: math.sqrt(max(0.0, variance)) for name, variance in variances.items()}
    width = student_t(degrees) * math.sqrt(max(0.0, total)) if degrees and errors else None
    if solver is not None:
        errors["solver"] = solver
        width = None if width is None else width + solver
    return Estimate(float(values.mean()), width, errors)


@cache
def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The half width, in standard errors, of an interval with a confidence, for Student's t with `degrees` of freedom.

    With t = √ν tan θ, ν degrees of freedom, the density of θ is ∝ cos^(ν-1) θ. It is summed on a grid up to ν = 1000,
    beyond which the distribution is taken as normal.
    """
    if degrees > 1000:
        return float(torch.special.ndtri(torch.tensor((1 + confidence) / 2, dtype=torch.float64)))
    # The positive half of the distribution, by the midpoints of cells of equal angle.
    cells = 200_000
    angle = (torch.arange(cells, dtype=torch.float64) + 0.5) * (math.pi / 2 / cells)
    cumulative = (angle.cos().log() * (degrees - 1)).exp().cumsum(0)
    cell = int(torch.searchsorted(cumulative, confidence * cumulative[-1]))
    return math.sqrt(degrees) * math.tan((cell + 0.5) * math.pi / 2 / cells)
