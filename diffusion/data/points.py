"""Points in the plane whose density is known: a spiral and a ring of Gaussians, scaled to variance 1.

The center and scale are those of the law, not of the sample, so that every sample has the same law whatever
its size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion.data.dataset import Dataset
from diffusion.data.spec import DataSpec

ROLL_CENTER = (2.0, 2 / (3 * math.pi))


def swiss_roll(n: int, seed: int, noise: float = 0.25) -> Dataset:
    """n points (t cos t, t sin t) + noise · N(0, I), t uniform on [1.5π, 4.5π], scaled to mean 0, variance 1.

    `noise` is in units of the spiral before scaling. It decides the entropy: −h is −0.92 bits per point at
    the default and 2.45 at noise = 0.0243, which is just above the 2.35 bits of Sohl-Dickstein et al. (2015,
    arXiv:1503.03585, Table 1), who do not state theirs.
    """
    generator = _generator(n, seed)
    t = math.pi * (1.5 + 3 * torch.rand(n, generator=generator, dtype=torch.float64))
    spiral = torch.stack([t * t.cos(), t * t.sin()], dim=1)
    points = spiral + noise * _normal(n, generator)
    center = torch.tensor(ROLL_CENTER, dtype=torch.float64)
    return _dataset("swiss_roll", (points - center) / roll_scale(noise), None, ())


def roll_scale(noise: float) -> float:
    """The root mean square of the roll's coordinates about ROLL_CENTER before scaling; E t² = 9.75 π²."""
    x, y = ROLL_CENTER
    return math.sqrt((9.75 * math.pi**2 - x**2 - y**2) / 2 + noise**2)


def mixture(n: int, seed: int, modes: int = 8, std: float = 0.1, labels: bool = False) -> Dataset:
    """n points of an equal mixture of Gaussians evenly spaced on a circle, scaled to variance 1.

    `std` is that of one mode in units of the circle's radius. With `labels` every point is labeled by its
    mode.

    Raises ValueError for fewer than two modes, whose mean would not be 0.
    """
    if modes < 2:
        raise ValueError(f"data.modes: must be at least 2, got {modes}")
    generator = _generator(n, seed)
    mode = torch.randint(modes, (n,), generator=generator)
    angle = mode.double() * (2 * math.pi / modes)
    points = torch.stack([angle.cos(), angle.sin()], dim=1) + std * _normal(n, generator)
    classes = tuple(map(str, range(modes))) if labels else ()
    return _dataset("mixture", points / math.sqrt(0.5 + std**2), mode if labels else None, classes)


def _generator(n: int, seed: int) -> torch.Generator:
    if n < 1:
        raise ValueError(f"data.count: must be at least 1, got {n}")
    return torch.Generator().manual_seed(seed)


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def _dataset(name: str, points: Tensor, label: Tensor | None, classes: tuple[str, ...]) -> Dataset:
    return Dataset(
        values=points.float().numpy(),
        spec=DataSpec(shape=(2,), levels=None, classes=classes),
        labels=None if label is None else label.numpy(),
        names=tuple(f"{name}/{i}" for i in range(len(points))),
    )
