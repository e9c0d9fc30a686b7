"""An operator on values in other units than those of its definition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.operators.operator import Linear, Operator


@dataclass(frozen=True)
class Standardized(Operator):
    """x -> (A(mean + std x) - A(mean))/std, where A(mean) is what becomes of an example that is `mean` everywhere.

    Of y = A(u) + N(0, noise²), u = mean + std x, follows (y - A(mean))/std = this of x + N(0, (noise/std)²).
    """

    operator: Operator
    mean: float
    std: float

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, *) -> (B, *)."""
        middle = self.operator(torch.full_like(x[:1], self.mean))
        return (self.operator(self.mean + self.std * x) - middle) / self.std

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """That of A at mean + std x."""
        return self.operator.vjp(self.mean + self.std * x, v)

    def linearized(self, x: Tensor) -> Linear:
        """That of A at mean + std x."""
        return self.operator.linearized(self.mean + self.std * x)


def standardized(operator: Operator, mean: float, std: float) -> Operator:
    """A in units in which u = mean + std x is x (`Standardized`): itself if it is linear."""
    return operator if isinstance(operator, Linear) else Standardized(operator, mean, std)
