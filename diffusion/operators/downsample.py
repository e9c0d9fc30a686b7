"""Downsampling of images by a whole factor: a matrix along the rows and one along the columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.operator import Linear

Filter = Literal["area", "bicubic"]


@dataclass(frozen=True)
class Downsample(Linear):
    """(B, C, H, W) -> (B, C, H / factor, W / factor): the means of blocks ("area"), or cubic convolution stretched by
    the factor, so that nothing aliases ("bicubic", Keys 1981 with a = -1/2; renormalized at the borders).

    x is multiplied along each side by a matrix, so that the pseudo-inverse is that of two small matrices.

    Raises InputError for sides that are not multiples of the factor.
    """

    factor: int = 4
    filter: Filter = "area"

    def __post_init__(self) -> None:
        require(self.factor >= 1, "downsample.factor", "at least 1", self.factor)
        require(self.filter in ("area", "bicubic"), "downsample.filter", "area or bicubic", repr(self.filter))

    def __call__(self, x: Tensor) -> Tensor:
        """R x Cᵀ."""
        rows, columns = self._matrices(x)
        return rows @ x @ columns.mT

    def adjoint(self, y: Tensor, like: Tensor) -> Tensor:
        """Rᵀ y C."""
        rows, columns = self._matrices(like)
        return rows.mT @ y @ columns

    def pinv(self, y: Tensor, like: Tensor) -> Tensor:
        """R⁺ y (C⁺)ᵀ."""
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
    """How the pixels of the small image weigh those of the large one: (side / factor, side) float64."""
    lines = torch.eye(side, dtype=torch.float64)[None, None]
    size = (side // factor, side)
    if filter == "area":
        return F.interpolate(lines, size, mode="area")[0, 0]
    return F.interpolate(lines, size, mode="bicubic", antialias=True)[0, 0]
