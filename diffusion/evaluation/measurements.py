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
class Measurements:
    """Of N examples: -log p by terms in nats (N, T), the last of them the total; the variances of the terms by source
    (N, S, T); the KL by noise level (N, BINS) in nats; the log-weights of paths (N, K); and differences between two
    tolerances (M,). What a method does not give has no columns, or no rows.
    """

    terms: Tensor
    variances: Tensor
    by_log_snr: Tensor
    log_weights: Tensor
    differences: Tensor


def join(parts: Sequence[Measurements]) -> Measurements:
    """Parts of several batches as one."""
    return Measurements(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Measurements)))


def gather(part: Measurements) -> Measurements:
    """The parts of all processes as one."""
    return Measurements(*(distributed.gather(getattr(part, field.name)) for field in fields(Measurements)))


def part(
    terms: Tensor,
    variances: Tensor,
    *,
    by_log_snr: Tensor | None = None,
    log_weights: Tensor | None = None,
    differences: Tensor | None = None,
) -> Measurements:
    """A part on the CPU in float64, with what is not given left empty."""
    blank = torch.zeros(len(terms), 0)
    given = (
        terms,
        variances,
        blank if by_log_snr is None else by_log_snr,
        blank if log_weights is None else log_weights,
        torch.zeros(0) if differences is None else differences,
    )
    return Measurements(*(value.detach().double().cpu() for value in given))
