"""Noise that differs from pixel to pixel: y = x + N(0, σ_i²) at pixel i, with a map of the standard deviations σ_i.

A map of one example is (1, 1, H, W) for images, (1, 1, P) for some of their pixels and (1, D) for points. It stays on
the CPU. The channels of a pixel share its σ_i. Where they were seen in noise of different strength, noise is added to
the better ones until all of them have that of the worst. What is then known is less than what was seen, but all that is
made of it is exact: y + N(0, σ_i² - σ_c²) is x + N(0, σ_i²). In the same way the σ_i of large maps are raised to few
values, by 0.6 % at most, as every step of a restoration inverts the schedule at all of them.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from diffusion.errors import InputError, require
from diffusion.randomness import ExampleNoise, Stream, example_seed

# A map with more values than this is brought to values of which there are so many in each factor of two.
MANY, PER_OCTAVE = 4096, 128
# A standard deviation, or a map of them.
Noise: TypeAlias = float | Tensor


def most(noise: Noise) -> float:
    """Returns the largest standard deviation."""
    return float(noise.max()) if isinstance(noise, Tensor) else noise


def checked(noise: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns a map that broadcasts against an example of `shape` as (1, *shape) float32 on the CPU.

    Raises InputError for another shape, and for values that are not floating point, finite and 0 or more.
    """
    require(noise.is_floating_point(), "noise", "a number, or a map of floats in units of the data", noise.dtype)
    try:
        found = noise.detach().cpu().float().broadcast_to(shape)[None]
    except RuntimeError:
        raise InputError(
            f"noise: must be a number, or a map that broadcasts against {shape}, got one of the shape "
            f"{tuple(noise.shape)}"
        ) from None
    bad = int((~(found >= 0) | found.isinf()).sum())
    require(not bad, "noise", "finite, 0 or more, everywhere", f"another value at {bad} of {found.numel()} places")
    return found


def shared(y: Tensor, noise: Tensor, known: Tensor) -> tuple[Tensor, Noise]:
    """Returns y (1, C, *) with noise added where the channels of a pixel were seen in different noise, and the noise
    that they share. It is a number where that is the same for all pixels that are known; the others have no part in it.

    noise: (1, C, *); known: bool, which broadcasts against y and is the same for all channels of a pixel. What is added
    is drawn from a generator of its own, so it is the same whenever the problem is.
    """
    level = _raised(noise.amax(1, keepdim=True) if y.ndim > 2 else noise)
    added = (level.square() - noise.square()).clamp_min(0).sqrt() * known
    if added.any():
        y = y + added * ExampleNoise([example_seed(0, Stream.SHARED)])(y)
    noise, known = level, known.broadcast_to(y.shape)[:, : level.shape[1]]
    values = noise[known.broadcast_to(noise.shape)]
    if not len(values) or bool((values == values[0]).all()):
        return y, float(values[0]) if len(values) else 0.0
    return y, noise * known


def _raised(noise: Tensor) -> Tensor:
    """The noise, raised to one of few values where it has many."""
    if noise.unique().numel() <= MANY:  # type: ignore[no-untyped-call]
        return noise
    raised = torch.exp2((noise.double().log2() * PER_OCTAVE).ceil() / PER_OCTAVE).to(noise)
    return torch.where(noise > 0, torch.maximum(raised, noise), 0.0)


def relative(missed: Tensor, noise: Noise) -> Tensor:
    """Returns what y was missed by, (1, M), in units of the noise, without the values of a map that have none: (M',).

    It is in units of y where there is no noise.
    """
    if not isinstance(noise, Tensor):
        return missed.flatten() / (noise or 1.0)
    noisy = noise > 0
    return missed[noisy] / noise[noisy].to(missed)
