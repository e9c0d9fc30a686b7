"""Examples that are made when they are asked for, each a function of its number alone: any number without files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from diffusion.data.hashing import hashed

Made: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class Generated(ABC):
    """What reads like an array (N, *) of examples."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(N, *)."""

    @abstractmethod
    def make(self, numbers: npt.NDArray[np.int64]) -> Made:
        """The examples with these numbers, all of them valid: (B,) -> (B, *)."""

    def contents(self) -> npt.NDArray[np.uint64]:
        """What stands for a hash of each example's values, (N,): all examples differ."""
        return hashed(np.arange(len(self), dtype=np.uint64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: npt.NDArray[np.int64]) -> Made:
        numbers = np.asarray(numbers)
        if len(numbers) and not -1 < numbers.min() <= numbers.max() < len(self):
            raise IndexError(f"examples {numbers.min()} to {numbers.max()} were asked for of {len(self)}")
        return self.make(numbers)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self.make(np.arange(len(self))), dtype=dtype)
