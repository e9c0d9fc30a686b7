"""What was seen of one example: y = A(x) + N(0, noise²)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.errors import InputError, require
from diffusion.operators import Linear, Mask, Operator, Selection, conjugate_gradients, standardized

# Up to this many observations the default weighs particles: the weights of more of them would fall on a single one.
FEW = 16
# Without noise y may miss the range of A by this share of its own size: what the tolerance of a method leaves too.
SHARE = 1e-3


@dataclass(frozen=True)
class Observation:
    """y = A(x) + N(0, noise²) of one example: y (1, *), as the operator gives it for a batch of one.

    `given` is A as it was given where `operator` is A in other units or for another size: the one that errors name.
    """

    operator: Operator
    y: Tensor
    noise: float = 0.0
    given: Operator | None = None

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", "0 or more", self.noise)
        require(len(self.y) == 1, "y", "that of one example, (1, *)", tuple(self.y.shape))

    def linear(self, method: str) -> Linear:
        """The operator, for a method of that name that needs it to be linear. Raises InputError otherwise."""
        if not isinstance(self.operator, Linear):
            raise self.refused("linear", method)
        return self.operator

    def mask(self, method: str) -> Mask:
        """The operator, for a method of that name that needs a mask. Raises InputError otherwise."""
        if not isinstance(self.operator, Mask):
            raise self.refused("a mask", method)
        return self.operator

    def refused(self, rule: str, method: str) -> InputError:
        """That the operator is not what a method needs."""
        given = self.given or self.operator
        return InputError(f"operator: must be {rule} for {method}, got {given}; take mmps or pigdm")

    @property
    def compact(self) -> Observation:
        """The same without the zeros of a mask, which have neither noise nor density."""
        if not isinstance(self.operator, Mask):
            return self
        known = self.operator.known.to(self.y.device).broadcast_to(self.y.shape)[0]
        return Observation(Selection(known), self.y[:, known], self.noise)

    @property
    def few(self) -> bool:
        """Whether there are observations, and up to `FEW` of them."""
        return 0 < self.compact.y.numel() <= FEW

    def standardized(self, mean: float, std: float, like: Tensor) -> Observation:
        """The same in units in which mean + std x is x, of an example of the shape of `like` (1, C, *)."""
        middle = self.operator(torch.full_like(like, mean))
        operator = standardized(self.operator, mean, std)
        y, given = (self.y.to(middle) - middle) / std, self.given or self.operator
        return Observation(operator, y, self.noise / std, given)

    def residual(self, x: Tensor) -> Tensor:
        """The root mean square of y - A(x) for examples x (B, C, *): (); 0 without observations."""
        compact = self.compact
        return rms(compact.y.to(x) - compact.operator(x)) if compact.y.numel() else x.new_zeros(())

    def check(self, like: Tensor) -> None:
        """Raises InputError if without noise no example like that, (1, C, *), gives y, as far as float64 can tell.

        Least squares by conjugate gradients on AᵀA, to a finer tolerance as long as they miss y. Of an operator that is
        not linear nothing is known.
        """
        operator = self.operator
        if self.noise or not isinstance(operator, Linear):
            return
        y, zero = self.y.double(), torch.zeros_like(like, dtype=torch.float64)
        right = operator.adjoint(y, zero)
        for tolerance in (1e-3, 1e-6, 1e-9):
            x, _ = conjugate_gradients(
                lambda u: operator.adjoint(operator(u), zero), right, tolerance=tolerance, patience=200
            )
            missed = float(rms(y - operator(x)))
            if missed <= SHARE * float(rms(y)):
                return
        raise InputError(
            "y: without noise it must be what the operator gives for some example, got one that misses it by "
            f"{missed:.2g} (root mean square); say with noise how far it is off"
        )


def rms(x: Tensor) -> Tensor:
    """√ mean x²: ()."""
    return x.square().mean().sqrt()
