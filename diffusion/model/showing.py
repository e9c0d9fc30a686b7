"""What restorations look like while they are drawn: known values as they are, estimates of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.restoration import Problem
from diffusion.restoration.parts import Part

# The values of all restorations that are shown at once; at least one is.
SHOWN = 2**22
# What is shown where nothing has been estimated yet, in units of the data: gray.
NOTHING = 0.5


@dataclass(frozen=True)
class Showing:
    """The restorations of a problem as far as they are drawn: `values` (n, M), NaN where they are not.

    `wanted` says where an example has the M values, None for everywhere.
    """

    problem: Problem
    wanted: Tensor | None
    values: Tensor

    def __call__(self, rows: slice, parts: Sequence[Part], found: Sequence[Tensor]) -> Tensor:
        """Returns the first of some rows of all restorations, whole: (k, *), with what is `found` (n, V) of parts."""
        shape = self.problem.x_shape
        count = max(1, SHOWN // max(1, torch.Size(shape).numel()))
        values = self.values[rows][:count].clone()
        for part, estimate in zip(parts, found, strict=True):
            values[:, slice(None) if part.targets is None else part.targets] = estimate[:count].to(values)
        values = values.nan_to_num(NOTHING)
        if self.wanted is None:
            return values.reshape(-1, *shape)
        return torch.stack([self.problem.y[0].masked_scatter(self.wanted, row) for row in values])
