"""The network of guided-diffusion as its paper and the names of its tensors define it, evaluated on such tensors.

Written for tests, layer by layer and head by head, so that it shares nothing with the network that it is compared with.
Tensors that are missing are drawn as they are met: the first evaluation makes a model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.exchange.adm_flags import Flags


class Guided:
    """A network with flags, of so many channels and classes, in the dtype and on the device of its input."""

    def __init__(self, flags: Flags, channels: int = 3, classes: int = 0, seed: int = 0) -> None:
        self.flags, self.channels, self.classes = flags, channels, classes
        self.tensors: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, device: str = "cpu") -> dict[str, Tensor]:
        """Makes all tensors, in float32, and returns them; on the device "meta" they have shapes alone."""
        side = 2 ** (len(self.flags.multiples) - 1)
        x = torch.zeros(1, self.channels, side, side, device=device)
        self(x, torch.zeros(1, device=device), torch.zeros(1, dtype=torch.int64, device=device))
        return self.tensors

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x: (B, C, H, W); t: (B,), timesteps; label: (B,). Returns (B, C or 2C, H, W)."""
        flags, width = self.flags, self.flags.num_channels
        told = self._linear("time_embed.0", _waves(t, width).to(x), 4 * width)
        told = self._linear("time_embed.2", F.silu(told), 4 * width)
        if self.classes:
            told = told + self._get("label_emb.weight", x, self.classes, 4 * width)[label]
        levels = [*zip(flags.widths, flags.attending, strict=True)]
        h = self._convolution("input_blocks.0.0", x, levels[0][0])
        kept, number = [h], 1
        for level, (wide, attends) in enumerate(levels):
            for _ in range(flags.num_res_blocks):
                h = self._block(f"input_blocks.{number}", h, told, wide, attends)
                kept.append(h)
                number += 1
            if level < len(levels) - 1:
                h = self._down(f"input_blocks.{number}.0", h, told)
                kept.append(h)
                number += 1
        h = self._residual("middle_block.0", h, told, levels[-1][0])
        h = self._attention("middle_block.1", h)
        h = self._residual("middle_block.2", h, told, levels[-1][0])
        number = 0
        for level, (wide, attends) in reversed([*enumerate(levels)]):
            for block in range(flags.num_res_blocks + 1):
                h = self._block(f"output_blocks.{number}", torch.cat([h, kept.pop()], 1), told, wide, attends)
                if level and block == flags.num_res_blocks:
                    h = self._up(f"output_blocks.{number}.{1 + attends}", h, told)
                number += 1
        h = F.silu(self._norm("out.0", h))
        return self._convolution("out.2", h, self.channels * (1 + flags.learn_sigma))

    def _get(self, name: str, like: Tensor, *shape: int) -> Tensor:
        if name not in self.tensors:
            if like.device.type == "meta":
                self.tensors[name] = torch.empty(shape, device="meta")
            else:
                scale = 0.3 if len(shape) == 1 else (shape[1] * math.prod(shape[2:])) ** -0.5
                self.tensors[name] = scale * torch.randn(shape, generator=self._generator)
        return self.tensors[name].to(like)

    def _linear(self, name: str, x: Tensor, outputs: int) -> Tensor:
        return x @ self._get(f"{name}.weight", x, outputs, x.shape[1]).T + self._get(f"{name}.bias", x, outputs)

    def _convolution(self, name: str, x: Tensor, outputs: int, side: int = 3, stride: int = 1) -> Tensor:
        weight = self._get(f"{name}.weight", x, outputs, x.shape[1], side, side)
        return F.conv2d(x, weight, self._get(f"{name}.bias", x, outputs), stride, side // 2)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        groups = x.unflatten(1, (32, -1)).flatten(2)
        variance, mean = torch.var_mean(groups, 2, unbiased=False, keepdim=True)
        y = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        weight, bias = (self._get(f"{name}.{kind}", x, x.shape[1]) for kind in ("weight", "bias"))
        return y * weight[:, None, None] + bias[:, None, None]

    def _block(self, name: str, h: Tensor, told: Tensor, width: int, attends: bool) -> Tensor:
        h = self._residual(f"{name}.0", h, told, width)
        return self._attention(f"{name}.1", h) if attends else h

    def _residual(self, name: str, h: Tensor, told: Tensor, width: int, factor: float = 1) -> Tensor:
        """A residual block; a factor of 2 or ½ changes the resolution after the first activation, and of the skip."""
        a = F.silu(self._norm(f"{name}.in_layers.0", h))
        h, a = _resampled(h, factor), _resampled(a, factor)
        a = self._convolution(f"{name}.in_layers.2", a, width)
        rows = 2 * width if self.flags.use_scale_shift_norm else width
        change = self._linear(f"{name}.emb_layers.1", F.silu(told), rows)[:, :, None, None]
        if self.flags.use_scale_shift_norm:
            a = self._norm(f"{name}.out_layers.0", a) * (1 + change[:, :width]) + change[:, width:]
        else:
            a = self._norm(f"{name}.out_layers.0", a + change)
        a = self._convolution(f"{name}.out_layers.3", F.silu(a), width)
        return a + (h if h.shape[1] == width else self._convolution(f"{name}.skip_connection", h, width, 1))

    def _down(self, name: str, h: Tensor, told: Tensor) -> Tensor:
        if self.flags.resblock_updown:
            return self._residual(name, h, told, h.shape[1], 0.5)
        return self._convolution(f"{name}.op", h, h.shape[1], stride=2)

    def _up(self, name: str, h: Tensor, told: Tensor) -> Tensor:
        if self.flags.resblock_updown:
            return self._residual(name, h, told, h.shape[1], 2)
        return self._convolution(f"{name}.conv", _resampled(h, 2), h.shape[1])

    def _attention(self, name: str, h: Tensor) -> Tensor:
        width, head = h.shape[1], self.flags.num_head_channels
        heads = self.flags.num_heads if head == -1 else width // head
        dim = width // heads
        weight = self._get(f"{name}.qkv.weight", h, 3 * width, width, 1)[:, :, 0]
        bias = self._get(f"{name}.qkv.bias", h, 3 * width)
        rows = weight @ self._norm(f"{name}.norm", h).flatten(2) + bias[:, None]
        found = []
        for number in range(heads):
            if self.flags.use_new_attention_order:
                # All queries come first, then all keys.
                begins = [(part * heads + number) * dim for part in range(3)]
            else:
                # Queries, keys and values of one head after the other.
                begins = [(3 * number + part) * dim for part in range(3)]
            q, k, v = (rows[:, begin : begin + dim] for begin in begins)
            found.append(v @ (q.mT @ k / math.sqrt(dim)).softmax(-1).mT)
        weight = self._get(f"{name}.proj_out.weight", h, width, width, 1)[:, :, 0]
        bias = self._get(f"{name}.proj_out.bias", h, width)
        return h + (weight @ torch.cat(found, 1) + bias[:, None]).reshape(h.shape)


def _waves(t: Tensor, count: int) -> Tensor:
    """Cosines, then sines, of a time at `count`/2 frequencies from 1 to almost 1/10,000, in float32."""
    half = count // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


def _resampled(h: Tensor, factor: float) -> Tensor:
    """The means of blocks of 2x2 pixels, or every pixel as such a block."""
    if factor == 2:
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return h if factor == 1 else h.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
