"""A noise level for every pixel: the forward process may bring each pixel to a time of its own.

    q(x_t^i | x^i) = N(α(t^i) x^i, σ(t^i)²),    t^i the entry of a map t at pixel i

The KL divergence between the forward and the reverse trajectory is the same sum, pixel by pixel. A pixel that is known
exactly is one at the clean end, t^i = 0, and one known in noise σ_y is at the time whose log-SNR is -2 log σ_y. A
network that is told the map learns E[x | all of that], and restoration is then sampling (after Chen et al. 2024, arXiv
2407.01392, who give every frame of a sequence a noise level, and Wewer et al. 2025, arXiv 2502.21075, who give one to
every patch).

A map has the shape of x but for the channels, of which it has one: (B, 1, H, W) for images, (B, 1, P) for some of their
pixels; for points, (B, D), each coordinate has its own. Pixels of which nothing is observed have the time of the
trajectory, and those seen better than that an earlier one. A pixel that nobody has seen, not even in noise, has the
time `UNSEEN`: its x_t is that of the noisy end, of which networks are shown 0, and it has no part in the time of the
trajectory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.transfers import to_device

# The time of pixels that nobody has seen.
UNSEEN = math.inf


def is_map(t: Tensor, like: Tensor) -> bool:
    """Returns whether t is a map of times for x like `like` (B, *), rather than () or (B,)."""
    return t.ndim > 1 and t.ndim == like.ndim


def widened(t: Tensor) -> Tensor:
    """Returns times in float64, in which schedules are exact; a map on MPS, which has no float64, as it is."""
    return t if t.device.type == "mps" else t.double()


def seen(t: Tensor) -> Tensor:
    """Returns times within [0, 1]: those of unseen pixels are at the noisy end."""
    return t.clamp(max=1)


def shown(x: Tensor, t: Tensor) -> Tensor:
    """Returns what a network is shown of x (B, C, *) at t, times or a map: 0 in place of pixels that nobody has seen.

    Their x_t is noise of which nothing follows, and a network would have to learn to ignore it.
    """
    if not is_map(t, x):
        return x
    unseen = t == UNSEEN
    if unseen.device.type == "cpu" and not unseen.any():
        return x
    return torch.where(to_device(unseen, x.device), 0.0, x)


def of_trajectory(t: Tensor, like: Tensor) -> Tensor:
    """Returns the time of the trajectory, () or (B,): of a map the latest of the pixels that were seen, else 1.

    t: () or (B,) times, or a map for x like `like`.
    """
    if not is_map(t, like):
        return t
    latest = torch.where(t <= 1, t, -1.0).flatten(1).amax(1)
    return torch.where(latest < 0, 1.0, latest)


def relative(levels: Tensor, t: Tensor) -> Tensor:
    """Returns the map of times levels · t, for times t (B,) of trajectories, which may be on the CPU.

    `levels` (B, 1, *) are 1 for pixels at the time of the trajectory, 0 for those known exactly, in between for those
    seen better than the trajectory, and `UNSEEN` for others.
    """
    shares = widened(levels)
    times = to_device(t.to(shares.dtype), shares.device).reshape(-1, *[1] * (levels.ndim - 1))
    return torch.where(levels == UNSEEN, UNSEEN, shares * times)
