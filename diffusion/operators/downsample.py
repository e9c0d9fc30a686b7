"""Downsampling of images by any factor: one matrix along the rows and one along the columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.operator import Linear, Operator, Size

Filter = Literal["area", "bicubic"]
Factors = tuple[float, float]


@dataclass(frozen=True)
class Downsample(Linear):
    """Makes images smaller by a factor: (B, C, H, W) -> (B, C, h, w) with h = H / factor, rounded, at least 1.

    `factor` is any number from 1, or a pair of them, down and across. `size`, written as "640x480" (width x height), is
    the size of the large image where that is known instead of the factor (`resolved`).

    The filter "area" takes the means over H / h x W / w pixels, with the shares of pixels that are cut. "bicubic" is
    the cubic convolution of Keys (1981) with a = -1/2, its kernel stretched by H / h against aliasing and renormalized
    at the borders.

    Along each side x is multiplied by a matrix, R along the rows and C along the columns, so that the pseudo-inverse
    consists of those of two small matrices.

    Raises InputError for a factor below 1, a filter that does not exist, and a size that is not understood.
    """

    essential: ClassVar[tuple[str, ...]] = ("factor", "size")

    factor: float | Factors = 4.0
    filter: Filter = "area"
    size: str = ""

    def __post_init__(self) -> None:
        require(min(self.factors) >= 1, "downsample.factor", "at least 1", self.factor)
        require(self.filter in ("area", "bicubic"), "downsample.filter", "area or bicubic", repr(self.filter))
        if self.size:
            _sides(self.size)

    @property
    def factors(self) -> Factors:
        """The factors down and across."""
        return self.factor if isinstance(self.factor, tuple) else (self.factor, self.factor)

    def __call__(self, x: Tensor) -> Tensor:
        """Returns R x Cᵀ."""
        rows, columns = self._matrices(x)
        return rows @ x @ columns.mT

    def size_before(self, size: Size) -> Size:
        """Returns the size that was stated, else the size times the factor, rounded."""
        if self.size:
            return _sides(self.size)
        down, across = (_rounded(factor * side) for factor, side in zip(self.factors, size, strict=True))
        return down, across

    def resolved(self, observed: Size) -> Downsample:
        """Returns the operator with the factors that lead from the stated size to the observed one.

        Raises InputError for a stated size that is smaller than the observed one.
        """
        if not self.size:
            return self
        height, width = _sides(self.size)
        larger = height >= observed[0] and width >= observed[1]
        require(larger, "downsample.size", f"at least {observed[1]}x{observed[0]}, that of the small image", self.size)
        return replace(self, factor=(height / observed[0], width / observed[1]), size="")

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns Rᵀ y C."""
        rows, columns = self._matrices(like)
        return rows.mT @ y @ columns

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns R⁺ y (C⁺)ᵀ."""
        rows, columns = self._matrices(like, inverse=True)
        return rows @ y @ columns.mT

    def _matrices(self, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The matrices along the rows and along the columns of x, or their pseudo-inverses."""
        require(not self.size, "downsample.size", "resolved by the size of the small image, or a factor", self.size)
        rows, columns = (
            self.kept((side, factor, x.dtype, inverse), partial(self._matrix, side, factor, x.dtype, inverse), x.device)
            for side, factor in zip(x.shape[-2:], self.factors, strict=True)
        )
        return rows, columns

    def _matrix(self, side: int, factor: float, dtype: torch.dtype, inverse: bool) -> Tensor:
        matrix = weights(side, max(1, _rounded(side / factor)), self.filter).to(dtype)
        return torch.linalg.pinv(matrix) if inverse else matrix


def _rounded(value: float) -> int:
    # Python rounds halves to the even number, which would make the size of a half image depend on its parity.
    return math.floor(value + 0.5)


def _sides(text: str) -> Size:
    """Returns the size (H, W) that "WIDTHxHEIGHT" states. Raises InputError for anything else."""
    width, times, height = text.lower().partition("x")
    understood = times and width.strip().isdecimal() and height.strip().isdecimal() and int(width) * int(height) > 0
    require(understood, "downsample.size", "WIDTHxHEIGHT in pixels, as in 640x480", repr(text))
    return int(height), int(width)


def weights(side: int, small: int, filter: Filter) -> Tensor:
    """Returns the matrix that makes a line of `side` pixels one of `small`: (small, side) float64.

    Row i holds the weights of the pixels of the large image in pixel i of the small one.
    """
    if filter == "area":
        edges = torch.arange(small + 1, dtype=torch.float64)[:, None] * side / small
        pixels = torch.arange(side, dtype=torch.float64)
        shares = torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)
        return shares.clamp_min(0) * small / side
    lines = torch.eye(side, dtype=torch.float64)[None, None]
    return F.interpolate(lines, (small, side), mode="bicubic", antialias=True)[0, 0]


OPERATORS: dict[str, type[Operator]] = {"downsample": Downsample}
