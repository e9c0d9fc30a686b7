"""What an operator is, and the solver that inverts it.

A `Linear` operator writes A x alone: its adjoint comes by automatic differentiation and its pseudo-inverse by conjugate
gradients. An operator that is not linear writes A(x), and is linearized where a method needs that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.errors import require

# Iterations without progress that a pseudo-inverse allows.
PATIENCE = 1000


class Operator(ABC):
    """A map from examples (B, C, *) to observations (B, *), example by example."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A(x): (B, C, *) -> (B, *)."""

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """(∂A/∂x)ᵀ v at x (B, C, *) for v like A(x): (B, C, *)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x), x, v)[0]

    def linearized(self, x: Tensor) -> Linear:
        """∂A/∂x at x, one linear operator for each example."""
        return Tangent(self, x)


class Linear(Operator):
    """A matrix that is known by what it does."""

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Aᵀ y, of the shape of `like`, (B, C, *); by automatic differentiation of A unless a subclass knows better."""
        return self.vjp(torch.zeros_like(like), y)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """A⁺ y, the least-norm x with A x nearest to y, of the shape of `like`; by conjugate gradients on A Aᵀ.

        Exact for y in the range of A, to the tolerance of `conjugate_gradients`.
        """
        # As ill-conditioned as a blur is, the residual rises for long before it falls; of a y outside of the range of A
        # it never falls to the tolerance.
        patience = min(y[0].numel(), PATIENCE)
        u, _ = conjugate_gradients(lambda u: self(self.adjoint(u, like)), y, patience=patience)
        return self.adjoint(u, like)

    def linearized(self, x: Tensor) -> Linear:
        """Itself."""
        return self


@dataclass(frozen=True)
class Tangent(Linear):
    """The derivative of an operator at the examples x (B, C, *)."""

    operator: Operator
    x: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(∂A/∂x) x, (B, *)."""
        return torch.func.jvp(self.operator, (self.x,), (x,))[1]  # type: ignore[no-any-return]

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """(∂A/∂x)ᵀ y."""
        return self.operator.vjp(self.x, y)


@dataclass(frozen=True)
class Composition(Linear):
    """`last` after `first`, as a blur and then a downsampling."""

    last: Linear
    first: Linear

    def __call__(self, x: Tensor) -> Tensor:
        """last(first(x))."""
        return self.last(self.first(x))

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """firstᵀ lastᵀ y."""
        return self.first.adjoint(self.last.adjoint(y, self.first(torch.zeros_like(like))), like)


@dataclass(frozen=True)
class Chain(Operator):
    """`last` after `first`, where one of them is not linear."""

    last: Operator
    first: Operator

    def __call__(self, x: Tensor) -> Tensor:
        """last(first(x))."""
        return self.last(self.first(x))

    def linearized(self, x: Tensor) -> Linear:
        """The chain rule."""
        return Composition(self.last.linearized(self.first(x)), self.first.linearized(x))


def compose(last: Operator, first: Operator) -> Operator:
    """`last` after `first`: linear if both are."""
    if isinstance(last, Linear) and isinstance(first, Linear):
        return Composition(last, first)
    return Chain(last, first)


class Solved(NamedTuple):
    """u of M u = b, (B, *), and the share ‖b - M u‖/‖b‖ that is left of each row, (B, 1, ...); 0 of a zero row."""

    u: Tensor
    left: Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    tolerance: float = 1e-10,
    iterations: int | None = None,
    patience: int = 20,
    asymmetry: float | None = None,
) -> Solved:
    """Solves M u = b for each row of a batch, M symmetric and positive semi-definite: b is (B, *).

    A row is done when its residual is below `tolerance` times the norm of its b. It gives up, with the u of its least
    residual, where a direction has no positive curvature or that least has not been undercut for `patience` iterations:
    in exact arithmetic and with such an M neither lasts, but rounding and an inexact M bring both about. A symmetric M
    makes each residual orthogonal to the one before: a step that leaves more than the share `asymmetry` along that one
    is not taken, and was the last. `iterations` limits them besides.
    """
    require(iterations is None or iterations >= 1, "iterations", "at least 1", iterations)
    u, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = dot(residual, residual)
    whole, limit = square, tolerance**2 * square
    best, least, waited = u, square, torch.zeros_like(square)
    active = square > limit
    done = 0
    while bool(active.any()) and done < (math.inf if iterations is None else iterations):
        image = apply(direction)
        curvature = dot(direction, image)
        active = active & (curvature > 0)
        step = torch.where(active, square / torch.where(active, curvature, 1.0), 0.0)
        following = residual - step * image
        if asymmetry is not None:
            active = active & (dot(following, residual).abs() <= asymmetry * square)
        u = torch.where(active, u + step * direction, u)
        residual = torch.where(active, following, residual)
        square, before = dot(residual, residual), square
        better = square < least
        best, least = torch.where(better, u, best), torch.where(better, square, least)
        waited = torch.where(better, 0.0, waited + 1)
        active = active & (square > limit) & (waited < patience)
        direction = residual + torch.where(active, square / torch.where(before > 0, before, 1.0), 0.0) * direction
        done += 1
    return Solved(best, torch.where(whole > 0, least / torch.where(whole > 0, whole, 1.0), 0.0).sqrt())


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The product of each row of two batches (B, *): (B, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
