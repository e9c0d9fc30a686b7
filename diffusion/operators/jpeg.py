"""The loss of JPEG: cosine transforms of blocks of 8x8 pixels, rounded to multiples of the tables of its standard.

ITU-T T.81 (1992), annex A.3 and the tables of annex K.1, scaled by quality as libjpeg does. Colors are not subsampled,
and what comes out is neither rounded to bytes nor cut to their range: rounding of coefficients is all there is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """An image (B, 1 or 3, H, W) in [0, 1] as JPEG of that quality, 1 to 100, gives it back.

    Rounding has no useful derivative: it is taken to be 1 ("straight through"), so that the linearization is the
    identity.
    """

    quality: int = 10

    def __post_init__(self) -> None:
        require(1 <= self.quality <= 100, "jpeg.quality", "between 1 and 100", self.quality)

    def __call__(self, x: Tensor) -> Tensor:
        """Colors apart, blocks transformed, rounded, and back; sides are extended to multiples of 8 and cut again.

        Raises InputError unless x has 1 or 3 channels.
        """
        channels, height, width = x.shape[1:]
        require(channels in (1, 3), "jpeg", "given 1 or 3 channels", channels)
        colors = x.new_tensor(COLORS) if channels == 3 else torch.eye(1).to(x)
        shifted = torch.einsum("dc,bchw->bdhw", colors, 255 * x - 128)
        wide = F.pad(shifted, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
        steps = self.steps.to(x)[:channels, None, None]
        cosines = cosine_transform().to(x)
        coefficients = cosines @ blocks(wide) @ cosines.mT
        rounded = coefficients + ((coefficients / steps).round() * steps - coefficients).detach()
        back = unblocks(cosines.mT @ rounded @ cosines, wide)[..., :height, :width]
        pixels = torch.einsum("cd,bdhw->bchw", torch.linalg.inv(colors), back)
        return (pixels + 128) / 255

    def linearized(self, x: Tensor) -> Linear:
        """The identity."""
        return Identity()

    @property
    def steps(self) -> Tensor:
        """The units of the coefficients of luma and both colors: (3, 8, 8) float64."""
        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        tables = torch.tensor((LUMA, CHROMA, CHROMA), dtype=torch.float64)
        return ((tables * scale + 50) / 100).floor().clamp(1, 255)


def cosine_transform() -> Tensor:
    """The orthonormal discrete cosine transform of 8 values, type II: (8, 8) float64."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos(math.pi * k[:, None] * (k + 0.5) / BLOCK) * math.sqrt(2 / BLOCK)
    waves[0] /= math.sqrt(2)
    return waves


def blocks(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H / 8, W / 8, 8, 8)."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)


def unblocks(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `blocks`."""
    return x.transpose(3, 4).reshape(like.shape)
