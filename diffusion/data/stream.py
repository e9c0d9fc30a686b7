"""The order of examples, as a function of the seed and the number of the sample alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffusion.randomness import example_seed


@dataclass(frozen=True)
class SampleStream:
    """An endless order of the `length` examples of a dataset, each of them once in every epoch.

    Sample number n is example n mod length of the permutation of epoch n // length, which depends on the seed
    and the epoch only. Any process can ask for any part at any time, and a run resumes from one number.

    Raises ValueError for an empty dataset.
    """

    length: int
    seed: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"stream.length: must be at least 1, got {self.length}")

    def indices(self, start: int, count: int) -> Tensor:
        """The examples (count,) of the samples start, ..., start + count - 1, as int64.

        Raises ValueError unless start >= 0 and count >= 1.
        """
        if start < 0 or count < 1:
            raise ValueError(f"stream: start must be at least 0 and count at least 1, got {start}, {count}")
        first, last = start // self.length, (start + count - 1) // self.length
        epochs = torch.cat([_permutation(self.length, self.seed, epoch) for epoch in range(first, last + 1)])
        return epochs[start - first * self.length :][:count].clone()


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(example_seed(seed, epoch))
    return torch.randperm(length, generator=generator, device="cpu")
