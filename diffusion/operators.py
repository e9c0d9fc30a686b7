"""What damaged an image: linear operators A of y = A x + noise. A new one writes `__call__`; adjoint and
pseudo-inverse come with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.errors import require


class Operator(ABC):
    """A linear map from examples (B, C, *) to observations (B, *)."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x: (B, C, *) -> (B, *)."""

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Aᵀ y, of the shape of `like`, (B, C, *); by automatic differentiation of A unless a subclass knows better."""
        with torch.enable_grad():
            x = torch.zeros_like(like).requires_grad_()
            return torch.autograd.grad(self(x), x, y)[0]

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """A⁺ y, the least-norm x with A x nearest to y, of the shape of `like`; by conjugate gradients on A Aᵀ.

        Exact for y in the range of A, to the tolerance of `conjugate_gradients`.
        """
        solution = conjugate_gradients(lambda u: self(self.adjoint(u, like)), y, iterations=y[0].numel())
        return self.adjoint(solution, like)


@dataclass(frozen=True)
class Mask(Operator):
    """Keeps the known values and sets the others to zero. `known` is bool and broadcasts against (B, C, *)."""

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x where known, else 0: (B, C, *)."""
        return torch.where(self.known, x, 0.0)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """The same as the operator: it is an orthogonal projection."""
        return self(y)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """The same as the operator."""
        return self(y)


@dataclass(frozen=True)
class Matrix(Operator):
    """Any matrix (m, n) on flattened examples of n values: (B, C, *) -> (B, m)."""

    matrix: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B, m)."""
        return x.flatten(1) @ self.matrix.mT.to(x)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Aᵀ y."""
        return (y @ self.matrix.to(y)).reshape(like.shape)


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], b: Tensor, *, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Solves M u = b for each row of a batch, M symmetric and positive semi-definite: (B, *) -> (B, *).

    Stops after `iterations`, or when every residual is below `tolerance` times the norm of its b. A row whose direction
    has no positive curvature, as an inexact M may have, keeps the solution that it had.
    """
    require(iterations >= 1, "iterations", "at least 1", iterations)
    u, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = _dot(residual, residual)
    limit = tolerance**2 * square
    active = square > limit
    for _ in range(iterations):
        if not bool(active.any()):
            break
        image = apply(direction)
        curvature = _dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, square / torch.where(active, curvature, 1.0), 0.0)
        u = u + step * direction
        residual = residual - step * image
        square, before = _dot(residual, residual), square
        active = active & (square > limit)
        direction = residual + torch.where(active, square / torch.where(before > 0, before, 1.0), 0.0) * direction
    return u


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
