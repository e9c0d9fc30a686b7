"""What both U-Net designs share: resampling and attention, written for channels-last tensors."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


def downsample(x: Tensor) -> Tensor:
    """Mean over 2x2 blocks: (B, C, 2H, 2W) -> (B, C, H, W)."""
    return F.avg_pool2d(x, 2)


def upsample(x: Tensor) -> Tensor:
    """Nearest neighbor: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def attend(qkv: Tensor, heads: int, *, normalize: bool) -> Tensor:
    """Self-attention over pixels: (B, 3C, H, W) -> (B, C, H, W), the channels ordered (query/key/value, head, channel).

    With `normalize` queries, keys and values have unit mean square, which bounds the logits and keeps the scale of the
    values (Karras et al. 2024, arXiv 2312.02696, section 2.3).
    """
    height = qkv.shape[-2]
    q, k, v = rearrange(qkv, "b (three heads c) h w -> three b heads (h w) c", three=3, heads=heads)
    if normalize:
        q, k, v = (unit_rms(z, dim=-1) for z in (q, k, v))
    # On CPUs the fused kernel's backward pass is slower than two plain matrix products in the autocast precision.
    y = (
        F.scaled_dot_product_attention(q, k, v)
        if q.is_cuda
        else (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).to(v.dtype) @ v
    )
    return rearrange(y, "b heads (h w) c -> b (heads c) h w", h=height)


def unit_rms(x: Tensor, dim: int | list[int], eps: float = 1e-4) -> Tensor:
    """x divided by its root mean square over `dim`; the norm is taken in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    square = x.to(dtype).square().mean(dim, keepdim=True)
    return x * (square + eps**2).rsqrt().to(x.dtype)


def pixel_norm(x: Tensor) -> Tensor:
    """Mean zero and unit mean square over the channels of every pixel; one fused pass on channels-last tensors, (B,
    C, H, W).
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


def zero(module: nn.Module) -> nn.Module:
    """The module with all its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
