"""The blocks of diffusers' `UNet2DModel`, whose tensors have their names there, written for channels-last tensors.

What blocks are given as embedding has gone through the activation, which each of them would apply to it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.backbone import ResidualBlock
from diffusion.backbones.layers import downsample, modulated, upsample, zero
from diffusion.backbones.normalization import GroupNorm
from diffusion.errors import require, require_one

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "relu": F.relu,
}
# Which of the 3x3 weights of a convolution come together in each of the 4x4 weights of a transposed one: (16, 9).
_ALONG = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
MERGED = torch.kron(_ALONG, _ALONG)
# Below so many pixels a transposed convolution gains nothing.
FEW = 64


@dataclass(frozen=True)
class Layers:
    """The options that all blocks share, under their names in config.json, and the width of the `embedding`."""

    embedding: int
    norm_num_groups: int
    norm_eps: float
    act_fn: str
    resnet_time_scale_shift: str
    attention_head_dim: int | None
    attention_heads: int | None
    dropout: float

    def __post_init__(self) -> None:
        require(self.norm_num_groups >= 1, "norm_num_groups", "at least 1", self.norm_num_groups)
        require(self.norm_eps > 0, "norm_eps", "a positive number", self.norm_eps)
        require_one(self.act_fn, "act_fn", ACTIVATIONS)
        require_one(self.resnet_time_scale_shift, "resnet_time_scale_shift", ("default", "scale_shift"))
        head = self.attention_head_dim
        require(head is None or head >= 1, "attention_head_dim", "at least 1", head)
        heads = self.attention_heads
        require(heads is None or heads >= 1, "attention_heads", "at least 1", heads)
        require(heads is None or head is None, "attention_head_dim", "none with attention_heads", head)
        require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)

    @property
    def act(self) -> Callable[[Tensor], Tensor]:
        """The activation."""
        return ACTIVATIONS[self.act_fn]

    def norm(self, channels: int, groups: int | None = None) -> nn.GroupNorm:
        """Returns a normalization of so many channels, in the usual number of groups or another one."""
        return GroupNorm(groups or self.norm_num_groups, channels, self.norm_eps)


class Resnet(ResidualBlock):
    """A residual block of two 3x3 convolutions, to which the embedding is added, or which it scales and shifts.

    With `resample` "down" or "up" both of its branches change the resolution. The sum is divided by `scale`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        layers: Layers,
        *,
        resample: str = "",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.act, self.resample, self.scale = layers.act, resample, scale
        self.dropout, self.draws = layers.dropout, layers.dropout > 0
        self.scale_shift = layers.resnet_time_scale_shift == "scale_shift"
        self.norm1, self.norm2 = layers.norm(inputs), layers.norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(layers.embedding, 2 * outputs if self.scale_shift else outputs)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """x: (B, inputs, H, W); embedding: (B, E). Returns (B, outputs, H', W'). There is no share of pixels."""
        y: Tensor = self.act(self.norm1(x))
        if self.resample == "down":
            x, y = downsample(x), downsample(y)
        convolve = upsampled if self.resample == "up" else convolved
        x = upsample(x) if self.resample == "up" else x
        change = self.time_emb_proj(embedding)
        if self.scale_shift:
            scale, shift = change.chunk(2, dim=1)
            y = modulated(self.norm2(convolve(y, self.conv1.weight, self.conv1.bias)), scale + 1, None, shift)
        else:
            # The bias is added with the embedding: its gradient then is no sum over pixels of its own.
            y = convolve(y, self.conv1.weight, None)
            y += (change + self.conv1.bias).to(y.dtype)[:, :, None, None]
            y = self.norm2(y)
        y = self.conv2(F.dropout(self.act(y), self.dropout, self.training))
        y += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return y if self.scale == 1 else y / self.scale


class Attention(ResidualBlock):
    """Self-attention over pixels, added to its input, in heads of `attention_head_dim` channels, or in
    `attention_heads` heads.

    What is left of the width where that does not divide it has no head. `groups` = 0 leaves the input as it is.
    """

    draws = False

    def __init__(self, width: int, layers: Layers, *, groups: int, scale: float = 1.0) -> None:
        super().__init__()
        head = layers.attention_head_dim or width // (layers.attention_heads or 1)
        self.heads, self.scale = width // head, scale
        inner = self.heads * head
        self.group_norm = layers.norm(width, groups) if groups else None
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner) for _ in range(3))
        self.to_out = nn.ModuleList([zero(nn.Linear(inner, width))])

    def forward(self, x: Tensor, embedding: Tensor, share: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W). Returns the same shape. The embedding is not needed."""
        y: Tensor = x if self.group_norm is None else self.group_norm(x)
        y = rearrange(y, "b c h w -> b (h w) c")
        projections = self.to_q, self.to_k, self.to_v
        weight, bias = torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections])
        q, k, v = rearrange(
            F.linear(y, weight, bias), "b n (three heads c) -> three b heads n c", three=3, heads=self.heads
        )
        y = self.to_out[0](rearrange(attention(q, k, v), "b heads n c -> b n (heads c)"))
        y = x + rearrange(y, "b (h w) c -> b c h w", h=x.shape[2])
        return y if self.scale == 1 else y / self.scale


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns the attention of queries, keys and values (B, heads, N, C): the values, weighted."""
    # In bf16 on CPUs two plain matrix products take two thirds of the time of the fused kernel, and a third of that of
    # its backward pass; in float32 the fused kernel is faster, as it is everywhere else.
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        y: Tensor = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v
        return y
    return F.scaled_dot_product_attention(q, k, v)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves x (B, C, H, W) with a 3x3 kernel, beyond zeros: (B, C', H, W)."""
    return F.conv2d(x, weight, bias, padding=1)


def upsampled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Repeats every pixel of x (B, C, H, W) in a block of 2x2, and convolves with a 3x3 kernel: (B, C', 2H, 2W)."""
    if x.device.type != "cpu" or x.shape[2:].numel() < FEW:
        return convolved(upsample(x), weight, bias)
    # Each pixel of the result sees 2x2 pixels of x: this is a transposed convolution, which has 4/9 of the products.
    kernel = (weight.flatten(2) @ MERGED.to(weight.dtype).T).view(*weight.shape[:2], 4, 4).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


class Downsample(nn.Module):
    """A 3x3 convolution of every other pixel. With `padding` 0 there are zeros below and to the right alone."""

    def __init__(self, width: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, 2H, 2W). Returns (B, C, H, W)."""
        y: Tensor = self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))
        return y


class Upsample(nn.Module):
    """Repeats every pixel in a block of 2x2, and convolves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns (B, C, 2H, 2W)."""
        return upsampled(x, self.conv.weight, self.conv.bias)


class Level(nn.Module):
    """The blocks of one resolution: residual blocks, each followed by attention if there is any, and what changes the
    resolution after them.
    """

    def __init__(
        self,
        resnets: Sequence[nn.Module],
        attentions: Sequence[nn.Module] = (),
        downsamplers: Sequence[nn.Module] = (),
        upsamplers: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions)
        self.downsamplers, self.upsamplers = nn.ModuleList(downsamplers), nn.ModuleList(upsamplers)

    def steps(self) -> Iterator[list[nn.Module]]:
        """Yields each residual block with its attention."""
        for layers in zip_longest(self.resnets, self.attentions):
            yield [layer for layer in layers if layer is not None]


def encoder(
    kinds: Sequence[str], channels: Sequence[int], layers: Layers, blocks: int, *, residual: bool, padding: int
) -> nn.ModuleList:
    """Returns the levels of the encoder; with `residual` those with attention too end in a residual block."""
    levels, width = nn.ModuleList(), channels[0]
    for level, (kind, outputs) in enumerate(zip(kinds, channels, strict=True)):
        inputs = [width, *[outputs] * (blocks - 1)]
        down: list[nn.Module] = []
        if level < len(channels) - 1:
            whole = _is_residual(kind, residual)
            down = [
                Resnet(outputs, outputs, layers, resample="down") if whole else Downsample(outputs, padding),
            ]
        levels.append(_level(kind, inputs, outputs, layers, down=down))
        width = outputs
    return levels


def decoder(
    kinds: Sequence[str], channels: Sequence[int], layers: Layers, blocks: int, *, residual: bool
) -> nn.ModuleList:
    """Returns the levels of the decoder, whose residual blocks receive the encoder's outputs, the last one first."""
    levels, widths = nn.ModuleList(), [*reversed(channels)]
    width = widths[0]
    for level, (kind, outputs) in enumerate(zip(kinds, widths, strict=True)):
        last = level == len(widths) - 1
        # The last skip of a level is what the level above it in the encoder ended with.
        skips = [*[outputs] * blocks, outputs if last else widths[level + 1]]
        inputs = [a + b for a, b in zip([width, *[outputs] * blocks], skips, strict=True)]
        up: list[nn.Module] = []
        if not last:
            whole = _is_residual(kind, residual)
            up = [Resnet(outputs, outputs, layers, resample="up") if whole else Upsample(outputs)]
        levels.append(_level(kind, inputs, outputs, layers, up=up))
        width = outputs
    return levels


def middle(width: int, layers: Layers, *, attends: bool, groups: int | None, scale: float) -> Level:
    """Returns the middle level: two residual blocks around attention, if it attends.

    Its attention is normalized in so many `groups`; where none are given, in those of the layers, but with scale and
    shift not at all.
    """
    usual = 0 if layers.resnet_time_scale_shift == "scale_shift" else layers.norm_num_groups
    chosen = usual if groups is None else groups
    attentions = [Attention(width, layers, groups=chosen, scale=scale)] if attends else []
    return Level([Resnet(width, width, layers, scale=scale) for _ in range(2)], attentions)


def _is_residual(kind: str, with_attention: bool) -> bool:
    """Whether a level of this kind changes the resolution within a residual block."""
    return kind.startswith("Resnet") or (with_attention and kind.startswith("Attn"))


def _level(
    kind: str,
    inputs: Sequence[int],
    outputs: int,
    layers: Layers,
    *,
    down: Sequence[nn.Module] = (),
    up: Sequence[nn.Module] = (),
) -> Level:
    resnets = [Resnet(width, outputs, layers) for width in inputs]
    count = len(inputs) if kind.startswith("Attn") else 0
    attentions = [Attention(outputs, layers, groups=layers.norm_num_groups) for _ in range(count)]
    return Level(resnets, attentions, down, up)
