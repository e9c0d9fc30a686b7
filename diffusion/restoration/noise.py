"""The level of the noise on one image, from the image alone.

Patches of clean images lie near a subspace. White noise adds its variance σ² to all eigenvalues of their covariance,
so that the smallest ones, beyond that subspace, scatter about σ². Chen, Zhu and Heng (2015, ICCV, An Efficient
Statistical Method for Image Noise Level Estimation, algorithm 1) take away the largest eigenvalues one by one, until
the mean of the rest is their median.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import InputError

# The sides of patches, the first of which leaves at least so many patches for each of their values.
SIDES, PATCHES_PER_VALUE = (8, 7, 6, 5, 4, 3), 8
# At most so many patches, evenly spread, are looked at: the error of an eigenvalue is below a percent.
MOST_PATCHES = 1 << 16


def estimate_noise(image: Tensor) -> float:
    """Estimates the standard deviation of white noise on an image (C, H, W), in the units of the image.

    Noise that was clipped at 0 or 1 has lost a part of its variance: patches that touch them are left out where enough
    others remain. What a compression removed is not seen: a JPEG has less noise than was there before it.

    Raises InputError for an image that is too small to tell.
    """
    for side in SIDES:
        found = patches(image.double(), side)
        inner = found[((found > 0) & (found < 1)).all(1)]
        values = found.shape[1]
        enough = [each for each in (inner, found) if len(each) >= PATCHES_PER_VALUE * values]
        if enough:
            eigenvalues = torch.linalg.eigvalsh(torch.cov(enough[0].mT)).clamp_min(0)
            return float(_least(eigenvalues).sqrt())
    raise InputError(
        f"noise: cannot be estimated from an image of {image.shape[-1]}x{image.shape[-2]} pixels; say with --noise "
        "(noise= in Python) what it is"
    )


def patches(image: Tensor, side: int) -> Tensor:
    """Returns square patches of an image (C, H, W), at most MOST_PATCHES and evenly spread: (N, C side²)."""
    height, width = (length - side + 1 for length in image.shape[-2:])
    if min(height, width) < 1:
        return image.new_zeros(0, image.shape[0] * side * side)
    stride = 1
    while (-(-height // stride)) * (-(-width // stride)) > MOST_PATCHES:
        stride += 1
    return F.unfold(image[None], side, stride=stride)[0].mT


def _least(eigenvalues: Tensor) -> Tensor:
    """Returns the mean of the smallest eigenvalues, (r,) in ascending order, as many as have it as their median."""
    for count in range(len(eigenvalues), 0, -1):
        rest = eigenvalues[:count]
        mean = rest.mean()
        if int((rest > mean).sum()) >= int((rest < mean).sum()):
            return mean
    return eigenvalues[0]
