"""Fourier features of data that take evenly spaced levels, as 8-bit pixels do."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LevelFeatures(nn.Module):
    """What x_t says about sin ωx and cos ωx, for periods 2π/ω of 1, 2, 4, ... times the distance between levels.

    Kingma et al. (2021, arXiv 2107.00630, appendix C) show the network sin and cos(2ⁿπ x_t), as it cannot make from x_t
    alone what depends on the last bits of a pixel, and a likelihood does. Their periods, n = 8 and 7, are one and two
    levels of data in [-1, 1]; here they are so in whatever units the data are.

    With a flat prior x | x_t is N(x_t/α, e^-λ), and the expectation of sin ωx is

        e^(-ω² e^-λ / 2) sin(ω x_t/α)

    so a feature is zero where noise hides the levels, instead of being noise itself. At period 1 this is the exact
    denoiser to first order: x̂ - x_t/α = -2ω e^-λ times it, for levels at multiples of 2π/ω.
    """

    def __init__(self, octaves: int, spacing: float) -> None:
        super().__init__()
        self.frequencies = [2 * math.pi / (spacing * 2**n) for n in range(octaves)]

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x: x_t/√(α² + σ²), (B, C, H, W); log_snr: (B,). Returns (B, 2 octaves C, H, W) of unit mean square without
        noise.
        """
        variance = torch.exp(-log_snr).reshape(-1, 1, 1, 1)
        x = x * (1 + variance).sqrt()
        waves = []
        for frequency in self.frequencies:
            scale = math.sqrt(2) * torch.exp(-(frequency**2) * variance / 2)
            waves += [scale * torch.sin(frequency * x), scale * torch.cos(frequency * x)]
        return torch.cat(waves, dim=1)
