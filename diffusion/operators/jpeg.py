"""The loss of JPEG: cosine transforms of blocks of 8x8 pixels, rounded to multiples of the tables of its standard.

ITU-T T.81 (1992), annex A.3 and the tables of annex K.1, scaled by quality as libjpeg does. Coefficients are rounded,
and nothing else is lost: colors are not subsampled, and the result is neither rounded to bytes nor clamped to their
range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import require
from diffusion.operators.linear import Identity
from diffusion.operators.operator import Linear, Operator

BLOCK = 8
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
# Rec. 601 luma and scaled color differences of R, G, B.
COLORS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class JPEG(Operator):
    """Compresses images (B, 1 or 3, H, W) in [0, 1] as JPEG of a quality from 1 to 100, and decompresses them.

    Rounding has no useful derivative. Its derivative is taken to be 1 ("straight through"), so that the linearization
    is the identity.
    """

    essential: ClassVar[tuple[str, ...]] = ("quality",)

    quality: int = 10

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, "jpeg.quality", "between 1 and 100", self.quality)

    def __call__(self, x: Tensor) -> Tensor:
        """Converts to luma and color differences, rounds the coefficients of each block, and converts back.

        Sides are extended to multiples of 8 for this, by copies of the last row and column, and cropped again.

        Raises InputError unless x has 1 or 3 channels.
        """
        channels, height, width = x.shape[1:]
        require(channels in (1, 3), "jpeg", "given 1 or 3 channels", channels)
        colors = self.kept((channels, x.dtype), lambda: conversion(channels).to(x.dtype), x.device)
        shifted = torch.einsum("dc,bchw->bdhw", colors, 255 * x - 128)
        wide = F.pad(shifted, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
        steps = self.kept(("steps", x.dtype), lambda: self.steps.to(x.dtype), x.device)[:channels, None, None]
        cosines = self.kept(("cosines", x.dtype), lambda: cosine_transform().to(x.dtype), x.device)
        coefficients = cosines @ blocks(wide) @ cosines.mT
        rounded = coefficients + ((coefficients / steps).round() * steps - coefficients).detach()
        back = unblocks(cosines.mT @ rounded @ cosines, wide)[..., :height, :width]
        inverse = self.kept(
            ("inverse", channels, x.dtype), lambda: torch.linalg.inv(conversion(channels).to(x.dtype)), x.device
        )
        pixels = torch.einsum("cd,bdhw->bchw", inverse, back)
        return (pixels + 128) / 255

    def linearized(self, x: Tensor) -> Linear:
        """Returns the identity, as the derivative of rounding is taken to be 1."""
        return Identity()

    @property
    def steps(self) -> Tensor:
        """The steps to whose multiples the coefficients of luma and of both color differences are rounded: (3, 8, 8)
        float64.
        """
        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        tables = torch.tensor((LUMA, CHROMA, CHROMA), dtype=torch.float64)
        return ((tables * scale + 50) / 100).floor().clamp(1, 255)


def conversion(channels: int) -> Tensor:
    """Returns the matrix from R, G and B to luma and color differences; that of one channel, which is luma, is 1."""
    return torch.tensor(COLORS, dtype=torch.float64) if channels == 3 else torch.eye(1, dtype=torch.float64)


def cosine_transform() -> Tensor:
    """Returns the matrix of the orthonormal discrete cosine transform of type II of 8 values: (8, 8) float64."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos(math.pi * k[:, None] * (k + 0.5) / BLOCK) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves


def blocks(x: Tensor) -> Tensor:
    """Cuts images into blocks of 8x8 pixels: (B, C, H, W) -> (B, C, H / 8, W / 8, 8, 8)."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)


def unblocks(x: Tensor, like: Tensor) -> Tensor:
    """Inverts `blocks`: returns images of the shape of `like`, (B, C, H, W)."""
    return x.transpose(3, 4).reshape(like.shape)


OPERATORS: dict[str, type[Operator]] = {"jpeg": JPEG}
