"""The units of a log-likelihood. One nat is 1/ln 2 bits; apart from that, the units differ in what they measure.

    bits/dim      -log2 P(x) per scalar, for the probability of an image of discrete gray levels: a uniform guess has
                  log2 of their number, 8 for 8-bit images and 12 for 4,096 levels
    bits/vector   -log2 p(x) for all scalars of an example together, for the density of continuous data in units of
                  their standard deviation
    bits/pixel    log2 p(x) for all colors of a pixel together, for the density of data scaled to unit variance, as in
                  Sohl-Dickstein et al. (2015, arXiv 1503.03585, table 1); larger is better

The density of values in units of their standard deviation, times the width 1/std of a gray level in these units, is the
probability of the gray level. Hence K per pixel and bits/dim are equivalent for an image of C colors:

    K = C (log2 std - bits/dim),        std the standard deviation in gray levels.

Table 1 has 5.4 bits/pixel on CIFAR-10, whose standard deviation is 64.2 gray levels: 4.20 bits/dim.
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

Quantity = TypeVar("Quantity", float, Tensor)

# The names of the units of all scalars, of those that are hidden, and of whole vectors.
DIM, HIDDEN, VECTOR = "bits/dim", "bits/hidden dim", "bits/vector"


def bits(nats: Quantity) -> Quantity:
    """Converts nats to bits."""
    return nats / math.log(2)


def bits_per_dim(nats: Quantity, dim: int) -> Quantity:
    """Converts nats per example of `dim` scalars to bits per scalar."""
    return bits(nats) / dim


def bits_per_pixel(bits_per_dim: float, *, colors: int, std: float) -> float:
    """Converts bits/dim of an image to K in bits/pixel. `std` is the standard deviation of the data in gray levels."""
    return colors * (math.log2(std) - bits_per_dim)


def meaning(levels: int | None, value_range: tuple[float, float], *, dim: int, std: float) -> str:
    """Says what a likelihood of images in a range of file values is of.

    `levels` is the number of gray levels between the ends of the range, None for continuous data. `std` is the standard
    deviation of the data in gray levels, for continuous data as a share of the range. The density of continuous data
    depends on the unit of the values: with a unit s times as large it has dim log2 s bits less.
    """
    low, high = value_range
    if levels is not None:
        return (
            f"bits/dim: of {levels:,} gray levels, the values {low:,.9g} to {high:,.9g} of the files; a uniform guess "
            f"has {math.log2(levels):.4f}, and numbers of other ranges or depths do not compare"
        )
    unit = std * (high - low)
    return (
        f"bits/vector: of the density of the values in units of their standard deviation, {unit:.6g} in the values of "
        f"the files; of their density in the values of the files it is {dim * math.log2(unit):+.4f}"
    )


def null_log_likelihood(dim: int, *, second_moment: float = 1.0) -> float:
    """L_null = E log N(x; 0, I) in nats per example, for data of mean square `second_moment` per scalar.

    It is -½ dim log(2πe) for a second moment of 1. K - L_null measures the cost of destroying the data (Sohl-Dickstein
    et al. 2015, table 1).
    """
    return -dim * (math.log(2 * math.pi) + second_moment) / 2
