"""Examples that are generated when they are indexed, each a function of its number alone, so that none is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.data.hashing import hashed

Made: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]


class Generated(ABC):
    """N examples that can be indexed like an array (N, *)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape (N, *) of an array of all examples."""

    @abstractmethod
    def make(self, numbers: npt.NDArray[np.int64]) -> Made:
        """Generates the examples with the given numbers, which lie in 0, ..., N - 1: (B,) -> (B, *)."""

    def contents(self) -> npt.NDArray[np.uint64]:
        """Returns numbers (N,) that serve as hashes of the examples' values: all different, as the examples are."""
        return hashed(np.arange(len(self), dtype=np.uint64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: npt.NDArray[np.int64]) -> Made:
        numbers = np.asarray(numbers)
        if len(numbers) and not -1 < numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"examples: must lie in 0..{len(self) - 1}, got {numbers.min()}..{numbers.max()}")
        return self.make(numbers)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.make(np.arange(len(self))), dtype=dtype)
