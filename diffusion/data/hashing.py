"""Arrays of random numbers, each a function of one number alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Applies SplitMix64, a bijection modulo 2⁶⁴ whose values look random, to each number.

    Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators.
    """
    x = x + GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Returns uniform numbers in [0, 1) of 53 bits: the element at `numbers` of the SplitMix64 sequence of each key.

    The arguments broadcast.
    """
    bits = hashed(keys + numbers.astype(np.uint64) * GOLDEN) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def normal(keys: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int64]) -> Tensor:
    """Returns standard normal numbers in float32: the normal quantiles of `uniform(keys, numbers)`, all within ±8.4."""
    u = np.maximum(uniform(keys, numbers), 2.0**-54)
    quantiles: Tensor = torch.special.ndtri(torch.from_numpy(u))
    return quantiles.float()
