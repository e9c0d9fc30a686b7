"""How a backbone is told the noise level and the label."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.magnitude import SILU_SCALE, UnitConv


class LogSNRFeatures(nn.Module):
    """cos(f λ + φ)·√2 at fixed frequencies, a phase of 0 and of π/2 each: features of unit mean square, (B,) -> (B,
    channels).

    The frequencies run geometrically from a quarter period over the usual range of log-SNR (about ±15) to periods of
    about 2, which resolves every level that a schedule distinguishes without asking the network to extrapolate.
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
        """(B,) -> (B, channels)."""
        return math.sqrt(2) * torch.cos(torch.outer(log_snr, self.frequencies) + self.phases)


class Embedding(nn.Module):
    """Log-SNR and label to one vector of unit mean square, (B, channels)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = LogSNRFeatures(channels)
        self.log_snr_layer = UnitConv(channels, channels)
        self.label = UnitConv(classes + 1, channels, scale=(classes + 1) ** 0.5) if classes else None

    def forward(self, log_snr: Tensor, one_hot: Tensor) -> Tensor:
        """(B,), (B, classes + 1) -> (B, channels)."""
        z = self.log_snr_layer(self.features(log_snr))
        if self.label is not None:
            z = (z + self.label(one_hot)) / 2**0.5
        return F.silu(z) * SILU_SCALE
