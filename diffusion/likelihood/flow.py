"""The likelihood by the probability-flow ODE (Song et al. 2021, arXiv 2011.13456, section 4.3 and appendix D.2).

In units where α² + σ² = 1, with the half log-SNR ℓ as time and α² = sigmoid(2ℓ), the flow y from data to noise and the
density along it obey

    dy/dℓ = α (x̂(y) - α y),        d log p(y)/dℓ = -tr ∂(dy/dℓ)/∂y = α² d - α tr ∂x̂/∂y

They are solved from the clean end ℓ_0, where y = α_0 x, to the noise at ℓ_T, where p is taken to be N(0, I), as it
nearly is for data of zero mean and unit variance:

    log p(x) = log N(y_T; 0, I) + ∫_{ℓ_0}^{ℓ_T} tr ∂(dy/dℓ)/∂y dℓ + d log α_0

This is the density that the flow carries from N(0, I) to the clean end: the density of the data with noise of standard
deviation σ_0/α_0 added. The trace is exact, with d backward passes, or estimated by probes v of unit covariance,
E vᵀ J v = tr J (Hutchinson 1990; Grathwohl et al. 2019, arXiv 1810.01367), which stay the same along the flow.

Quantized data are dequantized by noise, uniform or normal.

- Uniform: with u = x + spacing (U - ½), U uniform in [0, 1], the density of u bounds the probability of the cell around
  x, log P(x) >= E log p(u) + d log spacing (Theis et al. 2016, arXiv 1511.01844, section 3.1). This suits a density
  that is smooth over a cell.
- Normal: a model that has learned the gray levels themselves has narrow peaks on them, as wide as the noise of the
  clean end, and no density in between. This noise, z ~ q(z|x) = N(x, (σ_0/α_0)² I), and the decoder P(x|z) of the
  trajectory bound give log P(x) >= E log p(z) - log q(z|x) + log P(x|z). It is the same inequality with q in place of
  the uniform distribution (Zheng et al. 2023, arXiv 2305.03935, section 4.2, truncate q at the cell instead).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser, Rescaled
from diffusion.errors import InputError, require
from diffusion.gaussian import Gaussian
from diffusion.likelihood.bound import Quantization, check_finite, reconstruction
from diffusion.likelihood.ode import Adaptive, Solver
from diffusion.samplers import RandN
from diffusion.schedules import Schedule

ProbeDistribution = Literal["rademacher", "gaussian"]
Dequantization = Literal["uniform", "noise"]


@dataclass(frozen=True)
class Hutchinson:
    """Draws `count` random probes of the trace for each example.

    Rademacher probes have a smaller variance than Gaussian ones.
    """

    count: int = 4
    distribution: ProbeDistribution = "rademacher"

    def __post_init__(self) -> None:
        require(self.count >= 1, "probes.count", "at least 1", self.count)
        require(
            self.distribution in ("rademacher", "gaussian"),
            "probes.distribution",
            "rademacher or gaussian",
            repr(self.distribution),
        )

    def __call__(self, x: Tensor, randn: RandN) -> list[Tensor]:
        """Returns `count` probes with the shape, dtype and device of x (B, *)."""
        # The noise is float64, so that the probes are the same for both precisions of the denoiser.
        noise = [randn(x.double()) for _ in range(self.count)]
        return [(z if self.distribution == "gaussian" else torch.where(z < 0, -1.0, 1.0)).to(x) for z in noise]


@dataclass(frozen=True)
class FlowLikelihood:
    """log p(x) in nats, as the sum of three terms.

    `prior` (B,) is log N(y_T; 0, I). `trace` (B, P) is the integral of the trace by each of P probes, with P = 1 if
    `exact`. `scale`, () or (B,), is d log α_0 and whatever `shifted` has added. `nfe` is the number of denoiser
    evaluations of the batch.
    """

    prior: Tensor
    trace: Tensor
    scale: float | Tensor
    exact: bool
    nfe: int

    @property
    def log_likelihood(self) -> Tensor:
        """log p(x) = prior + mean trace + scale: (B,) nats, unbiased except for the error of the solver."""
        return self.prior + self.trace.mean(1) + self.scale

    @property
    def variance(self) -> Tensor:
        """The variance of `log_likelihood` over draws of the probes: (B,), 0 if exact, NaN for a single probe."""
        if self.exact:
            return torch.zeros_like(self.prior)
        count = self.trace.shape[1]
        return self.trace.var(1) / count if count > 1 else torch.full_like(self.prior, math.nan)

    def shifted(self, nats: float | Tensor) -> FlowLikelihood:
        """Adds `nats`, () or (B,), to `scale`, for other units of volume or after dequantization."""
        return replace(self, scale=self.scale + nats)


@torch.no_grad()
def log_likelihood(
    denoiser: AnyDenoiser,
    x: Tensor,
    *,
    probes: Hutchinson | None = None,
    solver: Solver | None = None,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> FlowLikelihood:
    """log p(x) of continuous x (B, C, *), with the exact trace unless `probes` are given.

    The flow and the density are in float64; the denoiser runs in the dtype of x. The solver is `Adaptive` by default.
    Its steps depend on all examples of the batch, so the result for one depends on the others, within the tolerance.

    Raises InputError if x is not finite or the denoiser has no gradient, FloatingPointError if the flow fails.
    """
    check_finite(x)
    schedule, dim = denoiser.schedule, x[0].numel()
    start, end = schedule.log_snr_max / 2, schedule.log_snr_min / 2
    vectors = list(basis(x)) if probes is None else probes(x, randn)
    flow = FlowODE(Rescaled(denoiser), x, vectors, probes is None, label)
    log_alpha = -math.log1p(math.exp(-2 * start)) / 2
    y = math.exp(log_alpha) * x.double().flatten(1)
    state = torch.cat([y, y.new_zeros(len(x), flow.traces)], 1)
    state = (solver or Adaptive())(flow, state, start, end)
    y, trace = state[:, :dim], state[:, dim:]
    if not state.isfinite().all():
        raise FloatingPointError("flow: ended in values that are not finite; take more steps, or the adaptive solver")
    prior = -Gaussian(torch.zeros_like(y), torch.ones_like(y)).nll(y)
    return FlowLikelihood(prior, trace, dim * log_alpha, probes is None, flow.nfe)


class FlowODE:
    """The slope in half log-SNR of the flow y and of the integral of its trace, both in one state (B, D + traces).

    `vectors` are the probes, or the unit vectors if `exact`. `nfe` counts the denoiser evaluations.
    """

    def __init__(
        self, denoiser: AnyDenoiser, like: Tensor, vectors: list[Tensor], exact: bool, label: Tensor | None
    ) -> None:
        self.denoiser, self.like, self.vectors, self.exact, self.label = denoiser, like, vectors, exact, label
        self.traces = 1 if exact else len(vectors)
        self.nfe = 0

    def __call__(self, half: float, state: Tensor) -> Tensor:
        """The slope at the half log-SNR `half` of a state (B, D + traces) float64: (B, D + traces)."""
        self.nfe += 1
        dim = state.shape[1] - self.traces
        y = state[:, :dim].reshape(self.like.shape)
        t = self.denoiser.schedule.time(torch.tensor(2 * half, dtype=torch.float64))
        mean, forms = quadratic_forms(lambda y_t: self.denoiser(y_t, t, self.label).mean, y.to(self.like), self.vectors)
        trace = torch.stack(forms, 1).double()
        if self.exact:
            trace = trace.sum(1, keepdim=True)
        alpha = _alpha(half)
        return torch.cat([velocity(mean, y, half).flatten(1), alpha * trace - alpha**2 * dim], 1)


@torch.no_grad()
def transport(
    denoiser: AnyDenoiser,
    x: Tensor,
    *,
    to_noise: bool,
    solver: Solver | None = None,
    label: Tensor | None = None,
) -> Tensor:
    """Takes examples x (B, C, *) along the flow to the noise that they come from, or with `to_noise` False noise to
    examples: (B, C, *) float64.

    The two directions are inverse to each other up to the error of the solver, `Adaptive` by default. The denoiser runs
    in the dtype of x. Raises InputError if x is not finite, FloatingPointError if the flow fails.
    """
    check_finite(x)
    schedule, rescaled = denoiser.schedule, Rescaled(denoiser)
    clean, noisy = schedule.log_snr_max / 2, schedule.log_snr_min / 2

    def slope(half: float, state: Tensor) -> Tensor:
        y = state.reshape(x.shape)
        t = rescaled.schedule.time(torch.tensor(2 * half, dtype=torch.float64))
        return velocity(rescaled(y.to(x), t, label).mean, y, half).flatten(1)

    solve, scale = solver or Adaptive(), _alpha(clean)
    start, end = (clean, noisy) if to_noise else (noisy, clean)
    y = solve(slope, x.double().flatten(1) * (scale if to_noise else 1.0), start, end)
    if not y.isfinite().all():
        raise FloatingPointError("flow: ended in values that are not finite; take more steps, or the adaptive solver")
    return (y if to_noise else y / scale).reshape(x.shape)


def velocity(mean: Tensor, y: Tensor, half: float) -> Tensor:
    """dy/dℓ = α (x̂ - α y) at the half log-SNR `half`, with x̂ = `mean`: (B, *) float64."""
    alpha = _alpha(half)
    return alpha * (mean.double() - alpha * y)


def _alpha(half: float) -> float:
    """α = √sigmoid(2ℓ) where α² + σ² = 1."""
    return math.sqrt(1 / (1 + math.exp(-2 * half)))


def quadratic_forms(
    function: Callable[[Tensor], Tensor], y: Tensor, vectors: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Returns f(y) (B, *) and vᵀ (∂f/∂y) v (B,) for every v of `vectors` (B, *), with one backward pass for each."""
    with torch.enable_grad():
        leaf = y.detach().requires_grad_()
        value = function(leaf)
    if not value.requires_grad:
        raise InputError("denoiser: has no gradient with respect to x_t, which the trace needs; use the bound instead")
    forms = []
    for v in vectors:
        (product,) = torch.autograd.grad(value, leaf, v, retain_graph=v is not vectors[-1])
        forms.append((product * v).flatten(1).sum(1))
    return value.detach(), forms


def basis(x: Tensor) -> Tensor:
    """The unit vectors of one example, each expanded over the batch without a copy: (D, B, *)."""
    dim = x[0].numel()
    eye = torch.eye(dim, dtype=x.dtype, device=x.device).reshape(dim, 1, *x.shape[1:])
    return eye.expand(dim, *x.shape)


def dequantize(x: Tensor, quantization: Quantization, randn: RandN) -> Tensor:
    """Returns x + spacing (U - ½) with U uniform in [0, 1], continuous values for quantized x: (B, *) float64."""
    # `randn` has one stream of normal numbers per example; their distribution function makes them uniform.
    uniform: Tensor = torch.special.ndtr(randn(x.double()))
    return x.double() + quantization.spacing * (uniform - 0.5)


def diffuse(x: Tensor, quantization: Quantization, schedule: Schedule, randn: RandN) -> tuple[Tensor, Tensor]:
    """Draws z ~ q(z|x) = N(x, (σ_0/α_0)² I), (B, *) float64, and returns it with log P(x|z) - log q(z|x), (B,) nats."""
    t = torch.zeros(len(x), dtype=torch.float64)
    alpha, sigma = (float(v[0]) for v in schedule(t))
    x = x.double()
    q = Gaussian(x, torch.full_like(x, (sigma / alpha) ** 2))
    z = x + sigma / alpha * randn(x)
    return z, q.nll(z) - reconstruction(schedule, x, alpha * z, t, quantization)
