"""Restoration: sampling x given y = A x + noise with an unconditional model.

`Posterior` is a denoiser. By Tweedie's formula, for any likelihood of y given x_t,

    E[x|x_t, y] = x̂ + (σ²/α) ∇_{x_t} log p(y|x_t),        p(y|x_t) ≈ N(A x̂, σ_y² + A C Aᵀ),

and methods differ only by their model C of the covariance Cov[x|x_t] = (σ²/α) ∂x̂/∂x_t:

    Zero        0                              Chung et al. 2023, arXiv 2209.14687 (DPS, before its heuristic step size)
    Isotropic   σ² s²/(α² s² + σ²)             Song et al. 2023 (ΠGDM)
    Diagonal    (σ²/α) (∂x̂/∂x_t)ᵀ 1           Boys et al. 2023, arXiv 2310.06721 (TMPD)
    Jacobian    (σ²/α) ∂x̂/∂x_t                 Rozet et al. 2024, arXiv 2405.13712 (MMPS)

With the Jacobian the expectation is exact for Gaussian data. `Replacement` is a sampler: the known part is drawn from
the forward process at every time. That alone is biased, as the unknown part never hears of the known future; repeating
each step repairs it (RePaint).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import process
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import InputError, require
from diffusion.operators import Mask, Operator, conjugate_gradients
from diffusion.samplers import RandN, Sampler, State
from diffusion.schedules import Schedule, expand

Linear = Callable[[Tensor], Tensor]


class Covariance(ABC):
    """A model of Cov[x|x_t] as a linear map on (B, C, *)."""

    iterations: int = 100

    @abstractmethod
    def __call__(self, tweedie: Linear, like: Tensor, alpha: Tensor, sigma: Tensor) -> Linear:
        """`tweedie` applies (σ²/α) (∂x̂/∂x_t)ᵀ to a tensor like `like`, (B, C, *); alpha and sigma broadcast
        against it.
        """


@dataclass(frozen=True)
class Zero(Covariance):
    """No uncertainty about x: too sure of y at high noise. Needs observations with noise."""

    def __call__(self, tweedie: Linear, like: Tensor, alpha: Tensor, sigma: Tensor) -> Linear:
        """v -> 0."""
        return torch.zeros_like


@dataclass(frozen=True)
class Isotropic(Covariance):
    """The covariance that white data of standard deviation `sigma_data` would have."""

    sigma_data: float = 1.0

    def __call__(self, tweedie: Linear, like: Tensor, alpha: Tensor, sigma: Tensor) -> Linear:
        """v -> σ² s²/(α² s² + σ²) v."""
        variance = (sigma * self.sigma_data).square() / ((alpha * self.sigma_data).square() + sigma.square())
        return lambda v: variance * v


@dataclass(frozen=True)
class Diagonal(Covariance):
    """The row sums of the Jacobian: exact for data of independent coordinates, one backward pass."""

    def __call__(self, tweedie: Linear, like: Tensor, alpha: Tensor, sigma: Tensor) -> Linear:
        """v -> diag(row sums) v, the sums no less than a thousandth of those of white data of unit variance."""
        white = sigma.square() / (alpha.square() + sigma.square())
        variance = torch.maximum(tweedie(torch.ones_like(like)), 1e-3 * white)
        return lambda v: variance * v


@dataclass(frozen=True)
class Jacobian(Covariance):
    """The whole Jacobian, one backward pass for each of at most `iterations` of conjugate gradients."""

    iterations: int = 5

    def __call__(self, tweedie: Linear, like: Tensor, alpha: Tensor, sigma: Tensor) -> Linear:
        """v -> (σ²/α) (∂x̂/∂x_t)ᵀ v."""
        return tweedie


@dataclass(frozen=True)
class Posterior:
    """The denoiser E[x|x_t, y] for y = A x + N(0, noise²). It works with any sampler; each call costs at least one
    backward pass.

    `y` is what the operator gives for the batch at hand, or broadcasts against it.
    """

    denoiser: AnyDenoiser
    operator: Operator
    y: Tensor
    noise: float = 0.0
    covariance: Covariance = Isotropic()

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", "0 or more", self.noise)
        if self.noise == 0 and isinstance(self.covariance, Zero):
            raise InputError(
                "noise: must be positive with the zero covariance, got 0; choose another covariance for exact data"
            )

    @property
    def schedule(self) -> Schedule:
        """That of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """x_t: (B, C, *); t: () or (B,); label: (B,)."""
        alpha, sigma = (expand(v, x_t) for v in self.schedule(t.double()))
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            prediction = self.denoiser(leaf, t, label)
        mean, fraction = prediction.mean.detach(), prediction.fraction

        def tweedie(v: Tensor) -> Tensor:
            return sigma.square() / alpha * torch.autograd.grad(prediction.mean, leaf, v, retain_graph=True)[0]

        covariance = self.covariance(tweedie, mean, alpha, sigma)

        def observed(u: Tensor) -> Tensor:
            return self.noise**2 * u + self.operator(covariance(self.operator.adjoint(u, mean)))

        residual = self.y - self.operator(mean)
        solution = conjugate_gradients(observed, residual, iterations=self.covariance.iterations, tolerance=1e-6)
        guided = mean + tweedie(self.operator.adjoint(solution, mean))
        return Prediction(guided, None if fraction is None else fraction.detach())


@dataclass(frozen=True)
class Replacement(Sampler):
    """Another sampler, with the known part of x_s drawn from q(x_s|y) after each step, y = x where known.

    With `repeats` > 1 each step is taken that often, going back by q(x_t|x_s) in between (Lugmayr et al. 2022, arXiv
    2201.09865, algorithm 1), so that known and unknown parts agree; with 1 it is the biased replacement of Song et al.
    (2021, arXiv 2011.13456).
    """

    sampler: Sampler
    mask: Mask
    y: Tensor
    repeats: int = 1

    def __post_init__(self) -> None:
        require(self.repeats >= 1, "repeats", "at least 1", self.repeats)

    @property
    def calls_per_step(self) -> int:
        """Those of the sampler, for every repeat."""
        return self.sampler.calls_per_step * self.repeats

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """State: that of the sampler."""
        schedule, y = denoiser.schedule, self.y.expand_as(x_t)
        for repeat in range(self.repeats):
            x_s, state_s = self.sampler.step(denoiser, x_t, t, s, state, randn)
            x_s = torch.where(self.mask.known, process.marginal(schedule, y, s).sample(randn(x_t)), x_s)
            if repeat < self.repeats - 1:
                x_t = process.transition(schedule, x_s, s, t).sample(randn(x_t))
                # The state remembers a path that the new x_t is not on: to extrapolate from it would amplify noise.
                state = None
        return x_s, state_s


COVARIANCES: dict[str, type[Covariance]] = {
    "zero": Zero,
    "isotropic": Isotropic,
    "diagonal": Diagonal,
    "jacobian": Jacobian,
}
