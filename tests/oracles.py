"""Denoisers with known answers, in float64, against which everything else is tested.

For Gaussian data N(μ, Σ) and x_t = α x + σ ε all distributions are Gaussian, and the coordinates in the eigenbasis of Σ
(eigenvalues c) are independent:

    E[x|x_t]    = μ + α c / (α² c + σ²) (x_t - α μ)
    x_t         ~ N(α μ, α² c + σ²)
    flow t -> s : x_s - α_s μ = √((α_s² c + σ_s²) / (α_t² c + σ_t²)) (x_t - α_t μ)        the probability-flow ODE

With a time t^i for every coordinate, A = diag α(t^i) and S = diag σ(t^i)²,

    E[x|x_t]    = μ + Σ A (A Σ A + S)⁻¹ (x_t - A μ)

For a mixture the same holds within each component, whose weight given x_t is a softmax. With a Gaussian oracle a
sampler is an affine map of its start and its noises, so `affine` computes the exact mean and covariance of its samples
from one batch of unit impulses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from diffusion import levels
from diffusion.denoiser import AnyDenoiser, Parameterization, Prediction
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class GaussianOracle:
    """Data N(mean, covariance). mean: (D,) or (C, H, W); covariance: (D, D) over the flattened example."""

    schedule: Schedule
    mean: Tensor
    covariance: Tensor

    @cached_property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """The eigenvalues of the covariance (D,), not negative, and its eigenvectors (D, D) as columns."""
        values, vectors = torch.linalg.eigh(self.covariance.double())
        return values.clamp_min(0), vectors

    def spectrum(self, t: Tensor) -> Tensor:
        """Returns the eigenvalues of the covariance of x_t: (D,) for t (), (B, D) for t (B,)."""
        alpha, sigma = (v[..., None] for v in self.schedule(t.double()))
        return alpha**2 * self.eigen[0] + sigma**2

    def centered(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Returns x_t - α_t μ in the eigenbasis: (B, D)."""
        alpha, _ = self.schedule(t.double())
        return (x_t.double().flatten(1) - alpha[..., None] * self.mean.flatten()) @ self.eigen[1]

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns E[x|x_t]; the label is ignored. t: () or (B,), or a map."""
        if levels.is_map(t, x_t):
            return self._by_coordinate(x_t, t)
        alpha, _ = self.schedule(t.double())
        gain = alpha[..., None] * self.eigen[0] / self.spectrum(t)
        mean = self.mean.flatten() + (gain * self.centered(x_t, t)) @ self.eigen[1].mT
        return Prediction(mean.reshape(x_t.shape).to(x_t))

    def _by_coordinate(self, x_t: Tensor, t: Tensor) -> Prediction:
        alpha, sigma = (v.expand_as(x_t).flatten(1) for v in self.schedule(levels.seen(t.double())))
        mean, scaled = self.mean.flatten(), self.covariance * alpha[:, None, :]
        total = alpha[:, :, None] * scaled + torch.diag_embed(sigma**2)
        offset = x_t.double().flatten(1) - alpha * mean
        found = mean + (scaled @ torch.linalg.solve(total, offset[..., None]))[..., 0]
        return Prediction(found.reshape(x_t.shape).to(x_t))

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean (D,) and covariance (D, D) of x_t at a time t ()."""
        _, vectors = self.eigen
        return self.schedule(t)[0] * self.mean.flatten(), (vectors * self.spectrum(t)) @ vectors.mT

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Returns x_s, to which the probability-flow ODE takes x_t at time s."""
        ratio = (self.spectrum(s) / self.spectrum(t)).sqrt()
        x_s = self.schedule(s)[0][..., None] * self.mean.flatten() + (ratio * self.centered(x_t, t)) @ self.eigen[1].mT
        return x_s.reshape(x_t.shape)

    def error(self, t: Tensor) -> Tensor:
        """Returns E‖E[x|x_t] - x‖², the trace of the posterior covariance, in the shape of t."""
        return (self.eigen[0] * self.schedule(t)[1][..., None] ** 2 / self.spectrum(t)).sum(-1)

    def nll(self, x: Tensor) -> Tensor:
        """Returns -log p(x) in nats: (B,)."""
        z = (x.flatten(1) - self.mean.flatten()) @ self.eigen[1]
        return (z.square() / self.eigen[0] + (2 * math.pi * self.eigen[0]).log()).sum(1) / 2

    @property
    def entropy(self) -> float:
        """The entropy E[-log p(x)] in nats."""
        return float((2 * math.pi * math.e * self.eigen[0]).log().sum() / 2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n examples, (n, *), by the symmetric root, which is the same for any choice of eigenvectors."""
        z = torch.randn(n, self.mean.numel(), generator=generator, dtype=torch.float64)
        values, vectors = self.eigen
        return (self.mean.flatten() + z @ (vectors * values.sqrt()) @ vectors.mT).reshape(n, *self.mean.shape)

    def posterior(self, matrix: Tensor, y: Tensor, noise: float) -> GaussianOracle:
        """Returns the distribution of x given y = matrix x + N(0, noise²), y (m,).

        It is Gaussian again, so it is the oracle of E[x|x_t, y].
        """
        cross = self.covariance @ matrix.mT
        inner = matrix @ cross + noise**2 * torch.eye(len(matrix), dtype=torch.float64)
        gain = cross @ torch.linalg.pinv(inner, hermitian=True)
        mean = self.mean.flatten() + gain @ (y - matrix @ self.mean.flatten())
        covariance = self.covariance - gain @ cross.mT
        return replace(self, mean=mean.reshape(self.mean.shape), covariance=(covariance + covariance.mT) / 2)


@dataclass(frozen=True)
class Shrunk:
    """An oracle whose estimates are a share of what they should be."""

    oracle: GaussianOracle
    share: float

    @property
    def schedule(self) -> Schedule:
        return self.oracle.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(self.share * self.oracle(x_t, t, label).mean)


def given(oracle: GaussianOracle, y: Tensor, noise: Tensor, known: Tensor) -> GaussianOracle:
    """Returns the distribution of x given y = x + noise N(0, I) where `known`, all three (1, *), with a noise of its
    own for each pixel; 0 is none.
    """
    seen = known.expand_as(y).flatten()
    # Rows divided by their noise have the noise 1. What is exact has next to none.
    scale = noise.expand_as(y).flatten()[seen].clamp_min(1e-5)
    matrix = torch.eye(y.numel(), dtype=torch.float64)[seen] / scale[:, None]
    return oracle.posterior(matrix, y.double().flatten()[seen] / scale, 1.0)


def short_correlations(schedule: Schedule, height: int, width: int, length: float) -> GaussianOracle:
    """Returns the oracle of images (1, H, W) of mean 0 and variance 1, with correlations exp(-(|i| + |j|) / length) at
    distances i and j.
    """
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (height, width))
    down, right = (torch.exp(-(places[:, None] - places).abs() / length) for places in (rows, columns))
    return GaussianOracle(schedule, torch.zeros(1, height, width, dtype=torch.float64), torch.kron(down, right))


@dataclass(frozen=True)
class MixtureOracle:
    """Data Σ_k weights_k N(means_k, variance I), means (K, *). Label k is component k alone; variance 0 makes atoms."""

    schedule: Schedule
    means: Tensor
    variance: float
    weights: Tensor

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns E[x|x_t, label]. t: () or (B,), or a map."""
        times = levels.seen(t.double())
        times = times.expand_as(x_t).flatten(1)[:, None] if levels.is_map(t, x_t) else times.reshape(-1, 1, 1)
        alpha, sigma = self.schedule(times)
        total = alpha**2 * self.variance + sigma**2
        offset = x_t.double().flatten(1)[:, None] - alpha * self.means.flatten(1)
        logits = self.weights.log() - (offset.square() / (2 * total)).sum(2)
        if label is not None:
            others = torch.arange(len(self.weights)) != label[:, None]
            logits = logits.masked_fill(others & (label >= 0)[:, None], -math.inf)
        parts = self.means.flatten(1) + alpha * self.variance / total * offset
        return Prediction((logits.softmax(1)[..., None] * parts).sum(1).reshape(x_t.shape).to(x_t))

    def nll(self, x: Tensor) -> Tensor:
        """Returns -log p(x) in nats: (B,). The variance must be positive."""
        offset = x.flatten(1)[:, None] - self.means.flatten(1)
        log_density = -(offset.square() / self.variance + math.log(2 * math.pi * self.variance)).sum(2) / 2
        return -(self.weights.log() + log_density).logsumexp(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n examples, (n, *)."""
        index = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, *self.means.shape[1:], generator=generator, dtype=torch.float64)
        return self.means[index] + self.variance**0.5 * z


@dataclass(frozen=True)
class OracleNetwork:
    """The network that makes `Denoiser` equal an oracle: F = (x̂ - c_skip x_t) / c_out.

    `logit` adds a learned variance, the same everywhere.
    """

    oracle: AnyDenoiser
    parameterization: Parameterization
    logit: Tensor | None = None

    def __call__(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Returns F for the scaled input x (B, C, *) and log_snr (B,) or a map of them."""
        t = self.oracle.schedule.time(log_snr if log_snr_map is None else log_snr_map)
        shape = (-1, *[1] * (x.ndim - 1)) if log_snr_map is None else log_snr_map.shape
        c_in, c_skip, c_out = (c.reshape(shape) for c in self.parameterization(*self.oracle.schedule(t)))
        network = (self.oracle(x / c_in, t, label).mean - c_skip * x / c_in) / c_out
        return network if self.logit is None else torch.cat([network, self.logit.expand_as(network)], dim=1)


def correlated(
    schedule: Schedule, shape: tuple[int, ...] = (2,), *, low: float = 0.05, high: float = 0.8
) -> GaussianOracle:
    """Returns Gaussian data with eigenvalues from `low` to `high` along directions that mix all coordinates."""
    dim = math.prod(shape)
    generator = torch.Generator().manual_seed(dim)
    basis, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    values = torch.logspace(math.log10(low), math.log10(high), dim, dtype=torch.float64)
    return GaussianOracle(
        schedule, torch.linspace(-0.5, 0.4, dim, dtype=torch.float64).reshape(shape), (basis * values) @ basis.mT
    )


@dataclass(frozen=True)
class Affine:
    """outputs = offset + start x_T + Σ noises z. offset: (O,); start: (O, D); noises: (O, draws D)."""

    offset: Tensor
    start: Tensor
    noises: Tensor

    def moments(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean (O,) and covariance (O, O) of the outputs for x_T ~ N(mean, covariance) and z ~ N(0, I)."""
        return self.offset + self.start @ mean, self.start @ covariance @ self.start.mT + self.noises @ self.noises.mT


def affine(run: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor], shape: tuple[int, ...]) -> Affine:
    """Returns the affine map that `run(x_T, randn) -> (B, *)` computes, from one batch.

    Its rows are a zero row, then a unit impulse in each number of x_T and of the noises.
    """
    dim, drawn = math.prod(shape), 0

    def count(x: Tensor) -> Tensor:
        nonlocal drawn
        drawn += dim
        return torch.zeros_like(x)

    def impulse(x: Tensor) -> Tensor:
        nonlocal used
        noise = torch.zeros(len(x), dim, dtype=torch.float64)
        noise[1 + dim + used : 1 + 2 * dim + used] = torch.eye(dim, dtype=torch.float64)
        used += dim
        return noise.reshape(x.shape)

    run(torch.zeros(1, *shape, dtype=torch.float64), count)
    x, used = torch.zeros(1 + dim + drawn, dim, dtype=torch.float64), 0
    x[1 : 1 + dim] = torch.eye(dim, dtype=torch.float64)
    outputs = run(x.reshape(-1, *shape), impulse).flatten(1)
    columns = (outputs[1:] - outputs[0]).mT
    return Affine(outputs[0], columns[:, :dim], columns[:, dim:])


def sigma_points(dim: int) -> Tensor:
    """Returns 2 dim points, (2 dim, dim), whose mean integrates cubics under N(0, I) exactly."""
    eye = dim**0.5 * torch.eye(dim, dtype=torch.float64)
    return torch.cat([eye, -eye])


def hermite(n: int) -> tuple[Tensor, Tensor]:
    """Returns nodes (n,) and weights (n,) of Gauss-Hermite quadrature for N(0, 1), after Golub and Welsch (1969)."""
    off = torch.arange(1, n, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0].square()
