"""Sampling through holes, by a network that has learned from images with holes.

Every state that such a network has met lacks the pixels that nobody has seen of an image. The state of a whole image,
with all pixels at the time of the trajectory, is none of these; where neighbors are hardly ever seen together, it is
far from all of them. A trajectory through holes lacks the same pixels from its beginning to its end (sampling with a
fixed mask, Daras et al. 2023, arXiv 2305.19256): what the mask shows is drawn from its own distribution, and what it
hides is the mean given that, E[x | x_t where it shows].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.levels import UNSEEN, relative
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class ThroughHoles:
    """The denoiser E[x | x_t where `seen`], bool (B, 1, *), or (B, D) for points, of a denoiser that takes maps."""

    denoiser: AnyDenoiser
    seen: Tensor

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates all of x from what is seen of x_t (B, C, *) at t, () or (B,); label: (B,)."""
        return self.denoiser(x_t, relative(torch.where(self.seen, 1.0, UNSEEN), t), label)
