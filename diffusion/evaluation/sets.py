"""Sets of examples as distances take them: read batch by batch, in units from 0 to 1, by all processes together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffusion import distributed
from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import Indices
from diffusion.progress import track

# Examples that are read at once.
BATCH = 256


@dataclass(frozen=True)
class Examples:
    """The examples of several datasets, one after the other."""

    parts: tuple[Dataset, ...]

    @classmethod
    def real(cls, held_out: Dataset, training: Dataset | None, samples: int) -> Examples:
        """Twice as many examples as samples, as far as there are: held-out ones and, where these are too few, up to as
        many training examples.
        """
        missing = min(2 * samples - len(held_out), len(held_out))
        if missing <= 0 or training is None or len(training) == 0:
            return cls((held_out.evenly(2 * samples),))
        return cls((held_out, training.evenly(missing)))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def spec(self) -> DataSpec:
        """The specification of all."""
        return self.parts[0].spec

    @property
    def labels(self) -> Tensor | None:
        """The labels of all, (N,), None where some have none."""
        found = [part.labels for part in self.parts if part.labels is not None]
        return torch.from_numpy(np.concatenate(found)) if len(found) == len(self.parts) else None

    def batches(self, *, shared: bool = False, progress: bool = False) -> Iterator[Tensor]:
        """Yields the examples in units, (B, *); with `shared` the share of this process."""
        starts = np.cumsum([0, *map(len, self.parts)])
        batches = distributed.batches(len(self), BATCH, shared=shared)
        for numbers in track(batches, len(batches), "describing", "batch", show=progress):
            found = []
            for part, start in zip(self.parts, starts, strict=False):
                own = np.asarray(numbers) - start
                own = own[(own >= 0) & (own < len(part))]
                found += [units(part, own)] if len(own) else []
            yield torch.cat(found)

    def some(self, count: int) -> Tensor:
        """At most `count` examples of the first set in units, evenly spaced."""
        first = self.parts[0].evenly(count)
        return units(first, np.arange(len(first)))


def units(examples: Dataset, numbers: Indices) -> Tensor:
    """The examples of some numbers in units, (B, *) float32, without their margin."""
    return examples.center(examples.batch(numbers)[0]).float() / examples.spec.top


def stored(x: Tensor, spec: DataSpec) -> Tensor:
    """Units x (B, *) as files hold them, those of quantized data rounded to their levels."""
    return x.float() if spec.levels is None else spec.quantize(x).float() / spec.top


@dataclass(frozen=True)
class Scale:
    """Maps units to [0, 1], where distances of images take them. Quantized images lie there, and points may lie
    anywhere. Continuous images are mapped from `low` and `high`, beyond which they are clipped.
    """

    spec: DataSpec
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, examples: Examples) -> Scale:
        """The scale of examples: continuous images reach from their lowest to their highest value."""
        if examples.spec.levels is not None or not examples.spec.is_image:
            return cls(examples.spec)
        ends = torch.stack([torch.stack(batch.aminmax()) for batch in examples.batches()])
        return cls(examples.spec, float(ends[:, 0].min()), float(ends[:, 1].max()))

    @property
    def note(self) -> str:
        """What is done to values; empty where nothing is."""
        if self.spec.levels is not None or not self.spec.is_image:
            return ""
        return f"values: from {self.low:.4g} to {self.high:.4g}, those of the real images; samples beyond are clipped"

    def __call__(self, x: Tensor) -> Tensor:
        """Units x (B, *) as distances take them, those of quantized data rounded to their levels, as in files."""
        if not self.spec.is_image:
            return x
        if self.spec.levels is not None:
            return stored(x, self.spec)
        return ((x - self.low) / (self.high - self.low)).clamp(0, 1)
