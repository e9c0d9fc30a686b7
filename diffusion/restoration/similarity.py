"""The structural similarity of two images, SSIM (Wang et al. 2004, IEEE Trans. Image Process. 13, 600-612)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Their Gaussian window of 11x11 pixels, and their constants for values in [0, 1] (section III.B, eq. 12).
SIDE, SIGMA = 11, 1.5
MEANS, CONTRASTS = 0.01**2, 0.03**2


def ssim(x: Tensor, truth: Tensor) -> Tensor:
    """Returns the mean of their eq. 13 over the positions of the window and over channels: (B,).

    Images are (B, C, H, W) in [0, 1], of at least 11x11 pixels.
    """
    line = torch.exp(-(torch.arange(SIDE, dtype=x.dtype) - SIDE // 2).square() / (2 * SIGMA**2))
    window = (torch.outer(line, line) / line.sum() ** 2).to(x.device)[None, None]

    def local(v: Tensor) -> Tensor:
        means = F.conv2d(v.flatten(0, 1)[:, None], window)
        return means.reshape(*v.shape[:2], *means.shape[-2:])

    a, b = local(x), local(truth)
    products = local(x * x) - a * a, local(truth * truth) - b * b, local(x * truth) - a * b
    index = (2 * a * b + MEANS) * (2 * products[2] + CONTRASTS)
    index = index / ((a * a + b * b + MEANS) * (products[0] + products[1] + CONTRASTS))
    return index.flatten(1).mean(1)
