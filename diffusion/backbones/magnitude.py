"""Layers that keep the mean square of their input, so that depth neither inflates nor starves signals and gradients.

The idea is EDM2's (Karras et al. 2024, arXiv 2312.02696): weights of unit norm per output, activations rescaled to unit
mean square, sums and concatenations renormalized; no normalization layers beyond one over the channels of a pixel, and
no biases. With independent inputs of unit mean square each layer returns unit mean square; the head is the one place
where scale is learned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.layers import attend, pixel_norm, unit_rms

# 1/sqrt(E[silu(z)^2]) for standard normal z.
SILU_SCALE = 1 / 0.596468

# How fast a free layer grows beside a unit one: by this share of a unit weight per unit step of the optimizer.
FREE_SCALE = 3.0

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


class FreeConv(nn.Module):
    """A convolution (or with kernel 0 a linear layer) that starts at zero and whose scale is free to grow.

    The stored weight is in units of 1/sqrt(fan-in), like that of `UnitConv`, so that one learning rate suits both.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, *(kernel, kernel) if kernel else ()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), or (B, inputs) -> (B, outputs) for kernel 0."""
        weight = self.weight * (FREE_SCALE / math.sqrt(self.weight[0].numel()))
        if weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=self.padding)


def project_(network: nn.Module) -> None:
    """Rescales every weight of unit norm within a network; see `UnitConv.project_`."""
    for module in network.modules():
        if isinstance(module, UnitConv):
            module.project_()


def conv(inputs: int, outputs: int) -> UnitConv:
    """The 3x3 convolution at the network's entrance."""
    return UnitConv(inputs, outputs, 3)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, modulated by the embedding, with attention after it where `heads` > 0.

    The scale of the activation and of the residual sum is folded into the convolutions: scaling costs no pass over
    memory.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, *, heads: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = UnitConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = FreeConv(embedding, outputs)
        self.first = UnitConv(outputs, outputs, 3, scale=SILU_SCALE)
        self.second = UnitConv(outputs, outputs, 3, scale=SILU_SCALE * BRANCH_SCALE)
        self.dropout = dropout
        self.heads = heads
        if heads:
            self.qkv = UnitConv(outputs, 3 * outputs, 1)
            self.merge = UnitConv(outputs, outputs, 1, scale=BRANCH_SCALE)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, embedding) -> (B, outputs, H, W)."""
        x = pixel_norm(self.trunk(x))
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
        self.conv = FreeConv(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        y: Tensor = self.conv(pixel_norm(x))
        return y
