"""Operators that need no neighborhood: nothing at all, a mask, a crop, a sum of channels, any matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.operator import Linear


@dataclass(frozen=True)
class Identity(Linear):
    """All of x: what is left to do is to remove the noise."""

    def __call__(self, x: Tensor) -> Tensor:
        """x."""
        return x

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """y."""
        return y

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """y."""
        return y


@dataclass(frozen=True)
class Mask(Linear):
    """Keeps the known values and sets the others to zero. `known` is bool and broadcasts against (B, C, *)."""

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x where known, else 0: (B, C, *).

        Raises InputError where the mask does not fit the example.
        """
        fits = all(mine in (1, its) for mine, its in zip(self.known.shape[::-1], x.shape[::-1], strict=False))
        fits = fits and self.known.ndim <= x.ndim
        require(fits, "mask", f"of a shape that broadcasts to {tuple(x.shape[1:])}", tuple(self.known.shape))
        return torch.where(self.known.to(x.device), x, 0.0)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """The same as the operator: it is an orthogonal projection."""
        return self(y)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """The same as the operator."""
        return self(y)


@dataclass(frozen=True)
class Crop(Linear):
    """The middle of an image: (B, C, H, W) -> (B, C, height, width). Of its margins nothing is seen."""

    height: int
    width: int

    def __post_init__(self) -> None:
        require(self.height >= 1 and self.width >= 1, "crop", "positive", (self.height, self.width))

    def margins(self, size: tuple[int, ...]) -> tuple[int, int, int, int]:
        """What is cut off an image of a size (H, W): left, right, top and bottom.

        Raises InputError for an image smaller than the crop.
        """
        spare = size[0] - self.height, size[1] - self.width
        require(min(spare) >= 0, "crop", f"given an image of at least {self.height}x{self.width}", size)
        top, left = (margin // 2 for margin in spare)
        return left, spare[1] - left, top, spare[0] - top

    def __call__(self, x: Tensor) -> Tensor:
        """The middle."""
        left, _, top, _ = self.margins((x.shape[-2], x.shape[-1]))
        return x[..., top : top + self.height, left : left + self.width]

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """y among zeros."""
        return F.pad(y, self.margins((like.shape[-2], like.shape[-1])))

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """The same as the adjoint: the crop of that is y."""
        return self.adjoint(y, like)


@dataclass(frozen=True)
class Selection(Linear):
    """The known values alone, one after another: a mask without its zeros. `known` is bool, of an example's shape."""

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, *) -> (B, M), M of them."""
        return x[:, self.known.to(x.device)]

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Each in its place, 0 elsewhere."""
        x = torch.zeros_like(like)
        x[:, self.known.to(x.device)] = y
        return x

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """The same as the adjoint."""
        return self.adjoint(y, like)


@dataclass(frozen=True)
class Grayscale(Linear):
    """The weighted sum of the channels, (B, C, *) -> (B, 1, *); by default the luma of ITU-R BT.601."""

    weights: tuple[float, ...] = (0.299, 0.587, 0.114)

    def __post_init__(self) -> None:
        require(any(self.weights), "weights", "not all 0", self.weights)

    def __call__(self, x: Tensor) -> Tensor:
        """Σ_c w_c x_c.

        Raises InputError unless x has as many channels as there are weights.
        """
        require(x.shape[1] == len(self.weights), "gray", f"given {len(self.weights)} channels", x.shape[1])
        return (x * self._column(x)).sum(1, keepdim=True)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """w_c y."""
        return y * self._column(like)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """w_c y / ‖w‖²: A Aᵀ is the number ‖w‖²."""
        return self.adjoint(y, like) / sum(w * w for w in self.weights)

    def _column(self, x: Tensor) -> Tensor:
        return x.new_tensor(self.weights).reshape(-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class Matrix(Linear):
    """Any matrix (m, n) on flattened examples of n values: (B, C, *) -> (B, m)."""

    matrix: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B, m).

        Raises InputError where examples have another number of values than the matrix has columns.
        """
        shape = tuple(x.shape[1:])
        fits = self.matrix.ndim == 2 and self.matrix.shape[1] == x[0].numel()
        require(fits, "matrix", f"(m, {x[0].numel()}) for examples {shape}", tuple(self.matrix.shape))
        return x.flatten(1) @ self.matrix.mT.to(x)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Aᵀ y."""
        return (y @ self.matrix.to(y)).reshape(like.shape)
