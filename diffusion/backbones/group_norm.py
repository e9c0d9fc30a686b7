"""The residual block most diffusion U-Nets use: group normalization, SiLU, convolution, scale and shift by the
embedding.

After Dhariwal and Nichol (2021, arXiv 2105.05233), "ADM". The second convolution starts at zero, so a new network is
the identity on its trunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones import backbone
from diffusion.backbones.layers import attend, upsample, zero


def norm(channels: int) -> nn.GroupNorm:
    """Group normalization with as many groups as divide the channels, 32 at most."""
    return nn.GroupNorm(next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0), channels)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """The 3x3 convolution at the network's entrance."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Block(backbone.ResidualBlock):
    """A residual block of two 3x3 convolutions, with attention after it where `heads` > 0."""

    def __init__(self, inputs: int, outputs: int, embedding: int, *, heads: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.norm_first, self.norm_second = norm(inputs), norm(outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.second = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.dropout = dropout
        self.heads = heads
        if heads:
            self.norm_attention = norm(outputs)
            self.qkv = nn.Conv2d(outputs, 3 * outputs, 1)
            self.proj_out = zero(nn.Conv2d(outputs, outputs, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, embedding) -> (B, outputs, H, W)."""
        y = F.silu(self.norm_first(x))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        y = torch.addcmul(shift, self.norm_second(self.first(y)), scale + 1)
        x = self.shortcut(x) + self.second(F.dropout(F.silu(y), self.dropout, self.training))
        if self.heads:
            x = x + self.proj_out(attend(self.qkv(self.norm_attention(x)), self.heads, normalize=False))
        return x


class Join(nn.Module):
    """The sum of what comes up from the coarser level, its width matched there, and what the encoder put out."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, outputs, H or 2H, W or 2W) -> the shape of the skip."""
        x = self.up(x)
        return skip + (x if x.shape == skip.shape else upsample(x))


class Head(nn.Module):
    """Normalization, SiLU and a convolution that starts at zero: an untrained network predicts F = 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = norm(inputs)
        self.conv = zero(nn.Conv2d(inputs, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        y: Tensor = self.conv(F.silu(self.norm(x)))
        return y
