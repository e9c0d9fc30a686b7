"""The posterior denoiser: sampling x given y = A x + N(0, σ_y²) with an unconditional model.

By Tweedie's formula, for any likelihood of y given x_t,

    E[x|x_t, y] = x̂ + (σ²/α) ∇_{x_t} log p(y|x_t),        p(y|x_t) ≈ N(A x̂, σ_y² + A C Aᵀ),

and methods differ only by their model C of the covariance Cov[x|x_t] = (σ²/α) ∂x̂/∂x_t:

    Zero        0                              Chung et al. 2023, arXiv 2209.14687 (DPS, before its heuristic step size)
    Isotropic   σ² s²/(α² s² + σ²)             Song et al. 2023 (ΠGDM)
    Diagonal    (σ²/α) (∂x̂/∂x_t)ᵀ 1           Boys et al. 2023, arXiv 2310.06721 (TMPD)
    Jacobian    (σ²/α) ∂x̂/∂x_t                 Rozet et al. 2024, arXiv 2405.13712 (MMPS)

The approximate p(y|x_t) is also the twisting function of the particle methods (`particles.py`, `resampling.py`).

With the Jacobian the expectation is exact for Gaussian data. Where x given x_t is far from Gaussian, as between the
modes of a mixture, all four models weigh the modes wrongly, which `particles.py` corrects. An operator that is not
linear is linearized at x̂.
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
    """A model C of Cov[x|x_t] as a linear map on (B, C, *).

    Conjugate gradients solve (σ_y² + A C Aᵀ) u = y - A x̂ until the norm of the residual is at most `tolerance` times
    that of y - A x̂.
    """

    tolerance: float = 1e-6

    @abstractmethod
    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """Returns v -> C v for v (B, C, *).

        `tweedie` is v -> (σ²/α) (∂x̂/∂x_t)ᵀ v. `like` is any tensor of the shape of v; alpha and sigma broadcast
        against it.
        """

    def solve(self, matrix: LinearMap, residual: Tensor, white_matrix: Callable[[Tensor | float], LinearMap]) -> Tensor:
        """Solves (σ_y² + A C Aᵀ) u = residual for u.

        `matrix` applies σ_y² + A C Aᵀ. `white_matrix(k)` applies the same matrix with k times the covariance of white
        data of unit variance in place of C.
        """
        return conjugate_gradients(matrix, residual, tolerance=self.tolerance).u


@dataclass(frozen=True)
class Zero(Covariance):
    """The covariance 0: no uncertainty about x, which trusts y too much at high noise. Needs noise on y."""

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """Returns v -> 0."""
        return torch.zeros_like


@dataclass(frozen=True)
class Isotropic(Covariance):
    """The covariance that white data of standard deviation `sigma_data` would have."""

    sigma_data: float = 1.0

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """Returns v -> σ² s²/(α² s² + σ²) v, where s is `sigma_data`."""
        variance = (sigma * self.sigma_data).square() / ((alpha * self.sigma_data).square() + sigma.square())
        return lambda v: variance * v


@dataclass(frozen=True)
class Diagonal(Covariance):
    """The diagonal matrix of the row sums of the Jacobian, by one backward pass.

    It is exact for data of independent coordinates.
    """

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """Returns v -> diag(row sums) v.

        Row sums are raised to at least a thousandth of the variance that white data of unit variance would have.
        """
        white = sigma.square() / (alpha.square() + sigma.square())
        variance = torch.maximum(tweedie(torch.ones_like(like)), 1e-3 * white)
        return lambda v: variance * v


@dataclass(frozen=True)
class Jacobian(Covariance):
    """The whole Jacobian, with one backward pass for each iteration of conjugate gradients.

    The smaller the noise of y is in comparison with the variation of A x, the more iterations the tolerance takes.

    The Jacobian of a network is not symmetric. At high noise its errors, multiplied by σ²/α, exceed the covariance in
    all but the widest directions, and inverting the matrix amplifies them. So iterations end at negative curvature, and
    where the residual after a step has a component along the residual before it of more than `asymmetry` times its
    norm; with a covariance this component is 0. An example whose relative residual is still more than `unsolved` is
    solved with the covariance of white data instead, that of `Isotropic` times k. Here k is the ratio of the variances
    along the residual by the Jacobian and by white data, but at least 1: where pixels vary together, a step by the
    variance of a single pixel is too long. With exact denoisers this happens to no example.
    """

    tolerance: float = 1e-3
    asymmetry: float = 0.1
    unsolved: float = 0.1

    def __call__(self, tweedie: LinearMap, like: Tensor, alpha: Tensor, sigma: Tensor) -> LinearMap:
        """Returns v -> (σ²/α) (∂x̂/∂x_t)ᵀ v."""
        return tweedie

    def solve(self, matrix: LinearMap, residual: Tensor, white_matrix: Callable[[Tensor | float], LinearMap]) -> Tensor:
        """Solves with the Jacobian where it acts as a covariance does, else with the covariance of white data."""
        first_product: list[Tensor] = []

        def apply(v: Tensor) -> Tensor:
            product = matrix(v)
            if not first_product:
                first_product.append(product)
            return product

        # An iteration takes a backward pass, beside which a wait for the device is nothing.
        u, relative_residual = conjugate_gradients(
            apply, residual, tolerance=self.tolerance, asymmetry=self.asymmetry, look=1
        )
        solved = relative_residual <= self.unsolved
        if bool(solved.all()):
            return u
        # The first direction of conjugate gradients is the residual itself, so its product costs no further pass.
        noise, white, jacobian = (
            dot(residual, product)
            for product in (white_matrix(0)(residual), white_matrix(1)(residual), first_product[0])
        )
        k = torch.where(white > noise, (jacobian - noise) / (white - noise), 1.0).clamp_min(1)
        return torch.where(solved, u, conjugate_gradients(white_matrix(k), residual, tolerance=self.tolerance).u)


class Conditioned(NamedTuple):
    """The estimates at (x_t, t) without and with y, E[x|x_t] and E[x|x_t, y], and log p(y|x_t) in nats, (B,).

    `log_likelihood` is complete where the `Posterior` is `dense`; otherwise log √det(2π(σ_y² + A C Aᵀ)) is left out.
    """

    prior: Prediction
    posterior: Prediction
    log_likelihood: Tensor


@dataclass(frozen=True)
class Posterior:
    """The denoiser E[x|x_t, y] for y = A(x) + N(0, noise²).

    It works with any sampler, and an evaluation takes at least one backward pass. `y` broadcasts against A(x), which is
    (B, *). With `dense` the matrix σ_y² + A C Aᵀ is written out and decomposed, which suits few observations: with the
    Jacobian it takes a backward pass for each of them. Otherwise the covariance solves it, by iterations.
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
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x|x_t, y]. x_t: (B, C, *); t: () or (B,); label: (B,)."""
        return self.condition(x_t, t, label).posterior

    def condition(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Conditioned:
        """Estimates x without and with y, and log p(y|x_t). x_t: (B, C, *); t: () or (B,); label: (B,)."""
        alpha, sigma = (expand(v, x_t) for v in self.schedule(t.double()))
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            prediction = self.denoiser(leaf, t, label)
        variance_interp = None if prediction.variance_interp is None else prediction.variance_interp.detach()
        mean = prediction.mean.detach()

        def tweedie(v: Tensor) -> Tensor:
            return sigma.square() / alpha * torch.autograd.grad(prediction.mean, leaf, v, retain_graph=True)[0]

        operator = self.operator.linearized(mean)

        def matrix(model: Covariance, factor: Tensor | float = 1.0) -> LinearMap:
            covariance = model(tweedie, mean, alpha, sigma)
            return lambda u: self.noise**2 * u + factor * operator(covariance(operator.adjoint(u, mean)))

        residual = self.y - self.operator(mean)
        if self.dense:
            solution, half_log_det = eigen_solve(matrix(self.covariance), residual, self.noise**2)
        else:
            solution = self.covariance.solve(matrix(self.covariance), residual, partial(matrix, Isotropic()))
            half_log_det = residual.new_zeros(())
        guided = mean + tweedie(operator.adjoint(solution, mean))
        log_likelihood = -(residual * solution).flatten(1).sum(1) / 2 - half_log_det
        return Conditioned(Prediction(mean, variance_interp), Prediction(guided, variance_interp), log_likelihood)


def eigen_solve(apply: LinearMap, b: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Returns M⁻¹ b and log √det(2πM) for each row b of a batch, (B, *) and (B,).

    `apply` multiplies by M, which is symmetric with eigenvalues of at least `least`. M is written out by applying it to
    unit vectors; an inexact M is replaced by its symmetric part. Eigenvalues below `least`, or below the rounding error
    of the largest, are raised to these.
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
