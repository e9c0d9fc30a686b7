"""Patches of a Laplacian pyramid, which describe an image at several scales without a trained network.

The pyramid (Burt & Adelson 1983, IEEE Trans. Commun. 31, 532-540) halves an image until its smaller side is at most 16
pixels. Every level but the last holds what the next one lacks; the last is the small image itself. Patches of 7x7
pixels of all levels are compared, normalized by channel and level (Karras et al. 2018, arXiv 1710.10196, section 5).

Two things differ from theirs. The places of the patches are a hash of the pixels, so that an image has the same patches
in any order, batch and set. And both sets are normalized together, where theirs are normalized each by itself: so a
difference in brightness or contrast counts.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import range_hint, require
from diffusion.randomness import example_seed

SIDE, COARSEST = 7, 16
# The binomial filter of the pyramid.
FILTER = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
# The images that are described at once, which bounds the memory.
BLOCK = 256
# Odd constants of the finalizer of SplitMix64 (Steele, Lea & Flood 2014), as signed numbers.
MIX = (-4658895280553007687, -7723592293110705685)
STEP = -7046029254386353131


def check_images(images: Tensor) -> None:
    """Raises InputError unless images are (N, C, H, W) in [0, 1]."""
    require(images.ndim == 4 and images.numel(), "images", "of shape (N, C, H, W)", tuple(images.shape))
    require(images.is_floating_point(), "images", "of floats", images.dtype)
    least, most = map(float, images.aminmax())
    require(least >= 0 and most <= 1, "images", "in [0, 1]", f"{least:g} to {most:g}{range_hint(least, most)}")


def describe(images: Tensor, count: int, seed: int) -> Tensor:
    """Returns `count` patches of every image and level: (N, count, levels, C, values) for images (N, C, H, W).

    Raises InputError unless the images are in [0, 1].
    """
    check_images(images)
    return torch.cat([_describe(part, count, seed) for part in torch.split(images, BLOCK)])


def _describe(images: Tensor, count: int, seed: int) -> Tensor:
    hashes = content(images, seed)
    side = min(SIDE, *images.shape[2:])
    found = []
    for number, level in enumerate(pyramid(images)):
        draws = mixed(hashes[:, None] + STEP * (number * count + torch.arange(1, count + 1, device=images.device)))
        found.append(cut(level, draws, side))
    return torch.stack(found, 2)


def content(images: Tensor, seed: int) -> Tensor:
    """Returns a hash of the pixels of each image, as 8-bit values: (N,) int64, in arithmetic modulo 2^64."""
    generator = torch.Generator().manual_seed(example_seed(seed))
    factors = torch.randint(-(2**62), 2**62, images[0].shape, generator=generator).flatten().to(images.device)
    return mixed(((images * 255).round().long().flatten(1) * factors).sum(1))


def mixed(x: Tensor) -> Tensor:
    """Returns numbers (*) int64 whose bits all depend on all bits of x."""
    for shift, factor in zip((30, 27), MIX, strict=True):
        x = torch.bitwise_xor(x, _shifted(x, shift)) * factor
    return torch.bitwise_xor(x, _shifted(x, 31))


def _shifted(x: Tensor, shift: int) -> Tensor:
    """The bits of x moved to the right, with zeros from the left."""
    return torch.bitwise_and(x >> shift, 2 ** (64 - shift) - 1)


def cut(level: Tensor, draws: Tensor, side: int) -> Tensor:
    """Returns patches (N, P, C, side²) of a level (N, C, H, W), at places chosen by the random numbers `draws` (N, P).

    Where there are no more places than patches, the places take turns.
    """
    height, width = level.shape[2:]
    down, across = height - side + 1, width - side + 1
    if down * across <= draws.shape[1]:
        places = (torch.arange(draws.shape[1], device=level.device) % (down * across)).expand_as(draws)
    else:
        places = _shifted(draws, 32) % (down * across)
    line = torch.arange(side, device=level.device)
    inside = (line[:, None] * width + line).flatten()
    index = (places // across * width + places % across)[..., None] + inside
    flat = index.flatten(1)[:, None].expand(-1, level.shape[1], -1)
    values = level.flatten(2).gather(2, flat)
    return values.view(*values.shape[:2], *index.shape[1:]).transpose(1, 2)


def pyramid(images: Tensor) -> list[Tensor]:
    """Returns the levels (N, C, H_l, W_l) of images (N, C, H, W), the finest first."""
    levels = []
    while min(images.shape[2:]) > COARSEST:
        small = filtered(images)[..., ::2, ::2]
        levels.append(images - enlarged(small, images))
        images = small
    return [*levels, images]


def enlarged(small: Tensor, like: Tensor) -> Tensor:
    """Returns a small image at the size of the one that it was made of."""
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = small
    return 4 * filtered(spread)


def filtered(x: Tensor) -> Tensor:
    """Returns images (N, C, H, W) after the filter, mirrored at the borders."""
    for dim in (2, 3):
        wide = F.pad(x, (0, 0, 2, 2) if dim == 2 else (2, 2, 0, 0), mode="reflect")
        # Unlike convolutions and sums over a dimension, sums one after the other round alike in batches of any size.
        total = torch.zeros_like(x)
        for k, weight in enumerate(FILTER):
            total += weight * wide.narrow(dim, k, x.shape[dim])
        x = total
    return x


def normalized(rows: Tensor) -> Tensor:
    """Returns patches (N, P, L, C, V) with mean 0 and variance 1 in every channel of every level, as (L, N, P, C·V)."""
    var, mean = torch.var_mean(rows.double(), (0, 1, 4), correction=0, keepdim=True)
    scale = torch.where(var > 0, var, 1.0).rsqrt()
    return ((rows - mean.to(rows.dtype)) * scale.to(rows.dtype)).movedim(2, 0).flatten(3)
