"""Latents of the probability flow: the noise that an example comes from, back to the example, and paths between.

The flow is a bijection of examples and noise (Song et al. 2021, arXiv 2011.13456, section 4.3), computed by an adaptive
solver in both directions (`likelihood.flow.transport`). Between two latents the path is spherical, as the norm of
normal noise of many numbers is nearly the same for all (Shoemake 1985; White 2016, arXiv 1609.04468).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.likelihood.flow import transport
from diffusion.likelihood.ode import Adaptive

# The angle, in radians, below which a spherical path is a straight line to float64.
PARALLEL = 1e-6


@dataclass(frozen=True)
class Latents:
    """The flow of a denoiser with labels (n,), at most `batch` examples at a time, within a `tolerance`."""

    denoiser: AnyDenoiser
    spec: DataSpec
    device: torch.device
    label: Tensor | None
    batch: int
    tolerance: float

    def encode(self, units: Tensor) -> Tensor:
        """Takes examples in units to their latents: (n, *) float32 on the CPU."""
        return self._carry(self.spec.standardize(units), to_noise=True)

    def decode(self, z: Tensor) -> Tensor:
        """Takes latents to examples in units: (n, *) float32 on the CPU."""
        return self.spec.decode(self._carry(z, to_noise=False))

    def _carry(self, x: Tensor, *, to_noise: bool) -> Tensor:
        parts = []
        for start in range(0, len(x), self.batch):
            rows = slice(start, start + self.batch)
            label = None if self.label is None else self.label[rows]
            given = x[rows].to(self.device, torch.float32)
            moved = transport(self.denoiser, given, to_noise=to_noise, solver=Adaptive(self.tolerance), label=label)
            parts.append(moved.float().cpu())
        return torch.cat(parts)


def spherical(a: Tensor, b: Tensor, count: int) -> Tensor:
    """Returns `count` points of the great arc from a to b, both (*), ends included: (count, *).

    The norm goes from that of a to that of b. Parallel ones are joined by a straight line.
    """
    first, last = a.double(), b.double()
    cosine = (first * last).sum() / (first.norm() * last.norm()).clamp(min=torch.finfo(torch.float64).tiny)
    angle = cosine.clamp(-1, 1).arccos()
    share = torch.linspace(0, 1, count, dtype=torch.float64).reshape(-1, *[1] * a.ndim)
    if float(angle.sin()) < PARALLEL:
        return ((1 - share) * first + share * last).to(a.dtype)
    path: Tensor = (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
    return path.to(a.dtype)
