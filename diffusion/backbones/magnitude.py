"""Magnitude-preserving layers, which keep the mean square of their input: signals and gradients neither grow nor shrink
with depth.

The design follows EDM2 (Karras et al. 2024, arXiv 2312.02696): weights of unit norm per output channel, activations
rescaled to unit mean square, renormalized sums, one normalization per block over the channels of a pixel, and no
biases. With independent inputs of unit mean square each layer returns unit mean square. A scale is learned in two
places only, the head and the modulation by the embedding, and both are zero-initialized.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones import backbone
from diffusion.backbones.layers import attend, modulated, pixel_norm, upsample

# 1/√E[silu(z)²] for standard normal z.
SILU_SCALE = 1 / 0.596468

# A zero-initialized layer has further to go than a layer of unit norm: one optimizer step moves its weights this many
# times further.
ZERO_SCALE = 3.0

# The weight of the residual branch in a sum with its shortcut, before renormalization.
RESIDUAL_WEIGHT = 0.3
RESIDUAL_SCALE, SHORTCUT_SCALE = (
    s / math.hypot(RESIDUAL_WEIGHT, 1 - RESIDUAL_WEIGHT) for s in (RESIDUAL_WEIGHT, 1 - RESIDUAL_WEIGHT)
)


class ScaledConv(nn.Module):
    """A convolution, or for kernel 0 a linear layer, whose weight is stored in units of scale / √fan-in.

    In these units one learning rate means the same to layers of any size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, *(kernel, kernel) if kernel else ()))
        self.scale = scale / math.sqrt(self.weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W), or (B, inputs) for kernel 0. Returns (B, outputs, H, W) or (B, outputs)."""
        weight = self.weight * self.scale
        return F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding=self.padding)


class UnitConv(ScaledConv):
    """A convolution whose weight has unit norm for every output channel, times `scale`.

    `project_` restores the norm after an optimizer step. The gradient is not made tangent to the sphere first: the
    projection undoes its component along the weight.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, *, scale: float = 1.0) -> None:
        super().__init__(inputs, outputs, kernel, scale)
        nn.init.normal_(self.weight)
        self.project_()

    @torch.no_grad()
    def project_(self) -> None:
        """Rescales the stored weight to unit mean square per output channel."""
        self.weight.mul_(inverse_rms(self.weight))


def inverse_rms(weight: Tensor) -> Tensor:
    """Returns the inverse root mean square of a weight per output channel, with axes of 1 beside the first."""
    return weight.square().mean(list(range(1, weight.ndim)), keepdim=True).rsqrt()


class ZeroConv(ScaledConv):
    """A zero-initialized convolution whose scale is learned."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, ZERO_SCALE)


def conv(inputs: int, outputs: int) -> UnitConv:
    """Returns the 3x3 convolution at the input of the network."""
    return UnitConv(inputs, outputs, 3)


class Block(backbone.ResidualBlock):
    """A residual block of two 3x3 convolutions, modulated by the embedding and followed by attention if `heads` > 0.

    The scales of the activations and of the residual branches are folded into the convolutions, so that scaling costs
    no pass over memory.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, *, heads: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.shortcut = UnitConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.modulation = ZeroConv(embedding, outputs)
        self.first = UnitConv(outputs, outputs, 3, scale=SILU_SCALE)
        self.second = UnitConv(outputs, outputs, 3, scale=SILU_SCALE * RESIDUAL_SCALE)
        self.dropout, self.draws = dropout, dropout > 0
        self.heads = heads
        if heads:
            self.qkv = UnitConv(outputs, 3 * outputs, 1)
            self.proj_out = UnitConv(outputs, outputs, 1, scale=RESIDUAL_SCALE)

    def forward(self, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """x: (B, inputs, H, W); embedding: (B, E), or (2B, E) with share (B, 1, H, W). Returns (B, outputs, H, W)."""
        x = pixel_norm(self.shortcut(x))
        y = modulated(self.first(F.silu(x)), (self.modulation(embedding) + 1).to(x.dtype), share)
        y = F.dropout(F.silu(y), self.dropout, self.training)
        x = torch.add(self.second(y), x, alpha=SHORTCUT_SCALE)
        if self.heads:
            y = self.proj_out(attend(self.qkv(x), self.heads, normalize=True))
            x = torch.add(y, x, alpha=SHORTCUT_SCALE)
        return x


class Join(nn.Module):
    """Adds the output of the coarser stage, upsampled, to the skip from the encoder, each at half the power.

    A 1x1 convolution matches the widths at the coarse resolution, a quarter of the pixels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = UnitConv(inputs, outputs, 1, scale=0.5**0.5)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (B, inputs, H, W); skip: (B, outputs, H or 2H, W or 2W). Returns the shape of the skip."""
        x = self.up(x)
        return torch.add(x if x.shape == skip.shape else upsample(x), skip, alpha=0.5**0.5)


class Head(nn.Module):
    """The last convolution, zero-initialized and of learned scale: an untrained network predicts F = 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ZeroConv(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs, H, W). Returns (B, outputs, H, W)."""
        y: Tensor = self.conv(pixel_norm(x))
        return y
