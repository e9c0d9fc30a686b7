"""Layers that keep the mean square of their input, so that depth neither inflates nor starves signals and gradients.

The idea is EDM2's (Karras et al. 2024, arXiv 2312.02696): weights of unit norm per output, activations rescaled to unit
mean square, sums and concatenations renormalized; no normalization layers beyond one over the channels of a pixel, and
no biases. With independent inputs of unit mean square each layer returns unit mean square; `Gain` is the one place
where scale is learned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.layers import attend, downsample, pixel_norm, unit_rms, upsample, zero

# 1/sqrt(E[silu(z)^2]) for standard normal z.
SILU_SCALE = 1 / 0.596468

# Share of the residual branch in a sum, before renormalization.
BRANCH = 0.3
BRANCH_SCALE, TRUNK_SCALE = (s / math.hypot(BRANCH, 1 - BRANCH) for s in (BRANCH, 1 - BRANCH))


class UnitConv(nn.Module):
    """A convolution (or with kernel 0 a linear layer) whose weight has unit norm for every output channel, times
    `scale`.

    `project_` keeps the stored weight at unit mean square, so that the optimizer's step size is relative to the weight.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(kernel, kernel) if kernel else ()))
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        """Rescales the stored weight to unit mean square per output; the function computed does not change."""
        self.weight.copy_(self._unit())

    def _unit(self) -> Tensor:
        return unit_rms(self.weight, dim=list(range(1, self.weight.ndim)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), or (B, inputs) -> (B, outputs) for kernel 0."""
        weight = self._unit() * (self.scale / math.sqrt(self.weight[0].numel()))
        if weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), padding=self.padding)


def project_(network: nn.Module) -> None:
    """Rescales every weight of unit norm within a network; see `UnitConv.project_`."""
    for module in network.modules():
        if isinstance(module, UnitConv):
            module.project_()


def conv(inputs: int, outputs: int) -> UnitConv:
    """The 3x3 convolution at the network's entrance."""
    return UnitConv(inputs, outputs, 3)


def concat(x: Tensor, y: Tensor) -> Tensor:
    """Concatenation along channels to which both parts contribute equally and whose mean square is one."""
    a, b = x.shape[1], y.shape[1]
    scale = math.sqrt((a + b) / 2)
    return torch.cat([x * (scale / math.sqrt(a)), y * (scale / math.sqrt(b))], dim=1)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, modulated by the embedding, with attention after it where `heads` > 0.

    The scale of the activation and of the residual sum is folded into the convolutions: scaling costs no pass over
    memory.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int, *, heads: int = 0, resample: str = "", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.resample = {"": None, "down": downsample, "up": upsample}[resample]
        self.trunk = UnitConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = zero(nn.Linear(embedding, outputs, bias=False))
        self.first = UnitConv(outputs, outputs, 3, scale=SILU_SCALE)
        self.second = UnitConv(outputs, outputs, 3, scale=SILU_SCALE * BRANCH_SCALE)
        self.dropout = dropout
        self.heads = heads
        if heads:
            self.qkv = UnitConv(outputs, 3 * outputs, 1)
            self.merge = UnitConv(outputs, outputs, 1, scale=BRANCH_SCALE)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, embedding) -> (B, outputs, H', W')."""
        x = self.trunk(self.resample(x) if self.resample else x)
        x = pixel_norm(x)
        modulation = self.modulation(embedding) + 1
        y = self.first(F.silu(x)) * modulation[:, :, None, None].to(x.dtype)
        y = F.dropout(F.silu(y), self.dropout, self.training)
        x = torch.add(self.second(y), x, alpha=TRUNK_SCALE)
        if self.heads:
            y = self.merge(attend(self.qkv(x), self.heads, normalize=True))
            x = torch.add(y, x, alpha=TRUNK_SCALE)
        return x


class Head(nn.Module):
    """The last convolution, the one layer of free scale. It starts at zero: an untrained network predicts F = 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = zero(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        y: Tensor = self.conv(pixel_norm(x))
        return y
