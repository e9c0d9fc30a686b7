"""The embedding of log-SNR and label that conditions a backbone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.magnitude import SILU_SCALE, UnitConv


class LogSNRFeatures(nn.Module):
    """Features √2 cos(f λ + φ) of the log-SNR λ, at fixed frequencies f with phases φ of 0 and π/2 each.

    They have unit mean square. The frequencies run geometrically from a quarter period over the usual range of log-SNR
    (about ±15) to periods of about 2, which resolves every log-SNR that a schedule distinguishes without asking the
    network to extrapolate.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        frequencies = torch.logspace(math.log10(0.05), math.log10(3.0), channels // 2)
        self.register_buffer("frequencies", frequencies.repeat(2), persistent=False)
        self.register_buffer(
            "phases", torch.tensor([0.0, math.pi / 2]).repeat_interleave(channels // 2), persistent=False
        )

    def forward(self, log_snr: Tensor) -> Tensor:
        """log_snr: (B,). Returns (B, channels)."""
        return math.sqrt(2) * torch.cos(torch.outer(log_snr, self.frequencies) + self.phases)


class Embedding(nn.Module):
    """Embeds log-SNR and label in one vector of unit mean square, (B, channels)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = LogSNRFeatures(channels)
        self.log_snr_layer = UnitConv(channels, channels)
        self.label = UnitConv(classes + 1, channels, scale=(classes + 1) ** 0.5) if classes else None

    def forward(self, log_snr: Tensor, one_hot: Tensor) -> Tensor:
        """log_snr: (B,); one_hot: (B, classes + 1). Returns (B, channels)."""
        z = self.log_snr_layer(self.features(log_snr))
        if self.label is not None:
            z = (z + self.label(one_hot)) / 2**0.5
        return F.silu(z) * SILU_SCALE
