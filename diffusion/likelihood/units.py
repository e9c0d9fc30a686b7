"""The units of a log-likelihood. One nat is 1/ln 2 bits; beyond that they differ in what is counted.

    bits/dim      of the probability of an 8-bit image, per scalar: a uniform guess has 8
    bits/vector   of the density of continuous data in units of their standard deviation, -log2 p(x) for all scalars of
                  an example together
    bits/pixel    as Sohl-Dickstein et al. (2015, arXiv 1503.03585, table 1) count: log2 of the density of data scaled
                  to unit variance, all colors of a pixel together; larger is better

A density of values in units of their standard deviation, times the width 1/std of a level in these units, is the
probability of a level. Hence K per pixel and bits/dim say the same of an image of C colors:

    K = C (log2 std - bits/dim),        std the standard deviation in levels.

Table 1 has 5.4 bits/pixel on CIFAR-10, whose standard deviation is 64.2 levels: 4.20 bits/dim.
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

Quantity = TypeVar("Quantity", float, Tensor)


def bits(nats: Quantity) -> Quantity:
    """Nats as bits."""
    return nats / math.log(2)


def bits_per_dim(nats: Quantity, dim: int) -> Quantity:
    """Nats per example as bits per scalar; for 8-bit images a uniform guess has 8."""
    return bits(nats) / dim


def bits_per_pixel(bits_per_dim: float, *, colors: int, std: float) -> float:
    """K in bits/pixel of an image at that many bits/dim. `std` is the data's, in levels."""
    return colors * (math.log2(std) - bits_per_dim)


def null_log_likelihood(dim: int, *, second_moment: float = 1.0) -> float:
    """L_null = E log N(x; 0, I) in nats per example, for data of that mean square per scalar: -½ dim log(2πe) at 1.

    What destroying the data costs is measured from here: K - L_null (Sohl-Dickstein et al. 2015, table 1).
    """
    return -dim * (math.log(2 * math.pi) + second_moment) / 2
