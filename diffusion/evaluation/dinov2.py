"""DINOv2, a vision transformer that learned without labels (Oquab et al. 2023, arXiv 2304.07193), whose features judge
images nearer to how people do than those of Inception (Stein et al. 2023, arXiv 2306.04675).

An image is cut into patches of 14x14 pixels, each of which becomes a token, and one more token stands for the whole:

    z ← z + γ₁ attention(norm(z)),    z ← z + γ₂ mlp(norm(z))    in every block,

with learned scales γ of the channels. The features are the last token of the whole, normalized. Names and shapes of
weights are those of the files that its authors publish, for the sizes S, B and L without registers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.errors import require

PATCH, HEAD, SIDE = 14, 64, 224
# Mean and standard deviation of the colors, in [0, 1], on which it was trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Positions are interpolated as if there were so much more than a whole number of patches, as its authors do.
OFFSET = 0.1
EPSILON = 1e-6


class Attention(nn.Module):
    """Attention between all tokens (B, N, D), in heads of 64 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, z: Tensor) -> Tensor:
        """Returns what each token takes from all."""
        q, k, v = self.qkv(z).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Perceptron(nn.Module):
    """Two linear layers on every token, with four times the channels between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, z: Tensor) -> Tensor:
        """Returns tokens of the same shape."""
        changed: Tensor = self.fc2(F.gelu(self.fc1(z)))
        return changed


class Scale(nn.Module):
    """A learned scale of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, z: Tensor) -> Tensor:
        """Returns the scaled tokens."""
        return z * self.gamma


class Block(nn.Module):
    """A block of the transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attn, self.mlp = Attention(width), Perceptron(width)
        self.ls1, self.ls2 = Scale(width), Scale(width)

    def forward(self, z: Tensor) -> Tensor:
        """Returns tokens of the same shape."""
        z = z + self.ls1(self.attn(self.norm1(z)))
        changed: Tensor = z + self.ls2(self.mlp(self.norm2(z)))
        return changed


class Dinov2(nn.Module):
    """The features (B, width) of images (B, 3, H, W) uint8, which are resized to 224x224 by cubic interpolation with a
    filter, each side by itself.

    `grid` is the number of positions that were learned, on each side.
    """

    def __init__(self, width: int, depth: int, grid: int = 37) -> None:
        super().__init__()
        self.width = width
        self.cls_token, self.mask_token = (nn.Parameter(torch.zeros(*shape, width)) for shape in ((1, 1), (1,)))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], where: str) -> Dinov2:
        """An unloaded network of the size that weights have. Raises InputError for weights of no such network."""
        width = weights["cls_token"].shape[-1] if "cls_token" in weights else 0
        positions = weights["pos_embed"].shape[-2] - 1 if "pos_embed" in weights else 0
        depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        grid = math.isqrt(max(0, positions))
        rule = "weights of DINOv2 S, B or L without registers, as its authors publish them"
        found = f"{depth} blocks of {width} channels and {positions} positions"
        require(depth and width and width % HEAD == 0 and grid and grid**2 == positions, where, rule, found)
        return cls(width, depth, grid)

    def forward(self, images: Tensor) -> Tensor:
        """Resizes and standardizes images, and returns their features."""
        x = F.interpolate(images.float() / 255, (SIDE, SIDE), mode="bicubic", antialias=True)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        patches = self.patch_embed["proj"]((x - mean) / std).flatten(2).transpose(1, 2)
        z = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1) + self.positions(SIDE // PATCH)
        for block in self.blocks:
            z = block(z)
        features: Tensor = self.norm(z)[:, 0]
        return features

    def positions(self, side: int) -> Tensor:
        """The learned positions for side x side patches, after that of the whole: (1, 1 + side², width)."""
        whole, learned = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = math.isqrt(learned.shape[1])
        if grid == side:
            return self.pos_embed
        square = learned.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        scaled = F.interpolate(square, scale_factor=((side + OFFSET) / grid,) * 2, mode="bicubic")
        return torch.cat([whole, scaled.flatten(2).transpose(1, 2)], 1)
