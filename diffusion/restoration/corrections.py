"""Published corrections towards y that sample no posterior of a stated distribution, for comparison.

`RangeNull` is a denoiser, `DPSStep` a sampler.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import require
from diffusion.operators import Linear, Operator
from diffusion.samplers import RandN, Sampler, State
from diffusion.schedules import Schedule, expand


@dataclass(frozen=True)
class RangeNull:
    """The denoiser x̂ + κ A⁺ (y - A x̂): for κ = 1 the row space of A is taken from y, its null space from x̂.

    Wang et al. 2022, arXiv 2212.00490 (DDNM): eq. 13 with κ = 1, and with noise κ = min(1, (σ_t/α_t)/noise) as in their
    eq. 17 for A⁺ of unit gain. They, and Kawar et al. 2022, arXiv 2201.11793 (DDRM), also subtract the noise of y from
    the sampler's own, in the basis of A's singular vectors. This is left out here, and the measured part of a
    restoration is as noisy as y.
    """

    denoiser: AnyDenoiser
    operator: Linear
    y: Tensor
    noise: float = 0.0

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", "0 or more", self.noise)

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates x̂ + κ A⁺ (y - A x̂). x_t: (B, C, *); t: () or (B,); label: (B,)."""
        mean, variance_interp = self.denoiser(x_t, t, label)
        alpha, sigma = (expand(v, x_t) for v in self.schedule(t.double()))
        gain = (sigma / alpha / self.noise).clamp_max(1) if self.noise else 1.0
        return Prediction(mean + gain * self.operator.pinv(self.y - self.operator(mean), mean), variance_interp)


@dataclass(frozen=True)
class DPSStep(Sampler):
    """A wrapped `sampler` with a step down the gradient of the misfit after each of its own,

        x_s <- x_s - scale ∇_{x_t} ‖y - A(x̂(x_t))‖,

    as in the code of Chung et al. (2023, arXiv 2209.14687, algorithm 1). A posterior would have the gradient of a
    log-likelihood here, weighted by the noise of y and by the length of the step in time. This step depends on neither,
    so it is exact for no prior, and `scale` has to be searched for each operator and number of steps. It approximates
    `Posterior` with the `Zero` covariance.
    """

    sampler: Sampler
    operator: Operator
    y: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(self.scale > 0, "scale", "a positive number", self.scale)

    @property
    def nfe_per_step(self) -> int:
        """The evaluations of the wrapped sampler, and one for the gradient."""
        return self.sampler.nfe_per_step + 1

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Takes a step of the wrapped sampler, whose state is passed on, then one down the gradient."""
        x_s, state = self.sampler.step(denoiser, x_t, t, s, state, randn)
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            misfit = (self.y - self.operator(denoiser(leaf, t).mean)).flatten(1).norm(dim=1).sum()
            gradient = torch.autograd.grad(misfit, leaf)[0]
        return x_s - self.scale * gradient, state
