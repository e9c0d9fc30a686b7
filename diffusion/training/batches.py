"""The examples of each step, as a function of (seed, step) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diffusion.data import Dataset, SampleStream, augment
from diffusion.data.hashing import hashed, normal
from diffusion.noise_levels import low_discrepancy
from diffusion.randomness import ExampleNoise, example_seed

ORDER, AUGMENT, NOISE, NOISE_LEVEL, LABEL = range(5)
# Values of an example up to which the noise of a batch is hashed at once: to make a generator takes as long as to hash
# hundreds of them, and for points it took half of the time of a step.
FEW = 64


@dataclass(frozen=True)
class Batch:
    """Encoded examples x (B, C, *), uniform numbers u (B,) for the noise levels, noise (B, C, *) and labels (B,) or
    None.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    label: Tensor | None


@dataclass(frozen=True)
class BatchMaker:
    """Makes the part of a global batch that one process trains on, on its device.

    Everything random about an example - its place in the order, crop, flip, noise and whether its label is hidden -
    comes from the seed and the example's global number, so it does not depend on the number of processes, nor on where
    a run was interrupted. It is drawn on the CPU, so that it does not depend on the device either; stored values, a
    quarter of the bytes of encoded ones, are moved before they are augmented and encoded.
    """

    dataset: Dataset
    batch: int
    seed: int
    flip: bool
    label_dropout: float
    low_discrepancy: bool
    rank: int = 0
    processes: int = 1
    device: torch.device = torch.device("cpu")

    def __call__(self, step: int) -> Batch:
        """The batch of this process for step 0, 1, ..."""
        share = self.batch // self.processes
        first = step * self.batch + self.rank * share
        numbers = range(first, first + share)
        values, label = self.dataset.batch(self._indices(first, share))
        values = self._moved(values)
        if self.dataset.spec.is_image:
            values = augment(values, self._seeds(AUGMENT, numbers), flip=self.flip, margin=self.dataset.margin)
        x = self.dataset.spec.encode(values)
        if label is not None:
            hidden = torch.tensor([seed / 2**63 < self.label_dropout for seed in self._seeds(LABEL, numbers)])
            label = self._moved(label.masked_fill(hidden, -1))
        return Batch(x, self._levels(step, numbers), self._moved(self._noise(numbers, x.shape)), label)

    def whole(self, step: int) -> Batch:
        """The batch of all processes for a step."""
        return replace(self, rank=0, processes=1)(step)

    def names(self, step: int) -> list[str]:
        """The names of the examples in the batch of all processes for a step."""
        return [self.dataset.names[int(index)] for index in self._indices(step * self.batch, self.batch)]

    def _indices(self, first: int, count: int) -> Tensor:
        return SampleStream(len(self.dataset), example_seed(self.seed, ORDER)).indices(first, count)

    def _moved(self, values: Tensor) -> Tensor:
        # From pinned memory a copy to the GPU goes on while the CPU draws what follows.
        pinned = values.pin_memory() if self.device.type == "cuda" else values
        return pinned.to(self.device, non_blocking=True)

    def _noise(self, numbers: range, shape: torch.Size) -> Tensor:
        values = math.prod(shape[1:])
        if values > FEW:
            return ExampleNoise(self._seeds(NOISE, numbers))(torch.empty(shape))
        keys = hashed(
            np.arange(numbers.start, numbers.stop, dtype=np.uint64) + np.uint64(example_seed(self.seed, NOISE))
        )
        return normal(keys[:, None], np.arange(values)).reshape(shape)

    def _levels(self, step: int, numbers: range) -> Tensor:
        if not self.low_discrepancy:
            return torch.tensor([seed / 2**63 for seed in self._seeds(NOISE_LEVEL, numbers)], dtype=torch.float64)
        offset = torch.tensor(example_seed(self.seed, NOISE_LEVEL, step) / 2**63, dtype=torch.float64)
        return low_discrepancy(offset, torch.arange(numbers.start, numbers.stop) - step * self.batch, self.batch)

    def _seeds(self, stream: int, numbers: range) -> list[int]:
        return [example_seed(self.seed, stream, number) for number in numbers]
