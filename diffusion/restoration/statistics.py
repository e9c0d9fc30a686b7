"""What n restorations of one example are worth where the truth is known: how near they are, whether they cover it, and
whether they fit to what surrounds them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.errors import InputError, require


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """-10 log10 of the mean square error of images (B, C, H, W) in [0, 1]: (B,) in dB, infinite for equal ones."""
    return -10 * (x - truth).square().flatten(1).mean(1).log10()


def interval(samples: Tensor, *, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
    """The bounds of the central interval of that level of n samples (n, *), pixel by pixel: (*) each. Between the j-th
    smallest and the j-th largest lie (n + 1 - 2j) / (n + 1) of the probability on average; places between two ranks are
    interpolated. Of fewer samples than `fewest` these are the least and the largest, which hold less than the level.
    """
    require(0 < confidence < 1, "level", "between 0 and 1", confidence)
    n, ordered = len(samples), samples.sort(0).values
    place = min(max((1 - confidence) / 2 * (n + 1), 1.0), (n + 1) / 2) - 1
    first, share = math.floor(place + 1e-9), max(0.0, place - math.floor(place + 1e-9))
    inner = min(first + 1, n - 1)
    low, high = (torch.lerp(values[first], values[inner], share) for values in (ordered, ordered.flip(0)))
    return low, high


def held(n: int, *, confidence: float = 0.9) -> float:
    """The share of the probability that `interval` of that level of n samples holds on average: the level, or of too
    few samples (n - 1)/(n + 1), what lies between the least and the largest.
    """
    return min(confidence, (n - 1) / (n + 1))


def coverage(samples: Tensor, truth: Tensor, *, confidence: float = 0.9) -> Tensor:
    """The probability that the central interval of that level of n samples covers the truth, pixel by pixel: samples
    (n, *), truth (*) -> (*) in [0, 1].

    The truth and n exact samples are exchangeable: its rank among them is 0 to n with equal probabilities, and the
    interval between the j-th smallest and the j-th largest covers it with probability (n + 1 - 2j) / (n + 1). Between
    two such intervals about the level the coverage is interpolated, and a rank that values equal to the truth leave
    open is drawn with equal probabilities, so that the mean over exact samples is the level itself for any n and with
    rounded values.

    Raises InputError for fewer samples than have an interval of that level: 2/(1 - level) - 1, which is 19 of them for
    90 %.
    """
    require(0 < confidence < 1, "level", "between 0 and 1", confidence)
    n = len(samples)
    # Half of the ranks that the interval leaves out, of n + 1.
    outside = (1 - confidence) / 2 * (n + 1)
    if outside < 1 - 1e-9:
        raise InputError(
            f"samples: must be at least {fewest(confidence)} for an interval of {100 * confidence:g} %, got {n}"
        )
    wider = math.floor(outside + 1e-9)
    share = outside - wider
    below, equal = (samples < truth).sum(0), (samples == truth).sum(0)
    outer, inner = (_within(below, equal, first, n - first) for first in (wider, wider + 1))
    return torch.lerp(outer, inner, share)


def fewest(confidence: float) -> int:
    """How many samples have an interval of that level."""
    return math.ceil(2 / (1 - confidence) - 1 - 1e-9)


def _within(below: Tensor, equal: Tensor, first: int, last: int) -> Tensor:
    """The share of the ranks below, ..., below + equal that are in first, ..., last."""
    ranks = (below + equal).clamp_max(last) - below.clamp_min(first) + 1
    return ranks.clamp_min(0).double() / (equal + 1)


def edge(x: Tensor, region: Tensor) -> Tensor:
    """The mean absolute difference of neighboring pixels of which one is in the region and one is not, for each of the
    images x (B, C, H, W); region: bool, (H, W) or what broadcasts against x. (B,), nan where there is no edge.
    """
    inside = region.broadcast_to(x.shape)
    total, count = x.new_zeros(len(x)), x.new_zeros(len(x))
    for dim in (-2, -1):
        across = inside.diff(dim=dim)
        total = total + torch.where(across, x.diff(dim=dim).abs(), 0.0).flatten(1).sum(1)
        count = count + across.flatten(1).sum(1)
    return total / count


def seam(x: Tensor, known: Tensor, truth: Tensor) -> Tensor:
    """How much more neighbors differ across the edge of what was known in restorations x (B, C, H, W) than in the
    truth (C, H, W): 1 without a seam, (B,).
    """
    return edge(x, known) / edge(truth[None], known)
