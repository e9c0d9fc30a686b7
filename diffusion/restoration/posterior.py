"""Restoration: sampling x given y = A x + noise with an unconditional model.

`Posterior` is a denoiser. By Tweedie's formula, for any likelihood of y given x_t,

    E[x|x_t, y] = x̂ + (σ²/α) ∇_{x_t} log p(y|x_t),        p(y|x_t) ≈ N(A x̂, σ_y² + A C Aᵀ),

and methods differ only by their model C of the covariance Cov[x|x_t] = (σ²/α) ∂x̂/∂x_t:

    Zero        0                              Chung et al. 2023, arXiv 2209.14687 (DPS, before its heuristic step size)
    Isotropic   σ² s²/(α² s² + σ²)             Song et al. 2023 (ΠGDM)
    Diagonal    (σ²/α) (∂x̂/∂x_t)ᵀ 1           Boys et al. 2023, arXiv 2310.06721 (TMPD)
    Jacobian    (σ²/α) ∂x̂/∂x_t                 Rozet et al. 2024, arXiv 2405.13712 (MMPS)

With the Jacobian the expectation is exact for Gaussian data. Where x given x_t is far from Gaussian, as between the
modes of a mixture, all of them weigh the modes wrongly; `particles.py` corrects that. An operator that is not linear is
linearized at x̂.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.errors import InputError, require
from diffusion.operators import Operator, conjugate_gradients
from diffusion.operators.operator import dot
from diffusion.schedules import Schedule, expand

LinearMap = Callable[[Tensor], Tensor]


class Covariance(ABC):
    """A model of Cov[x|x_t] as a linear map on (B, C, *).

    `tolerance` is the largest residual of σ_y² + A C Aᵀ solved by conjugate gradients, relative to y - A x̂.
    """

    tolerance: float = 1e-6

    @abstractmethod
    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """`tweedie` applies (σ²/α) (∂x̂/∂x_t)ᵀ to a tensor like `like`, (B, C, *); alpha and sigma broadcast
        against it.
        """

    def solve(self, observed: LinearMap, residual: Tensor, white: Callable[[Tensor | float], LinearMap]) -> Tensor:
        """u of (σ_y² + A C Aᵀ) u = residual. `observed` applies that matrix, `white(k)` that of k times the C of white
        data.
        """
        return conjugate_gradients(observed, residual, tolerance=self.tolerance).u


@dataclass(frozen=True)
class Zero(Covariance):
    """No uncertainty about x: too sure of y at high noise. Needs observations with noise."""

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """v -> 0."""
        return torch.zeros_like


@dataclass(frozen=True)
class Isotropic(Covariance):
    """The covariance that white data of standard deviation `sigma_data` would have."""

    sigma_data: float = 1.0

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """v -> σ² s²/(α² s² + σ²) v."""
        variance = (sigma * self.sigma_data).square() / ((alpha * self.sigma_data).square() + sigma.square())
        return lambda v: variance * v


@dataclass(frozen=True)
class Diagonal(Covariance):
    """The row sums of the Jacobian: exact for data of independent coordinates, one backward pass."""

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """v -> diag(row sums) v, the sums no less than a thousandth of those of white data of unit variance."""
        white = sigma.square() / (alpha.square() + sigma.square())
        variance = torch.maximum(tweedie(torch.ones_like(like)), 1e-3 * white)
        return lambda v: variance * v


@dataclass(frozen=True)
class Jacobian(Covariance):
    """The whole Jacobian, one backward pass for each iteration of conjugate gradients, as many as the tolerance takes:
    more, the smaller the noise of y is beside the spread of A x.

    The Jacobian of a network is not symmetric, and at high noise its errors, multiplied by σ²/α, exceed the covariance
    in all but the widest directions: to invert it there amplifies them. Iterations end at negative curvature, and where
    a step leaves more than the share `asymmetry` of a residual along it, of which a covariance leaves none. An example
    of which more than the share `unsolved` is left then is taken with the covariance of white data instead, as by
    `Isotropic`, but of the variance that the Jacobian has along the residual, if that is more: where pixels vary
    together, a step by the variance of one of them is too long. Of exact denoisers none is.
    """

    tolerance: float = 1e-3
    asymmetry: float = 0.1
    unsolved: float = 0.1

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """v -> (σ²/α) (∂x̂/∂x_t)ᵀ v."""
        return tweedie

    def solve(self, observed: LinearMap, residual: Tensor, white: Callable[[Tensor | float], LinearMap]) -> Tensor:
        """By the Jacobian where it acts as a covariance, else by white data."""
        first: list[Tensor] = []

        def noted(v: Tensor) -> Tensor:
            image = observed(v)
            if not first:
                first.append(image)
            return image

        u, left = conjugate_gradients(noted, residual, tolerance=self.tolerance, asymmetry=self.asymmetry)
        solved = left <= self.unsolved
        if bool(solved.all()):
            return u
        # The first direction is the residual itself.
        noise, unit, along = (dot(residual, image) for image in (white(0)(residual), white(1)(residual), first[0]))
        times = torch.where(unit > noise, (along - noise) / (unit - noise), 1.0).clamp_min(1)
        return torch.where(solved, u, conjugate_gradients(white(times), residual, tolerance=self.tolerance).u)


class Conditioned(NamedTuple):
    """What is known at (x_t, t) without and with y: E[x|x_t], E[x|x_t, y], and log p(y|x_t) in nats, (B,).

    The last is complete where the `Posterior` is `dense`; otherwise log √det(2π(σ_y² + A C Aᵀ)) is left out.
    """

    prior: Prediction
    posterior: Prediction
    log_likelihood: Tensor


@dataclass(frozen=True)
class Posterior:
    """The denoiser E[x|x_t, y] for y = A(x) + N(0, noise²). It works with any sampler; each call costs at least one
    backward pass.

    `y` is what the operator gives for the batch at hand, or broadcasts against it. With `dense` the matrix
    σ_y² + A C Aᵀ is written out, a backward pass for each observation with the Jacobian, and not iterated upon: for few
    observations.
    """

    denoiser: AnyDenoiser
    operator: Operator
    y: Tensor
    noise: float = 0.0
    covariance: Covariance = Isotropic()
    dense: bool = False

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
        return self.condition(x_t, t, label).posterior

    def condition(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Conditioned:
        """Without and with y. Arguments as for a call."""
        alpha, sigma = (expand(v, x_t) for v in self.schedule(t.double()))
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            prediction = self.denoiser(leaf, t, label)
        variance_interp = None if prediction.variance_interp is None else prediction.variance_interp.detach()
        mean = prediction.mean.detach()

        def tweedie(v: Tensor) -> Tensor:
            return sigma.square() / alpha * torch.autograd.grad(prediction.mean, leaf, v, retain_graph=True)[0]

        operator = self.operator.linearized(mean)

        def observed(model: Covariance, times: Tensor | float = 1.0) -> LinearMap:
            covariance = model(tweedie, mean, alpha, sigma)
            return lambda u: self.noise**2 * u + times * operator(covariance(operator.adjoint(u, mean)))

        residual = self.y - self.operator(mean)
        if self.dense:
            solution, half_log_det = eigen_solve(observed(self.covariance), residual, self.noise**2)
        else:
            solution = self.covariance.solve(observed(self.covariance), residual, partial(observed, Isotropic()))
            half_log_det = residual.new_zeros(())
        guided = mean + tweedie(operator.adjoint(solution, mean))
        log_likelihood = -(residual * solution).flatten(1).sum(1) / 2 - half_log_det
        return Conditioned(Prediction(mean, variance_interp), Prediction(guided, variance_interp), log_likelihood)


def eigen_solve(apply: LinearMap, b: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """M⁻¹ b and log √det(2πM) for each row of a batch, M symmetric of eigenvalues `least` or more: (B, *), (B,).

    M is written out by applying it to unit vectors; of an inexact M the symmetric part counts. Eigenvalues below
    `least`, or below the rounding of the largest, are raised to that.
    """
    flat = b.flatten(1)
    units = torch.eye(flat.shape[1], dtype=b.dtype, device=b.device)
    columns = [apply(unit.expand_as(flat).reshape(b.shape)).flatten(1) for unit in units]
    matrix = torch.stack(columns, 2)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    rounding = len(units) * torch.finfo(b.dtype).eps * values[:, -1:].abs()
    values = values.clamp_min(least).maximum(rounding)
    solution = (vectors @ ((vectors.mT @ flat[..., None]) / values[..., None]))[..., 0]
    return solution.reshape(b.shape), (2 * math.pi * values).log().sum(1) / 2
