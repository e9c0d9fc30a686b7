"""Group normalization of channels-last tensors on CPUs, where torch's own is slow.

In this layout the channels of a group that lie side by side are few, and torch goes through them run by run, which
takes up to 25 times as long as in the other layout. Here sums over pixels are sums over the columns of a matrix, in
float32 or better.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# From so many pixels on torch's forward pass, unlike the backward pass, reads memory in its order.
IN_ORDER = 1024
# Runs of at least so many channels are fast, and below so many runs the calls below take longer than all of them: in
# types of at least 4 bytes, and in shorter ones, which torch converts within each run.
LONG, MANY, MANY_SHORT = 16, 2**15, 2**13


class GroupNorm(nn.GroupNorm):
    """Group normalization with weights and biases, which is that of torch for everything but speed."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, *). Returns the same shape and layout."""
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not _has_many_runs(x, self.num_groups):
            return super().forward(x)
        y: Tensor = _ChannelsLast.apply(x, self.weight, self.bias, self.num_groups, self.eps)[0]
        return y


def _has_many_runs(x: Tensor, groups: int) -> bool:
    """Whether torch would take long for an input, by the runs of the channels of a group in it."""
    if x.ndim != 4 or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    if not torch.is_grad_enabled() and x.shape[2] * x.shape[3] >= IN_ORDER:
        return False
    run = x.shape[1] // groups
    return run < LONG and x.numel() // run >= (MANY if x.dtype.itemsize >= 4 else MANY_SHORT)


class _ChannelsLast(torch.autograd.Function):
    """y = w (x - m) r + b, with the mean m and the inverse deviation r of each group, both (B, groups, 1)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        (batch, channels), pixels = x.shape[:2], x.shape[2:].numel()
        if pixels >= IN_ORDER:
            y, mean, inverse = torch.native_group_norm(x, weight, bias, batch, channels, pixels, groups, eps)
            return y, mean[..., None], inverse[..., None]
        values = _columns(x)
        mean, inverse = _moments(values, groups, eps)
        scale = weight.view(groups, -1) * inverse
        shift = bias.view(groups, -1) - mean * scale
        y = torch.addcmul(shift.view(batch, 1, -1), values, scale.view(batch, 1, -1))
        return _image(y, x), mean, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
        x, weight, _, ctx.groups, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """With h = (x - m) r and means ⟨⟩ over a group: ∂x = r (w g - ⟨w g⟩ - h ⟨w g h⟩), ∂w = Σ g h, ∂b = Σ g."""
        x, weight, mean, inverse = ctx.saved_tensors
        groups, batch = ctx.groups, len(x)
        values, given = _columns(x), _columns(gradient)
        if torch.is_grad_enabled():  # Where this pass is differentiated itself, the moments are functions of x.
            mean, inverse = _moments(values, groups, ctx.eps)
        weight = weight.view(groups, -1)
        sums = given.sum(1).view(batch, groups, -1)
        products = ((given * values).sum(1).view(batch, groups, -1) - mean * sums) * inverse
        count = values[0].numel() / groups
        level, slope = ((weight * part).sum(2, keepdim=True) / count for part in (sums, products))
        slope = slope * inverse
        factor = (-slope * inverse).expand_as(sums).reshape(batch, 1, -1)
        constant = ((mean * slope - level) * inverse).expand_as(sums).reshape(batch, 1, -1)
        of_x = torch.addcmul(constant, values, factor)
        of_x = of_x.addcmul(given, (weight * inverse).view(batch, 1, -1))
        return _image(of_x, x), products.sum(0).flatten(), sums.sum(0).flatten(), None, None


def _columns(x: Tensor) -> Tensor:
    """x (B, C, H, W) as (B, pixels, C), in float32 or better."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).to(torch.promote_types(x.dtype, torch.float32))


def _image(values: Tensor, like: Tensor) -> Tensor:
    """(B, pixels, C) in the shape, layout and dtype of `like` (B, C, H, W)."""
    return values.to(like.dtype).permute(0, 2, 1).view_as(like)


def _moments(values: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """The mean of each group and the inverse of its standard deviation, (B, groups, 1), of values (B, pixels, C)."""
    batch, count = values.shape[0], values[0].numel() / groups
    sums = values.sum(1), (values * values).sum(1)
    mean, square = (part.view(batch, groups, -1).sum(2, keepdim=True) / count for part in sums)
    return mean, ((square - mean * mean).clamp_min(0) + eps).rsqrt()
