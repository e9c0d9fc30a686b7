"""How near the examples of a linear operator come to an observation without noise, in bounded work.

Conjugate gradients on AᵀA (CGLS, Björck 1996, section 7.4) find the x of least ‖y - A x‖. They end as soon as it is
small enough, and as soon as it is certain or likely that it stays too large: for the residual r of any x, every x' has

    ‖y - A x'‖ ≥ (rᵀy - ‖Aᵀr‖ ‖x'‖) / ‖r‖,

and ‖x'‖ is bounded where the values of examples are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.operators import Linear
from diffusion.operators.operator import dot

# At most MOST iterations, fewer for large y, whose iterations take longer, so that iterations times values are about
# WORK, but at least FEWEST. A photograph that was blurred takes about 50.
MOST, FEWEST, WORK = 1000, 200, 3 * 10**8
# They end where AᵀA leaves nothing to do, and where so many of them leave this share of what is missed.
EXHAUSTED, WHILE, STALLED = 1e-24, 50, 0.99


def least_missed(
    operator: Linear, y: Tensor, like: Tensor, *, enough: float, bounds: tuple[float, float] | None = None
) -> float:
    """The least found root mean square of y - A x, for y (1, *) and an x like `like`, (1, C, *), in float64.

    It is at most `enough` times the root mean square of y if there is such an x, as far as a bounded number of
    iterations can tell. Where it is more, it need not be the least. `bounds` are those of the values of x, if there are
    such.
    """
    y, x = y.double(), torch.zeros_like(like, dtype=torch.float64)
    largest = math.inf if bounds is None else max(map(abs, bounds)) * math.sqrt(x.numel())
    limit = enough * float(y.norm())
    residual, direction = y, operator.adjoint(y, x)
    square = first = float(dot(direction, direction).sum())
    missed = [float(residual.norm())]
    for _ in range(min(MOST, max(FEWEST, WORK // y.numel()))):
        # Where Aᵀr is 0 no x gives more of y. The product of 0 and an infinite bound would be no number.
        certain = square == 0 or float((residual * y).sum()) - math.sqrt(square) * largest > limit * missed[-1]
        stalled = len(missed) > 2 * WHILE and missed[-1] > STALLED * missed[-1 - WHILE]
        if missed[-1] <= limit or certain or stalled or square <= EXHAUSTED * first:
            break
        product = operator(direction)
        step = square / float(dot(product, product).sum())
        residual = residual - step * product
        missed.append(float(residual.norm()))
        gradient = operator.adjoint(residual, x)
        square, before = float(dot(gradient, gradient).sum()), square
        direction = gradient + square / before * direction
    return missed[-1] / math.sqrt(y.numel())
