"""Fourier features of quantized data, whose gray levels are evenly spaced, as those of 8-bit pixels are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LevelFeatures(nn.Module):
    """The expectations of √2 sin ωx and √2 cos ωx given x_t, for periods 2π/ω of 1, 2, 4, ... times the spacing of gray
    levels.

    With a flat prior, x given x_t is N(x_t/α, e^-λ), and the expectation of sin ωx is

        e^(-ω² e^-λ / 2) sin(ω x_t/α)

    so that a feature is zero where noise hides the levels, instead of being noise itself. At period 1 this is the exact
    denoiser to first order: for levels at multiples of 2π/ω, x̂ - x_t/α is -2ω e^-λ times this expectation.

    Kingma et al. (2021, arXiv 2107.00630, appendix C) give the network sin and cos(2ⁿπ x_t) as inputs, since a
    likelihood depends on the last bits of a pixel and the network cannot compute from x_t alone what depends on them.
    Their periods, n = 8 and 7, are one and two levels of data in [-1, 1]; here the periods are multiples of the spacing
    in whatever units the data have.
    """

    def __init__(self, octaves: int, spacing: float) -> None:
        super().__init__()
        self.frequencies = [2 * math.pi / (spacing * 2**n) for n in range(octaves)]

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x: x_t/√(α² + σ²), (B, C, H, W); log_snr: (B,) or (B, 1, H, W). Returns (B, 2 octaves C, H, W), which have
        unit mean square where there is no noise.
        """
        variance = torch.exp(-log_snr).reshape(-1, 1, *log_snr.shape[2:] or (1, 1))
        x = x * (1 + variance).sqrt()
        waves = []
        for frequency in self.frequencies:
            scale = math.sqrt(2) * torch.exp(-(frequency**2) * variance / 2)
            waves += [scale * torch.sin(frequency * x), scale * torch.cos(frequency * x)]
        return torch.cat(waves, dim=1)
