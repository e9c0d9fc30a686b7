"""The examples of each step, as a function of (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data import Dataset, SampleStream, augment
from diffusion.objectives import low_discrepancy
from diffusion.randomness import ExampleNoise, example_seed

ORDER, AUGMENT, NOISE, LEVEL, LABEL = range(5)


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
    """Makes the part of a global batch that one process trains on.

    Everything random about an example - its place in the order, crop, flip, noise and whether its label is hidden -
    comes from the seed and the example's global number, so it does not depend on the number of processes, nor on where
    a run was interrupted.
    """

    dataset: Dataset
    batch: int
    seed: int
    flip: bool
    label_dropout: float
    low_discrepancy: bool
    rank: int = 0
    processes: int = 1

    def __call__(self, step: int) -> Batch:
        """The batch of this process for step 0, 1, ..."""
        share = self.batch // self.processes
        first = step * self.batch + self.rank * share
        numbers = range(first, first + share)
        stream = SampleStream(len(self.dataset), example_seed(self.seed, ORDER))
        values, label = self.dataset.batch(stream.indices(first, share))
        if self.dataset.spec.is_image:
            values = augment(values, self._seeds(AUGMENT, numbers), flip=self.flip, margin=self.dataset.margin)
        x = self.dataset.spec.encode(values)
        if label is not None:
            hidden = torch.tensor([seed / 2**63 < self.label_dropout for seed in self._seeds(LABEL, numbers)])
            label = label.masked_fill(hidden, -1)
        return Batch(x, self._levels(step, numbers), ExampleNoise(self._seeds(NOISE, numbers))(x), label)

    def _levels(self, step: int, numbers: range) -> Tensor:
        if not self.low_discrepancy:
            return torch.tensor([seed / 2**63 for seed in self._seeds(LEVEL, numbers)], dtype=torch.float64)
        offset = torch.tensor(example_seed(self.seed, LEVEL, step) / 2**63, dtype=torch.float64)
        return low_discrepancy(offset, torch.arange(numbers.start, numbers.stop) - step * self.batch, self.batch)

    def _seeds(self, stream: int, numbers: range) -> list[int]:
        return [example_seed(self.seed, stream, number) for number in numbers]
