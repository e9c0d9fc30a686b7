"""Layers that keep the mean square of their input, so that depth neither inflates nor starves signals and gradients.

The idea is EDM2's (Karras et al. 2024, arXiv 2312.02696): weights of unit norm per output, activations rescaled to unit
mean square, sums renormalized, one normalization per block over the channels of a pixel, and no biases. With
independent inputs of unit mean square each layer returns unit mean square. Scale is learned in two places only, the
head and the modulation by the embedding, and both start at zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones import backbone
from diffusion.backbones.layers import attend, pixel_norm, upsample

# 1/sqrt(E[silu(z)^2]) for standard normal z.
SILU_SCALE = 1 / 0.596468

# How much faster than a unit layer a free one moves, as it has further to go: it starts at zero.
ZERO_SCALE = 3.0

# Share of the residual branch in a sum, before renormalization.
RESIDUAL_WEIGHT = 0.3
RESIDUAL_SCALE, SHORTCUT_SCALE = (
    s / math.hypot(RESIDUAL_WEIGHT, 1 - RESIDUAL_WEIGHT) for s in (RESIDUAL_WEIGHT, 1 - RESIDUAL_WEIGHT)
)


class ScaledConv(nn.Module):
    """What the two kinds of layer share: a convolution (or with kernel 0 a linear layer) whose weight is stored in
    units of scale / sqrt(fan-in).

    One learning rate then means the same to every layer, whatever its size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, *(kernel, kernel) if kernel else ()))
        self.scale = scale / math.sqrt(self.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W), or (B, inputs) -> (B, outputs) for kernel 0."""
        weight = self.weight * self.scale
        return F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding=self.padding)


class UnitConv(ScaledConv):
    """A convolution whose weight has unit norm for every output channel, times `scale`.

    `project_` restores the norm after a step of the optimizer. The gradient is not made tangent to the sphere first:
    what it has along the weight is taken back by the projection.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, *, scale: float = 1.0) -> None:
        super().__init__(inputs, outputs, kernel, scale)
        nn.init.normal_(self.weight)
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        """Rescales the stored weight to unit mean square per output."""
        self.weight.mul_(self.weight.square().mean(list(range(1, self.weight.ndim)), keepdim=True).rsqrt())


class ZeroConv(ScaledConv):
    """A convolution that starts at zero and whose scale is free to grow."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, ZERO_SCALE)


def project_(network: nn.Module) -> None:
    """Rescales every weight of unit norm within a network; see `UnitConv.project_`."""
    for module in network.modules():
        if isinstance(module, UnitConv):
            module.project_()


def conv(inputs: int, outputs: int) -> UnitConv:
    """The 3x3 convolution at the network's entrance."""
    return UnitConv(inputs, outputs, 3)


class Block(backbone.ResidualBlock):
    """A residual block of two 3x3 convolutions, modulated by the embedding, with attention after it where `heads` > 0.

    The scale of the activation and of the residual sum is folded into the convolutions: scaling costs no pass over
    memory.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, *, heads: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.shortcut = UnitConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = ZeroConv(embedding, outputs)
        self.first = UnitConv(outputs, outputs, 3, scale=SILU_SCALE)
        self.second = UnitConv(outputs, outputs, 3, scale=SILU_SCALE * RESIDUAL_SCALE)
        self.dropout = dropout
        self.heads = heads
        if heads:
            self.qkv = UnitConv(outputs, 3 * outputs, 1)
            self.proj_out = UnitConv(outputs, outputs, 1, scale=RESIDUAL_SCALE)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, embedding) -> (B, outputs, H, W)."""
        x = pixel_norm(self.shortcut(x))
        modulation = self.modulation(embedding) + 1
        y = self.first(F.silu(x)) * modulation[:, :, None, None].to(x.dtype)
        y = F.dropout(F.silu(y), self.dropout, self.training)
        x = torch.add(self.second(y), x, alpha=SHORTCUT_SCALE)
        if self.heads:
            y = self.proj_out(attend(self.qkv(x), self.heads, normalize=True))
            x = torch.add(y, x, alpha=SHORTCUT_SCALE)
        return x


class Join(nn.Module):
    """The sum of what comes up from the coarser level and what the encoder put out, either at half the power.

    The widths are matched at the coarse resolution, a quarter of the pixels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = UnitConv(inputs, outputs, 1, scale=0.5**0.5)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W), (B, outputs, H or 2H, W or 2W) -> the shape of the skip."""
        x = self.up(x)
        return torch.add(x if x.shape == skip.shape else upsample(x), skip, alpha=0.5**0.5)


class Head(nn.Module):
    """The last convolution, the one layer of free scale. It starts at zero: an untrained network predicts F = 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ZeroConv(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        y: Tensor = self.conv(pixel_norm(x))
        return y
