"""Layers of both designs of the U-Net: resampling, attention and normalization, written for channels-last tensors."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


def downsample(x: Tensor) -> Tensor:
    """Takes the mean over blocks of 2x2 pixels: (B, C, 2H, 2W) -> (B, C, H, W)."""
    return F.avg_pool2d(x, 2)


def upsample(x: Tensor) -> Tensor:
    """Repeats every pixel in a block of 2x2: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def padded(x: Tensor, multiple: int) -> Tensor:
    """Returns x (B, C, H, W) with copies of its last row and column, up to sides that are multiples of a number."""
    down, right = (-side % multiple for side in x.shape[-2:])
    # On GPUs the gradient of this sums in no fixed order.
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def modulated(y: Tensor, scale: Tensor, share: Tensor | None, shift: Tensor | None = None) -> Tensor:
    """Returns y (B, C, H, W) times a scale (B, C), plus a shift (B, C) if there is one.

    With `share` (B, 1, H, W) there are two of each, (2B, C), and each pixel is this far from the first to the second.
    """
    if shift is None:
        return y * _by_pixel(scale, share)
    return torch.addcmul(_by_pixel(shift, share), y, _by_pixel(scale, share))


def _by_pixel(values: Tensor, share: Tensor | None) -> Tensor:
    """Values (B, C) for all pixels, (B, C, 1, 1); or from (2B, C), by share (B, 1, H, W), those of each pixel."""
    if share is None:
        return values[:, :, None, None]
    values, count = values[:, None, None, :], share.shape[0]
    first, second = values[:count], values[count:]
    # Laid out as the activations, channels last; in another layout products with them take several times as long.
    return torch.lerp(first, second, share.to(values.dtype).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def attend(qkv: Tensor, heads: int, *, normalize: bool) -> Tensor:
    """Applies self-attention over pixels: (B, 3C, H, W) -> (B, C, H, W).

    The channels of `qkv` are ordered (query/key/value, head, channel). With `normalize`, queries, keys and values are
    brought to mean zero and unit mean square over the channels of a head, which bounds the logits and keeps the scale
    of the values (after Karras et al. 2024, arXiv 2312.02696, section 2.3).
    """
    height = qkv.shape[-2]
    z = rearrange(qkv, "b (three heads c) h w -> b (h w) three heads c", three=3, heads=heads)
    z = unit_norm(z) if normalize else z
    q, k, v = rearrange(z, "b n three heads c -> three b heads n c")
    # On CPUs the fused kernel's backward pass takes four times as long as two plain matrix products.
    y = F.scaled_dot_product_attention(q, k, v) if q.is_cuda else (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v
    return rearrange(y, "b heads (h w) c -> b (heads c) h w", h=height)


def unit_norm(x: Tensor) -> Tensor:
    """Brings x to mean zero and unit mean square over the last dimension, in the precision of x and one fused pass."""
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, x.shape[-1:])


def pixel_norm(x: Tensor) -> Tensor:
    """Brings the channels of every pixel of channels-last tensors (B, C, H, W) to mean zero and unit mean square."""
    return unit_norm(x.movedim(1, -1)).movedim(-1, 1)


def zero(module: nn.Module) -> nn.Module:
    """Sets all parameters of a module to zero and returns the module."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
