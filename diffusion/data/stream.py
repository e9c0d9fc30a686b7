"""The order of examples, a function of the seed and the number of the sample alone.

The permutation of an epoch is computed where it is needed, so that a dataset of any size takes no memory for it. It is
a generalized Feistel cipher with cycle walking (Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains): a
number x < a b, written as x = a r + l, goes through invertible rounds

    l ← l + h(r) mod a,    r ← r + h(l) mod b,

with a keyed hash h, and again through all rounds until it is below the length. With a = ⌈√length⌉ and b = ⌈length / a⌉,
at most one number in √length goes through them twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.data.hashing import hashed
from diffusion.randomness import example_seed

# With 16 rounds all orders of as few as four examples are equally likely, as far as 4,800 epochs can tell.
ROUNDS = 16


@dataclass(frozen=True)
class SampleStream:
    """An endless order of the `length` examples of a dataset, in which every epoch holds each of them once.

    Sample number n is example n mod length of the permutation of epoch n // length, which depends on the seed and the
    epoch only. Any process can compute any part at any time, and a run resumes from one number.

    Raises ValueError for an empty dataset.
    """

    length: int
    seed: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"stream.length: must be at least 1, got {self.length}")

    def indices(self, start: int, count: int) -> Tensor:
        """Returns the indices (count,) of the examples of samples start, ..., start + count - 1, as int64.

        Raises ValueError unless start >= 0 and count >= 1.
        """
        if start < 0 or count < 1:
            raise ValueError(f"stream: start must be at least 0 and count at least 1, got {start}, {count}")
        parts = []
        for epoch in range(start // self.length, (start + count - 1) // self.length + 1):
            first = epoch * self.length
            numbers = np.arange(max(start, first) - first, min(start + count, first + self.length) - first)
            parts.append(_permuted(numbers.astype(np.uint64), self.length, _keys(self.seed, epoch)))
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))


@lru_cache(maxsize=4)
def _keys(seed: int, epoch: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(example_seed(seed, epoch, turn)) for turn in range(ROUNDS))


def _permuted(numbers: npt.NDArray[np.uint64], length: int, keys: tuple[np.uint64, ...]) -> npt.NDArray[np.uint64]:
    """Permutes numbers (N,) in 0, ..., length - 1, which are overwritten."""
    a = math.isqrt(length - 1) + 1
    b = -(-length // a)
    outside = np.ones(len(numbers), dtype=bool)
    while outside.any():
        right, left = np.divmod(numbers[outside], np.uint64(a))
        for i, key in enumerate(keys):
            if i % 2:
                right = (right + hashed(left ^ key)) % np.uint64(b)
            else:
                left = (left + hashed(right ^ key)) % np.uint64(a)
        numbers[outside] = right * np.uint64(a) + left
        outside = numbers >= length
    return numbers
