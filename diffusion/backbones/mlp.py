"""A residual multilayer perceptron for points, built of the magnitude-preserving layers of the U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.backbone import Backbone, BackboneConfig, ResidualBlock
from diffusion.backbones.embedding import Embedding
from diffusion.backbones.layers import zero
from diffusion.backbones.magnitude import RESIDUAL_SCALE, SHORTCUT_SCALE, SILU_SCALE, UnitConv
from diffusion.errors import require

# A configuration may come from somebody else's checkpoint, so that all sizes are limited.
WIDEST, DEEPEST, OCTAVES = 2**14, 1024, 64


@dataclass(frozen=True)
class MLPConfig(BackboneConfig):
    """A perceptron of `blocks` residual blocks of `width` units.

    Its inputs are the coordinates and their Fourier features at `octaves` frequencies, 1, 2, 4, ..., which let a small
    network follow the fine structure of low-dimensional data (Tancik et al. 2020, arXiv 2006.10739). The features fade
    with the noise: under noise of variance v the mean of sin(f x) is e^(-f² v / 2) sin(f x) (Barron et al. 2021,
    arXiv 2103.13415, section 3.1), and the network would have to learn to ignore the scatter around it.
    """

    width: int = 128
    blocks: int = 4
    octaves: int = 4

    def __post_init__(self) -> None:
        even = f"an even number from 2 to {WIDEST}"
        require(2 <= self.width <= WIDEST and self.width % 2 == 0, "width", even, self.width)
        require(1 <= self.blocks <= DEEPEST, "blocks", f"1 to {DEEPEST}", self.blocks)
        require(0 <= self.octaves <= OCTAVES, "octaves", f"0 to {OCTAVES}", self.octaves)

    def build(
        self,
        in_channels: int,
        out_channels: int,
        classes: int = 0,
        *,
        spacing: float | None = None,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> MLP:
        """Returns a new perceptron."""
        return MLP(in_channels, out_channels, classes, self, mapped, condition_channels)


class MLP(Backbone):
    """The network F(x, log-SNR, label) for points (B, D)."""

    frequencies: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        classes: int,
        config: MLPConfig,
        mapped: bool = False,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, classes)
        self.mapped, self.condition_channels = mapped, condition_channels
        width, blocks, octaves = config.width, config.blocks, config.octaves
        self.register_buffer("frequencies", 2.0 ** torch.arange(octaves), persistent=False)
        self.embed = Embedding(width, classes)
        self.stem = UnitConv(in_channels * (1 + 2 * octaves + mapped) + condition_channels + 1, width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(blocks))
        self.head = zero(nn.Linear(width, out_channels))

    @property
    def map_channels(self) -> int:
        """The number of coordinates, each of which has a level of its own."""
        return self.in_channels

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x: (B, D) of about unit variance; log_snr: (B,); label: (B,); log_snr_map: (B, D); condition: (B, K).
        Returns (B, out_channels).
        """
        embedding = self.embed(log_snr, self.one_hot(label, x.shape[0], log_snr))
        beside = self.beside(x, log_snr, log_snr_map, condition)
        h = self.stem(self.features(x, log_snr if log_snr_map is None else log_snr_map, beside))
        for block in self.blocks:
            h = self.run_block(block, h, embedding)
        y: Tensor = self.head(h)
        return y

    def features(self, x: Tensor, log_snr: Tensor, beside: Sequence[Tensor] = ()) -> Tensor:
        """x: (B, D); log_snr: (B,) or (B, D). Returns (B, F): a constant, the coordinates, their Fourier features and
        what is beside them, scaled to unit mean square.
        """
        waves = x[:, :, None] * self.frequencies
        # In units where α² + σ² = 1 the noise has the variance σ² = sigmoid(-λ).
        damping = 2**0.5 * (-self.frequencies.square() * torch.sigmoid(-log_snr).reshape(x.shape[0], -1, 1) / 2).exp()
        parts = torch.ones_like(x[:, :1]), x, (damping * waves.sin()).flatten(1), (damping * waves.cos()).flatten(1)
        y = torch.cat([*parts, *beside], dim=1)
        return F.rms_norm(y, y.shape[1:])


class MLPBlock(ResidualBlock):
    """A residual block of two linear layers, modulated by the embedding between them."""

    draws = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = zero(nn.Linear(width, width, bias=False))
        self.first = UnitConv(width, width, scale=SILU_SCALE)
        self.second = UnitConv(width, width, scale=SILU_SCALE * RESIDUAL_SCALE)

    def forward(self, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """x: (B, width); embedding: (B, width). Returns (B, width). Units are no pixels, so that there is no share."""
        x = F.layer_norm(x, x.shape[1:])
        y = self.first(F.silu(x)) * (self.modulation(embedding) + 1)
        return torch.add(self.second(F.silu(y)), x, alpha=SHORTCUT_SCALE)
