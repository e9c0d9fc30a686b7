"""States an operator that is defined for values u = mean + std x as one on the standardized values x."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.operators.operator import Linear, Operator, Size


@dataclass(frozen=True)
class Standardized(Operator):
    """Maps x to (A(mean + std x) - A(mean))/std, where A(mean) is A of an example that is `mean` everywhere.

    With this operator A', y = A(u) + N(0, noise²) and u = mean + std x imply
    (y - A(mean))/std = A'(x) + N(0, (noise/std)²).
    """

    operator: Operator
    mean: float
    std: float

    def __call__(self, x: Tensor) -> Tensor:
        """Returns A'(x): (B, C, *) -> (B, *)."""
        middle = self.operator(torch.full_like(x[:1], self.mean))
        return (self.operator(self.mean + self.std * x) - middle) / self.std

    def size_before(self, size: Size) -> Size:
        """Returns the size before A."""
        return self.operator.size_before(size)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Returns (∂A/∂u)ᵀ v at u = mean + std x: the factors std and 1/std cancel."""
        return self.operator.vjp(self.mean + self.std * x, v)

    def linearized(self, x: Tensor) -> Linear:
        """Returns ∂A/∂u at u = mean + std x: the factors std and 1/std cancel."""
        return self.operator.linearized(self.mean + self.std * x)


def standardized(operator: Operator, mean: float, std: float) -> Operator:
    """Returns the operator on standardized values (`Standardized`), which is the operator itself if it is linear."""
    return operator if isinstance(operator, Linear) else Standardized(operator, mean, std)
