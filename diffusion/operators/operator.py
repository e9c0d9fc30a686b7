"""The interface of operators, their compositions, and the solver that inverts linear ones.

A subclass of `Linear` writes A x alone: the adjoint comes by automatic differentiation and the pseudo-inverse by
conjugate gradients. A subclass of `Operator` that is not linear writes A(x), and is linearized where a method needs
that. An operator that changes the size of an image also writes `size_before`.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.transfers import to_device

Size = tuple[int, int]

# The most iterations without progress after which a pseudo-inverse gives up.
PATIENCE = 1000
# Iterations between two looks at their convergence where the host has to wait for a look, and iterations cost little.
LOOK = 4


class Operator(ABC):
    """A map from examples (B, C, *) to observations (B, *), example by example.

    `essential` are the fields of which a text must state one for damage that has happened already: how strong it was.
    """

    essential: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Returns A(x): (B, C, *) -> (B, *)."""

    def kept(self, key: Hashable, make: Callable[[], Tensor], device: torch.device) -> Tensor:
        """Returns a tensor that the operator works with, on a device: the one that `make` made there or on the CPU when
        `key` was first asked for.

        It is kept as long as the operator, because making or moving it at every application would take longer than the
        application itself.
        """
        found: dict[Hashable, Tensor] = self.__dict__.setdefault("_kept", {})
        if (key, device) not in found:
            found[key, device] = to_device(make(), device)
        return found[key, device]

    def size_before(self, size: Size) -> Size:
        """Returns the size (H, W) of the image that the operator turned into one of the given size; by default the
        operator keeps the size.

        Raises InputError where the size after the operator does not determine the size before it.
        """
        return size

    def resolved(self, observed: Size) -> Operator:
        """Returns the operator for observations of the size (H, W); itself unless its fields state the size before."""
        return self

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Returns (∂A/∂x)ᵀ v at x: x (B, C, *), v of the shape of A(x) -> (B, C, *)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self(x), x, v)[0]

    def linearized(self, x: Tensor) -> Linear:
        """Returns ∂A/∂x at x (B, C, *), a linear operator that differs from example to example."""
        return Tangent(self, x)


class Linear(Operator):
    """A linear operator, a matrix A that is given by its products A x."""

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns Aᵀ y, of the shape of `like`, (B, C, *); by automatic differentiation of A unless overridden."""
        return self.vjp(torch.zeros_like(like), y)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns A⁺ y, the x of least norm among those with A x nearest to y, of the shape of `like`, (B, C, *).

        The default runs conjugate gradients on A Aᵀ; it is exact, to the tolerance of `conjugate_gradients`, for y in
        the range of A.
        """
        # A blur is so ill-conditioned that the residual rises for many iterations before it falls. For y outside of
        # the range of A it never falls to the tolerance.
        patience = min(y[0].numel(), PATIENCE)
        u, _ = conjugate_gradients(lambda u: self(self.adjoint(u, like)), y, patience=patience)
        return self.adjoint(u, like)

    def linearized(self, x: Tensor) -> Linear:
        """Returns the operator itself."""
        return self

    def resolved(self, observed: Size) -> Linear:
        """Returns the operator for observations of the size (H, W), which is linear too."""
        return self


@dataclass(frozen=True)
class Tangent(Linear):
    """The derivative of an operator at the examples x (B, C, *)."""

    operator: Operator
    x: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the product of the derivative with x: (B, C, *) -> (B, *)."""
        return torch.func.jvp(self.operator, (self.x,), (x,))[1]  # type: ignore[no-any-return]

    def size_before(self, size: Size) -> Size:
        """Returns the size before the operator."""
        return self.operator.size_before(size)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns the product of the transposed derivative with y."""
        return self.operator.vjp(self.x, y)


@dataclass(frozen=True)
class Composition(Linear):
    """The product of two linear operators, `last` after `first`, as of a blur and then a downsampling."""

    last: Linear
    first: Linear

    def __call__(self, x: Tensor) -> Tensor:
        """Returns last(first(x))."""
        return self.last(self.first(x))

    def size_before(self, size: Size) -> Size:
        """Returns the size before `first`."""
        return self.first.size_before(self.last.size_before(size))

    def resolved(self, observed: Size) -> Composition:
        """Returns the product of both operators, resolved."""
        last = self.last.resolved(observed)
        return Composition(last, self.first.resolved(last.size_before(observed)))

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns firstᵀ lastᵀ y."""
        return self.first.adjoint(self.last.adjoint(y, self.first(torch.zeros_like(like))), like)


@dataclass(frozen=True)
class Chain(Operator):
    """The composition of two operators, `last` after `first`, at least one of which is not linear."""

    last: Operator
    first: Operator

    def __call__(self, x: Tensor) -> Tensor:
        """Returns last(first(x))."""
        return self.last(self.first(x))

    def size_before(self, size: Size) -> Size:
        """Returns the size before `first`."""
        return self.first.size_before(self.last.size_before(size))

    def resolved(self, observed: Size) -> Chain:
        """Returns the composition of both operators, resolved."""
        last = self.last.resolved(observed)
        return Chain(last, self.first.resolved(last.size_before(observed)))

    def linearized(self, x: Tensor) -> Linear:
        """Returns the product of both derivatives, by the chain rule."""
        return Composition(self.last.linearized(self.first(x)), self.first.linearized(x))


def compose(last: Operator, first: Operator) -> Operator:
    """Returns `last` after `first`, a linear operator if both are linear."""
    if isinstance(last, Linear) and isinstance(first, Linear):
        return Composition(last, first)
    return Chain(last, first)


class Solved(NamedTuple):
    """The solution u of M u = b, (B, *), and the `relative_residual` ‖b - M u‖/‖b‖ of each row, (B, 1, ...).

    It is 0 for a row of zeros.
    """

    u: Tensor
    relative_residual: Tensor


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    tolerance: float = 1e-10,
    iterations: int | None = None,
    patience: int = 20,
    asymmetry: float | None = None,
    look: int | None = None,
) -> Solved:
    """Solves M u = b for each row b of a batch (B, *), where `apply` multiplies by M, symmetric and positive
    semi-definite.

    A row is done when the norm of its residual is below `tolerance` times the norm of its b. It gives up, and returns
    the u of its least residual, when a search direction has no positive curvature or when the least residual has not
    been improved for `patience` iterations. In exact arithmetic and with an M as above a row would still converge after
    either; rounding and an inexact M can make both permanent. With a symmetric M each residual is orthogonal to the one
    before it: where `asymmetry` is given, a step after which the new residual has a component along the previous one of
    more than `asymmetry` times the norm of the latter is not taken, and the row is done. `iterations` limits the number
    of iterations.

    Whether any row goes on is looked at before each iteration on a CPU. Elsewhere the host waits for the answer, so it
    is looked at every `look` iterations, by default `LOOK`. An iteration changes nothing about a row that is done.
    """
    require(iterations is None or iterations >= 1, "iterations", "at least 1", iterations)
    u, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = dot(residual, residual)
    initial, limit = square, tolerance**2 * square
    best, least, stalled = u, square, torch.zeros_like(square)
    active = square > limit
    look = 1 if b.device.type == "cpu" else look or LOOK
    for done in itertools.count() if iterations is None else range(iterations):
        # With several iterations between two looks, the first of them go unseen.
        if done % look == 0 and (done or look == 1) and not bool(active.any()):
            break
        product = apply(direction)
        curvature = dot(direction, product)
        active = active & (curvature > 0)
        step = torch.where(active, square / torch.where(active, curvature, 1.0), 0.0)
        next_residual = residual - step * product
        if asymmetry is not None:
            active = active & (dot(next_residual, residual).abs() <= asymmetry * square)
        u = torch.where(active, u + step * direction, u)
        residual = torch.where(active, next_residual, residual)
        square, before = dot(residual, residual), square
        better = square < least
        best, least = torch.where(better, u, best), torch.where(better, square, least)
        stalled = torch.where(better, 0.0, stalled + 1)
        active = active & (square > limit) & (stalled < patience)
        direction = residual + torch.where(active, square / torch.where(before > 0, before, 1.0), 0.0) * direction
    return Solved(best, torch.where(initial > 0, least / torch.where(initial > 0, initial, 1.0), 0.0).sqrt())


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Returns the inner product of the rows of two batches: (B, *), (B, *) -> (B, 1, ...)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
