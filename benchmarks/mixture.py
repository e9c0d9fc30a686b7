"""The Gaussian mixtures of Cardoso et al. (2023, arXiv 2308.07983, section 5.1 and appendix), with exact posteriors.

There are 25 components N(μ_ij, I), μ_ij = (8i, 8j, ..., 8i, 8j), with weights in proportion to draws of χ²_1, seen
through a random matrix. Given y = A x + N(0, σ²), a component is N(Σ(Aᵀy/σ² + μ), Σ) with Σ = (I + AᵀA/σ²)⁻¹, and its
weight is multiplied by N(y; Aμ, σ² + AAᵀ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.schedules import EDM, Schedule

# The standard deviation of a coordinate if all components weigh the same. In units of it the schedule is the package's
# default.
STD = math.sqrt(1 + 64 * 2)


@dataclass(frozen=True)
class Mixture:
    """A mixture of N(means_k, I) and its exact denoiser. means: (K, D); weights: (K,)."""

    means: Tensor
    weights: Tensor
    schedule: Schedule = EDM(sigma_min=0.002 * STD, sigma_max=160 * STD)

    @classmethod
    def draw(cls, dim: int, generator: torch.Generator) -> Mixture:
        centers = torch.tensor(list(product(range(-2, 3), repeat=2)), dtype=torch.float64) * 8
        weights = torch.randn(len(centers), generator=generator, dtype=torch.float64).square()
        return cls(centers.repeat(1, dim // 2), weights / weights.sum())

    def logits(self, x_t: Tensor, alpha: Tensor, total: Tensor) -> Tensor:
        """Returns log p(k|x_t) up to a constant, (B, K), where x_t has variance `total` within components."""
        means = self.means.to(x_t)
        return (alpha * x_t @ means.mT - alpha.square() * means.square().sum(1) / 2) / total + self.weights.log().to(
            x_t
        )

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns E[x|x_t]; the label is ignored."""
        alpha, sigma = (v.to(x_t).reshape(-1, 1) for v in self.schedule(t.double()))
        total = alpha.square() + sigma.square()
        share = self.logits(x_t, alpha, total).softmax(1)
        return Prediction((alpha * x_t + sigma.square() * (share @ self.means.to(x_t))) / total)

    def responsibilities(self, x: Tensor) -> Tensor:
        """Returns the mean of p(k|x) over x (B, D): (K,)."""
        one = x.new_ones(())
        return self.logits(x, one, one).softmax(1).mean(0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n examples, (n, D)."""
        index = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.means[index] + torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Problem:
    """An observation y (M,) = matrix (M, D) x + noise ε of a mixture, and its exact posterior."""

    mixture: Mixture
    matrix: Tensor
    noise: float
    y: Tensor

    @classmethod
    def draw(cls, mixture: Mixture, observations: int, generator: torch.Generator) -> Problem:
        """Draws the singular values of the matrix uniformly in [0, 1], and the noise uniformly below the largest."""
        dim = mixture.means.shape[1]
        u, _, v = torch.linalg.svd(
            torch.randn(observations, dim, generator=generator, dtype=torch.float64), full_matrices=False
        )
        values = torch.rand(observations, generator=generator, dtype=torch.float64).sort(descending=True).values
        noise = float(torch.rand((), generator=generator, dtype=torch.float64) * values[0])
        matrix = (u * values) @ v
        y = matrix @ mixture.sample(1, generator)[0]
        return cls(mixture, matrix, noise, y + noise * torch.randn(len(y), generator=generator, dtype=torch.float64))

    @cached_property
    def inner(self) -> Tensor:
        """σ² + AAᵀ: (M, M)."""
        return self.matrix @ self.matrix.mT + self.noise**2 * torch.eye(len(self.y), dtype=torch.float64)

    @cached_property
    def joint(self) -> Tensor:
        """log p(k, y): (K,)."""
        likelihood = torch.distributions.MultivariateNormal(self.mixture.means @ self.matrix.mT, self.inner)
        return self.mixture.weights.log() + likelihood.log_prob(self.y)

    @property
    def log_evidence(self) -> float:
        """log p(y)."""
        return float(self.joint.logsumexp(0))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n examples of the exact posterior, (n, D).

        A draw of the prior within a component is corrected by its residual y - (A x + noise).
        """
        index = torch.multinomial(self.joint.softmax(0), n, replacement=True, generator=generator)
        prior = self.mixture.means[index]
        prior = prior + torch.randn(prior.shape, generator=generator, dtype=torch.float64)
        seen = prior @ self.matrix.mT
        seen = seen + self.noise * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
        return prior + torch.linalg.solve(self.inner, (self.y - seen).mT).mT @ self.matrix

    def weight_distance(self, x: Tensor) -> float:
        """Returns the total variation between the weights of the components in x (B, D) and in the posterior."""
        return float((self.mixture.responsibilities(x.double()) - self.joint.softmax(0)).abs().sum()) / 2


def sliced_wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> float:
    """Returns the mean 1-Wasserstein distance of points a and b, both (n, D), projected on `directions` (D, L)."""
    first, second = ((points.double() @ directions).sort(0).values for points in (a, b))
    return float((first - second).abs().mean())


def directions(dim: int, count: int, generator: torch.Generator) -> Tensor:
    """Draws `count` directions uniformly on the sphere, as the columns of (D, L)."""
    drawn = torch.randn(dim, count, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=0)
