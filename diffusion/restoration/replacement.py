"""Restoration by overwriting: the known part is drawn from the forward process at every time.

That alone is biased, because the unknown part is drawn without regard to the known part at smaller times. Repeating
each step repairs it (RePaint).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.operators import Mask
from diffusion.samplers import RandN, Sampler, State


@dataclass(frozen=True)
class ReplacementStep(Sampler):
    """A wrapped `sampler` that draws the known part of x_s from q(x_s|y) after each step; y is x where known.

    Each step is taken `repeats` times, going back by q(x_t|x_s) in between, so that known and unknown parts agree
    (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1). With 1 it is the biased replacement of Song et al. (2021,
    arXiv 2011.13456).
    """

    sampler: Sampler
    mask: Mask
    y: Tensor
    repeats: int = 1

    def __post_init__(self) -> None:
        require(self.repeats >= 1, "repeats", "at least 1", self.repeats)

    @property
    def nfe_per_step(self) -> int:
        """The evaluations of the wrapped sampler, for every repeat."""
        return self.sampler.nfe_per_step * self.repeats

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Takes a step of the wrapped sampler, whose state is passed on, and overwrites the known part."""
        schedule, y, known = denoiser.schedule, self.y.expand_as(x_t), self.mask.known_on(x_t.device)
        for repeat in range(self.repeats):
            x_s, state_s = self.sampler.step(denoiser, x_t, t, s, state, randn)
            x_s = torch.where(known, gaussian.marginal(schedule, y, s).sample(randn(x_t)), x_s)
            if repeat < self.repeats - 1:
                x_t = gaussian.transition(schedule, x_s, s, t).sample(randn(x_t))
                # The state belongs to a path that the new x_t is not on; extrapolating from it would amplify noise.
                state = None
        return x_s, state_s
