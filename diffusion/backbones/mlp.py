"""A residual multilayer perceptron for points, of the same magnitude-preserving layers as the U-Net."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.base import Backbone, BackboneConfig, Block
from diffusion.backbones.embedding import Embedding
from diffusion.backbones.layers import zero
from diffusion.backbones.magnitude import BRANCH_SCALE, SILU_SCALE, TRUNK_SCALE, UnitConv, project_
from diffusion.errors import require


@dataclass(frozen=True)
class MLPConfig(BackboneConfig):
    """`blocks` residual blocks of `width` units.

    The coordinates enter as themselves and as Fourier features of `octaves` frequencies, which let a small network
    follow the fine structure of low-dimensional data (Tancik et al. 2020, arXiv 2006.10739).
    """

    width: int = 128
    blocks: int = 4
    octaves: int = 4

    def __post_init__(self) -> None:
        require(self.width >= 2 and self.width % 2 == 0, "width", "an even number, 2 or more", self.width)
        require(self.blocks >= 1, "blocks", "at least 1", self.blocks)
        require(self.octaves >= 0, "octaves", "0 or more", self.octaves)

    def build(self, in_channels: int, out_channels: int, classes: int = 0) -> MLP:
        """A new perceptron."""
        return MLP(in_channels, out_channels, classes, self)


class MLP(Backbone):
    """F(x, log-SNR, label) for points (B, D)."""

    frequencies: Tensor

    def __init__(self, in_channels: int, out_channels: int, classes: int, config: MLPConfig) -> None:
        super().__init__(in_channels, out_channels, classes)
        width, blocks, octaves = config.width, config.blocks, config.octaves
        self.register_buffer("frequencies", 2.0 ** torch.arange(octaves), persistent=False)
        self.embed = Embedding(width, classes)
        self.stem = UnitConv(in_channels * (1 + 2 * octaves) + 1, width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(blocks))
        self.head = zero(nn.Linear(width, out_channels))

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        """x: (B, D) of about unit variance; log_snr: (B,); label: (B,). Returns (B, out_channels)."""
        waves = (x[:, :, None] * self.frequencies).flatten(1)
        features = torch.cat([x, 2**0.5 * waves.sin(), 2**0.5 * waves.cos(), torch.ones_like(x[:, :1])], dim=1)
        embedding = self.embed(log_snr, self.one_hot(label, len(x), log_snr))
        h = self.stem(features)
        for block in self.blocks:
            h = self.through(block, h, embedding)
        y: Tensor = self.head(h)
        return y

    def project_(self) -> None:
        """Rescales the weights of the magnitude-preserving layers to unit mean square."""
        project_(self)


class MLPBlock(Block):
    """A residual block of two linear layers, modulated by the embedding between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = zero(nn.Linear(width, width, bias=False))
        self.first = UnitConv(width, width, scale=SILU_SCALE)
        self.second = UnitConv(width, width, scale=SILU_SCALE * BRANCH_SCALE)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, width), (B, width) -> (B, width)."""
        x = F.layer_norm(x, x.shape[1:])
        y = self.first(F.silu(x)) * (self.modulation(embedding) + 1)
        return torch.add(self.second(F.silu(y)), x, alpha=TRUNK_SCALE)
