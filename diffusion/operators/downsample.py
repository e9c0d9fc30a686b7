"""Downsampling of images by an integer factor: one matrix along the rows and one along the columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.operator import Linear, Operator, Size

Filter = Literal["area", "bicubic"]


@dataclass(frozen=True)
class Downsample(Linear):
    """Makes images smaller by an integer factor: (B, C, H, W) -> (B, C, H / factor, W / factor).

    The filter "area" takes the means of blocks. "bicubic" is the cubic convolution of Keys (1981) with a = -1/2, its
    kernel stretched by the factor against aliasing and renormalized at the borders.

    Along each side x is multiplied by a matrix, R along the rows and C along the columns, so that the pseudo-inverse
    consists of those of two small matrices.

    Raises InputError for sides that are not multiples of the factor.
    """

    factor: int = 4
    filter: Filter = "area"

    def __post_init__(self) -> None:
        require(self.factor >= 1, "downsample.factor", "at least 1", self.factor)
        require(self.filter in ("area", "bicubic"), "downsample.filter", "area or bicubic", repr(self.filter))

    def __call__(self, x: Tensor) -> Tensor:
        """Returns R x Cᵀ."""
        rows, columns = self._matrices(x)
        return rows @ x @ columns.mT

    def size_before(self, size: Size) -> Size:
        """Returns the size times the factor."""
        return self.factor * size[0], self.factor * size[1]

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns Rᵀ y C."""
        rows, columns = self._matrices(like)
        return rows.mT @ y @ columns

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """Returns R⁺ y (C⁺)ᵀ."""
        rows, columns = self._matrices(like)
        inverse: Tensor = torch.linalg.pinv(rows) @ y @ torch.linalg.pinv(columns).mT
        return inverse

    def _matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        divides = height % self.factor == 0 == width % self.factor
        require(divides, f"downsample:factor={self.factor}", "given sides that it divides", f"{height}x{width}")
        return weights(height, self.factor, self.filter).to(x), weights(width, self.factor, self.filter).to(x)


@lru_cache(maxsize=16)
def weights(side: int, factor: int, filter: Filter) -> Tensor:
    """Returns the matrix of the downsampling of a line: (side / factor, side) float64. Row i holds the weights of the
    pixels of the large image in pixel i of the small one.
    """
    lines = torch.eye(side, dtype=torch.float64)[None, None]
    size = (side // factor, side)
    if filter == "area":
        return F.interpolate(lines, size, mode="area")[0, 0]
    return F.interpolate(lines, size, mode="bicubic", antialias=True)[0, 0]


OPERATORS: dict[str, type[Operator]] = {"downsample": Downsample}
