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
from diffusion.randomness import ExampleNoise, Stream, example_seed

# Examples of at most this many values have the noise of their batch hashed at once: making a generator takes as long as
# hashing hundreds of values, and for points it took half of the time of a step.
HASHED_VALUES = 64


@dataclass(frozen=True)
class Batch:
    """Encoded examples x (B, C, *), uniform numbers u (B,) for the noise levels, noise (B, C, *), and labels (B,) or
    None.
    """

    x: Tensor
    u: Tensor
    noise: Tensor
    label: Tensor | None


@dataclass(frozen=True)
class BatchMaker:
    """Makes the part of a global batch that one process trains on, on its device.

    Everything random about an example (its place in the order, crop, flip, noise and whether its label is hidden) comes
    from the seed and the example's global number. It does not depend on the number of processes, nor on where a run was
    interrupted, nor on the device, because it is drawn on the CPU. Stored values, which have a quarter of the bytes of
    encoded ones, are moved to the device before they are augmented and encoded.
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
        """Returns this process's part of the batch of `step`, counted from 0."""
        share = self.batch // self.processes
        first = step * self.batch + self.rank * share
        numbers = range(first, first + share)
        values, label = self.dataset.batch(self._indices(first, share))
        values = self._to_device(values)
        if self.dataset.spec.is_image:
            values = augment(values, self._seeds(Stream.AUGMENT, numbers), flip=self.flip, margin=self.dataset.margin)
        x = self.dataset.spec.encode(values)
        if label is not None:
            hidden = torch.tensor([seed / 2**63 < self.label_dropout for seed in self._seeds(Stream.LABEL, numbers)])
            label = self._to_device(label.masked_fill(hidden, -1))
        return Batch(x, self._uniform_numbers(step, numbers), self._to_device(self._noise(numbers, x.shape)), label)

    def global_batch(self, step: int) -> Batch:
        """Returns the batch of `step` for all processes together."""
        return replace(self, rank=0, processes=1)(step)

    def names(self, step: int) -> list[str]:
        """Returns the names of the examples in the global batch of `step`."""
        return [self.dataset.names[int(index)] for index in self._indices(step * self.batch, self.batch)]

    def _indices(self, first: int, count: int) -> Tensor:
        return SampleStream(len(self.dataset), example_seed(self.seed, Stream.ORDER)).indices(first, count)

    def _to_device(self, values: Tensor) -> Tensor:
        # A copy from pinned memory to the GPU goes on while the CPU draws the rest of the batch.
        pinned = values.pin_memory() if self.device.type == "cuda" else values
        return pinned.to(self.device, non_blocking=True)

    def _noise(self, numbers: range, shape: torch.Size) -> Tensor:
        values = math.prod(shape[1:])
        if values > HASHED_VALUES:
            return ExampleNoise(self._seeds(Stream.NOISE, numbers))(torch.empty(shape))
        keys = hashed(
            np.arange(numbers.start, numbers.stop, dtype=np.uint64) + np.uint64(example_seed(self.seed, Stream.NOISE))
        )
        return normal(keys[:, None], np.arange(values)).reshape(shape)

    def _uniform_numbers(self, step: int, numbers: range) -> Tensor:
        if not self.low_discrepancy:
            return torch.tensor(
                [seed / 2**63 for seed in self._seeds(Stream.NOISE_LEVEL, numbers)], dtype=torch.float64
            )
        offset = torch.tensor(example_seed(self.seed, Stream.NOISE_LEVEL, step) / 2**63, dtype=torch.float64)
        return low_discrepancy(offset, torch.arange(numbers.start, numbers.stop) - step * self.batch, self.batch)

    def _seeds(self, stream: int, numbers: range) -> list[int]:
        return [example_seed(self.seed, stream, number) for number in numbers]
