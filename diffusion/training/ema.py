"""An exponential moving average (EMA) of the weights, in its power-function form."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

from diffusion.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


class PowerEMA(Generic[Network]):
    """The power-function average: the weights after a step count ∝ step^γ (Karras et al. 2024, arXiv 2312.02696,
    section 3.1).

    `width` is the standard deviation of that profile as a share of the training so far. Its length therefore grows with
    training: early on the random start does not hold the average back, and later it goes over more steps. `network`
    holds the averaged weights; buffers are copied.
    """

    def __init__(self, network: Network, width: float) -> None:
        self.network: Network = copy.deepcopy(network).eval().requires_grad_(False)
        self.exponent = exponent(width)

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Moves the average towards the weights of `network` after optimizer step `step`, counted from 1."""
        weight = 1 - (1 - 1 / step) ** (self.exponent + 1)
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)


def exponent(width: float) -> float:
    """Returns the γ >= 0 for which the density ∝ s^γ on [0, 1] has standard deviation `width`, by bisection.

    Raises InputError for a width that no γ >= 0 gives: the widest, of γ = 0, is 12^-½ = 0.289.
    """
    low, high = 0.0, 1e6
    if not std(high) < width <= std(low):
        raise InputError(f"training.ema: must be between {std(high):.0e} and {std(low):.3f}, got {width}")
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if std(middle) > width else (low, middle)
    return (low + high) / 2


def std(gamma: float) -> float:
    """Returns the standard deviation of the density ∝ s^γ on [0, 1]: √(γ + 1) / ((γ + 2) √(γ + 3))."""
    return math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3))
