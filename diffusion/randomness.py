"""Randomness as a function of (seed, number), never of what ran before.

Every example owns a generator seeded by a hash of the run's seed and the example's number. Noise is therefore the same
at any batch size, number of processes and point of resumption. It is drawn on the CPU, so that it is also the same on
every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def example_seed(seed: int, *numbers: int) -> int:
    """A 63-bit seed, stable across versions and machines, for the stream that `numbers` name within `seed`."""
    text = ",".join(map(str, (seed, *numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class ExampleNoise:
    """Standard normal noise with one generator per example: a drop-in for `torch.randn_like`.

    Called with x of shape (B, *), it returns noise of that shape, dtype and device; row i comes from the i-th seed
    alone and successive calls continue its stream. Values are drawn in float32 unless x is float64.

    Raises ValueError when x has another number of rows than there are seeds.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Noise like x (B, *)."""
        if len(x) != len(self.generators):
            raise ValueError(f"noise: {len(self.generators)} seeds were given for a batch of {len(x)} examples")
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        rows = [torch.randn(x.shape[1:], generator=g, dtype=dtype) for g in self.generators]
        return torch.stack(rows).to(x)
