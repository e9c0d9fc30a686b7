"""An average of the weights over the last share of training, whatever its length."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

from diffusion.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


class PowerEMA(Generic[Network]):
    """The power-function average of Karras et al. (2024, arXiv 2312.02696, section 3.1): weight ∝ step^γ.

    `width` is its standard deviation as a share of the training so far, so early samples are not held back by the
    random start and late ones average over more. `network` holds the averaged weights; buffers are copied.
    """

    def __init__(self, network: Network, width: float) -> None:
        self.network: Network = copy.deepcopy(network).eval().requires_grad_(False)
        self.exponent = exponent(width)

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Moves the average towards the weights after optimizer step `step`, counted from 1."""
        weight = 1 - (1 - 1 / step) ** (self.exponent + 1)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


def exponent(width: float) -> float:
    """γ > 0 such that the density ∝ s^γ on [0, 1] has standard deviation `width`, by bisection; width < 0.28.

    Its variance is (γ + 1) / ((γ + 2)² (γ + 3)). Raises InputError for a width that no γ >= 0 gives.
    """
    low, high = 0.0, 1e6
    if not std(high) < width <= std(low):
        raise InputError(f"training.ema: must be between {std(high):.0e} and {std(low):.3f}, got {width}")
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if std(middle) > width else (low, middle)
    return (low + high) / 2


def std(gamma: float) -> float:
    """The standard deviation of the density ∝ s^γ on [0, 1]."""
    return math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3))
