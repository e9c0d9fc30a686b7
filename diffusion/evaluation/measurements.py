"""What one process learns of its examples; parts of several processes are joined example by example, so that nothing is
counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diffusion import distributed


@dataclass(frozen=True)
class Part:
    """Of N examples: -log p by terms in nats (N, T), the last of them the total; the variances of the terms by source
    (N, S, T); the KL by noise level (N, BINS) in nats; works (N, K); and differences between two tolerances (M,). What
    a method does not give has no columns, or no rows.
    """

    terms: Tensor
    variances: Tensor
    by_level: Tensor
    works: Tensor
    differences: Tensor


def join(parts: Sequence[Part]) -> Part:
    """Parts of several batches as one."""
    return Part(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Part)))


def gather(part: Part) -> Part:
    """The parts of all processes as one."""
    return Part(*(distributed.gather(getattr(part, field.name)) for field in fields(Part)))


def part(
    terms: Tensor,
    variances: Tensor,
    *,
    by_level: Tensor | None = None,
    works: Tensor | None = None,
    differences: Tensor | None = None,
) -> Part:
    """A part on the CPU in float64, with what is not given left empty."""
    blank = torch.zeros(len(terms), 0)
    given = (
        terms,
        variances,
        blank if by_level is None else by_level,
        blank if works is None else works,
        torch.zeros(0) if differences is None else differences,
    )
    return Part(*(value.detach().double().cpu() for value in given))
