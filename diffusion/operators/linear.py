"""Linear operators that mix no pixels (identity, mask, crop, selection, weighted sum of channels), and any matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import InputError, require
from diffusion.operators.operator import Linear, Operator, Size


@dataclass(frozen=True)
class Identity(Linear):
    """The identity: the observation is x and its noise, and restoring it is denoising."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns y."""
        return y

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns y."""
        return y


@dataclass(frozen=True)
class Mask(Linear):
    """Keeps the known values and sets all others to zero. `known` is bool and broadcasts against (B, C, *)."""

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Returns x where it is known and 0 elsewhere, (B, C, *).

        Raises InputError for a mask that does not broadcast to the examples.
        """
        fits = all(mine in (1, its) for mine, its in zip(self.known.shape[::-1], x.shape[::-1], strict=False))
        fits = fits and self.known.ndim <= x.ndim
        require(fits, "mask", f"of a shape that broadcasts to {tuple(x.shape[1:])}", tuple(self.known.shape))
        return torch.where(self.known_on(x.device), x, 0.0)

    def known_on(self, device: torch.device) -> Tensor:
        """Returns `known` on a device."""
        return self.kept("known", lambda: self.known, device)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns A y: a mask is an orthogonal projection, which is its own adjoint."""
        return self(y)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns A y: an orthogonal projection is its own pseudo-inverse."""
        return self(y)


@dataclass(frozen=True)
class Crop(Linear):
    """Keeps the middle of an image and drops its margins: (B, C, H, W) -> (B, C, height, width)."""

    height: int
    width: int

    def __post_init__(self) -> None:
        require(self.height >= 1 and self.width >= 1, "crop", "positive", (self.height, self.width))

    def margins(self, size: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Returns the widths of the margins, left, right, top and bottom, of an image of the size (H, W).

        Raises InputError for an image smaller than the crop.
        """
        spare = size[0] - self.height, size[1] - self.width
        require(min(spare) >= 0, "crop", f"given an image of at least {self.height}x{self.width}", size)
        top, left = (margin // 2 for margin in spare)
        return left, spare[1] - left, top, spare[0] - top

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the middle of x."""
        left, _, top, _ = self.margins((x.shape[-2], x.shape[-1]))
        return x[..., top : top + self.height, left : left + self.width]

    def size_before(self, size: Size) -> Size:
        """Raises InputError: any larger image may have been cropped."""
        raise InputError("size: must be given, since a crop does not determine the size of the image before it")

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns y with margins of zeros."""
        return F.pad(y, self.margins((like.shape[-2], like.shape[-1])))

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns the adjoint of y: the rows of A are orthonormal, so that A⁺ = Aᵀ."""
        return self.adjoint(y, like)


@dataclass(frozen=True)
class Selection(Linear):
    """Lists the known values one after another: a mask without its zeros. `known` is bool, of the shape of an example,
    (C, *).
    """

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the known values: (B, C, *) -> (B, M), where M is the number of known values."""
        return x.flatten(1).index_select(1, self._places(x.device))

    def _places(self, device: torch.device) -> Tensor:
        """The places of the known values in a flattened example: (M,). A bool mask would be counted at each use."""
        return self.kept("places", lambda: self.known.cpu().flatten().nonzero()[:, 0], device)

    def size_before(self, size: Size) -> Size:
        """Returns the size of `known`: a list of values has no size of its own."""
        height, width = self.known.shape[-2:]
        return height, width

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns each value of y in its place, and 0 elsewhere."""
        x = torch.zeros_like(like).flatten(1)
        return x.index_copy(1, self._places(y.device), y).reshape(like.shape)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns the adjoint of y: the rows of A are orthonormal, so that A⁺ = Aᵀ."""
        return self.adjoint(y, like)


@dataclass(frozen=True)
class Grayscale(Linear):
    """Takes the weighted sum of the channels, by default the luma of ITU-R BT.601: (B, C, *) -> (B, 1, *)."""

    weights: tuple[float, ...] = (0.299, 0.587, 0.114)

    def __post_init__(self) -> None:
        require(any(self.weights), "weights", "not all 0", self.weights)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns Σ_c w_c x_c.

        Raises InputError unless x has as many channels as there are weights.
        """
        require(x.shape[1] == len(self.weights), "gray", f"given {len(self.weights)} channels", x.shape[1])
        return (x * self._column(x)).sum(1, keepdim=True)

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns w_c y for each channel c."""
        return y * self._column(like)

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns w_c y / ‖w‖² for each channel c, since A Aᵀ is the number ‖w‖²."""
        return self.adjoint(y, like) / sum(w * w for w in self.weights)

    def _column(self, x: Tensor) -> Tensor:
        weights = self.kept(x.dtype, lambda: torch.tensor(self.weights, dtype=x.dtype), x.device)
        return weights.reshape(-1, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class Matrix(Linear):
    """Multiplies flattened examples of n values by a matrix (m, n): (B, C, *) -> (B, m)."""

    matrix: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Returns A x, (B, m).

        Raises InputError unless the matrix has one column for each value of an example.
        """
        shape = tuple(x.shape[1:])
        fits = self.matrix.ndim == 2 and self.matrix.shape[1] == x[0].numel()
        require(fits, "matrix", f"(m, {x[0].numel()}) for examples {shape}", tuple(self.matrix.shape))
        return x.flatten(1) @ self._like(x).mT

    def size_before(self, size: Size) -> Size:
        """Raises InputError: a matrix fits any shape of its number of values."""
        raise InputError("size: must be given, since a matrix does not determine the size of the image before it")

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns Aᵀ y."""
        return (y @ self._like(y)).reshape(like.shape)

    def _like(self, x: Tensor) -> Tensor:
        return self.kept(x.dtype, lambda: self.matrix.to(x.dtype), x.device)


OPERATORS: dict[str, type[Operator]] = {"denoise": Identity, "gray": Grayscale}
