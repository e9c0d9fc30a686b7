"""Statistics of n restorations of one example: their central intervals and, where the truth is known, their distance to
it, their energy score, their coverage of it, and the seams between them and the known pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.errors import InputError, require


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """-10 log10 of the mean squared error of images (B, C, H, W) in [0, 1]: (B,) in dB, infinite for equal images."""
    return -10 * (x - truth).square().flatten(1).mean(1).log10()


def interval(samples: Tensor, *, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
    """The bounds of the central interval of n samples (n, *) with a confidence, pixel by pixel: (*) each.

    Between the j-th smallest and the j-th largest sample lies a probability of (n + 1 - 2j) / (n + 1) on average; a
    bound between two ranks is interpolated. With fewer samples than `fewest(confidence)` the bounds are the smallest
    and the largest, between which the probability is less than the confidence (`held_probability`).
    """
    require(0 < confidence < 1, "confidence", "between 0 and 1", confidence)
    n, ordered = len(samples), samples.sort(0).values
    rank = min(max((1 - confidence) / 2 * (n + 1), 1.0), (n + 1) / 2) - 1
    outer, fraction = math.floor(rank + 1e-9), max(0.0, rank - math.floor(rank + 1e-9))
    inner = min(outer + 1, n - 1)
    low, high = (torch.lerp(values[outer], values[inner], fraction) for values in (ordered, ordered.flip(0)))
    return low, high


def held_probability(n: int, *, confidence: float = 0.9) -> float:
    """The probability between the bounds of `interval` of n samples, on average.

    It is the confidence, or with too few samples (n - 1)/(n + 1), the probability between the smallest and the largest.
    """
    return min(confidence, (n - 1) / (n + 1))


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """E‖x_i - x‖ - ½ E‖x_i - x_j‖ of n samples x_i (n, *), n >= 2, and the truth x (*), i other than j: ().

    Its expectation is least where samples and truth have one distribution, and no other reaches it, so it counts the
    error of their mean and of their spread alike (Gneiting and Raftery 2007, J. Am. Stat. Assoc. 102, eq. 22). In one
    dimension it is the CRPS.
    """
    n = len(samples)
    require(n >= 2, "samples", "at least 2", n)
    flat = samples.double().flatten(1)
    missed: Tensor = torch.linalg.vector_norm(flat - truth.double().flatten(), dim=1)
    return missed.mean() - torch.pdist(flat).mean() / 2


def coverage(samples: Tensor, truth: Tensor, *, confidence: float = 0.9) -> Tensor:
    """The probability that the central interval of n samples with a confidence covers the truth, pixel by pixel.

    samples: (n, *); truth: (*). Returns (*) float64 in [0, 1].

    The truth and n exact samples are exchangeable: the rank of the truth among them is 0 to n with equal probabilities,
    and the interval between the j-th smallest and the j-th largest sample covers it with probability
    (n + 1 - 2j) / (n + 1). Coverage is interpolated between the two intervals on either side of the confidence, and
    where samples are equal to the truth it is averaged over the possible ranks. So its mean over exact samples is the
    confidence itself, for any n and with rounded values.

    Raises InputError for fewer samples than have an interval of this confidence: 2/(1 - confidence) - 1, which is 19
    for 90 %.
    """
    require(0 < confidence < 1, "confidence", "between 0 and 1", confidence)
    n = len(samples)
    # Half of the ranks that the interval leaves out, of n + 1.
    outside = (1 - confidence) / 2 * (n + 1)
    if outside < 1 - 1e-9:
        raise InputError(
            f"samples: must be at least {fewest(confidence)} for an interval of {100 * confidence:g} %, got {n}"
        )
    wider = math.floor(outside + 1e-9)
    fraction = outside - wider
    below, equal = (samples < truth).sum(0), (samples == truth).sum(0)
    outer, inner = (_rank_within(below, equal, first, n - first) for first in (wider, wider + 1))
    return torch.lerp(outer, inner, fraction)


def fewest(confidence: float) -> int:
    """The least number of samples that have an interval of a confidence."""
    return math.ceil(2 / (1 - confidence) - 1 - 1e-9)


def _rank_within(below: Tensor, equal: Tensor, first: int, last: int) -> Tensor:
    """The fraction of the ranks below, ..., below + equal that lie in first, ..., last: float64."""
    ranks = (below + equal).clamp_max(last) - below.clamp_min(first) + 1
    return ranks.clamp_min(0).double() / (equal + 1)


def edge(x: Tensor, region: Tensor) -> Tensor:
    """The mean absolute difference of neighboring pixels across the edge of a region: (B,), nan without an edge.

    One of the two pixels is in the region and one is not. x: (B, C, H, W); region: bool, broadcasts against x.
    """
    inside = region.broadcast_to(x.shape)
    total, count = x.new_zeros(len(x)), x.new_zeros(len(x))
    for dim in (-2, -1):
        across = inside.diff(dim=dim)
        total = total + torch.where(across, x.diff(dim=dim).abs(), 0.0).flatten(1).sum(1)
        count = count + across.flatten(1).sum(1)
    return total / count


def seam(x: Tensor, known: Tensor, truth: Tensor) -> Tensor:
    """The `edge` of the known region in restorations x (B, C, H, W), relative to that in the truth (C, H, W): (B,).

    It is 1 without a seam.
    """
    return edge(x, known) / edge(truth[None], known)
