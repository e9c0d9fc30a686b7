"""The residual block that most diffusion U-Nets use: group normalization, SiLU, convolution, and scale and shift by the
embedding.

The block is that of ADM (Dhariwal and Nichol 2021, arXiv 2105.05233). Its second convolution is zero-initialized: the
residual branch of a new block is zero, and the block is its shortcut.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones import backbone
from diffusion.backbones.layers import attend, modulated, upsample, zero


def norm(channels: int) -> nn.GroupNorm:
    """Returns group normalization of as many groups as divide the channels, a power of 2 and at most 32."""
    return nn.GroupNorm(next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0), channels)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Returns the 3x3 convolution at the input of the network."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Block(backbone.ResidualBlock):
    """A residual block of two 3x3 convolutions, followed by attention if `heads` > 0."""

    def __init__(self, inputs: int, outputs: int, embedding: int, *, heads: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.norm_first, self.norm_second = norm(inputs), norm(outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.second = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.dropout, self.draws = dropout, dropout > 0
        self.heads = heads
        if heads:
            self.norm_attention = norm(outputs)
            self.qkv = nn.Conv2d(outputs, 3 * outputs, 1)
            self.proj_out = zero(nn.Conv2d(outputs, outputs, 1))

    def forward(self, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """x: (B, inputs, H, W); embedding: (B, E), or (2B, E) with share (B, 1, H, W). Returns (B, outputs, H, W)."""
        y = F.silu(self.norm_first(x))
        scale, shift = self.modulation(embedding).chunk(2, dim=1)
        y = modulated(self.norm_second(self.first(y)), scale + 1, share, shift)
        x = self.shortcut(x) + self.second(F.dropout(F.silu(y), self.dropout, self.training))
        if self.heads:
            x = x + self.proj_out(attend(self.qkv(self.norm_attention(x)), self.heads, normalize=False))
        return x


class Join(nn.Module):
    """Adds the output of the coarser stage, upsampled, to the skip from the encoder.

    A 1x1 convolution matches the widths at the coarse resolution, a quarter of the pixels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (B, inputs, H, W); skip: (B, outputs, H or 2H, W or 2W). Returns the shape of the skip."""
        x = self.up(x)
        return skip + (x if x.shape == skip.shape else upsample(x))


class Head(nn.Module):
    """Normalization, SiLU and a zero-initialized convolution: an untrained network predicts F = 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = norm(inputs)
        self.conv = zero(nn.Conv2d(inputs, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W). Returns (B, outputs, H, W)."""
        y: Tensor = self.conv(F.silu(self.norm(x)))
        return y
