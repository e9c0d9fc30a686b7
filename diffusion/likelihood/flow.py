"""The likelihood by the probability-flow ODE (Song et al. 2021, arXiv 2011.13456, section 4.3 and appendix D.2).

In units where α² + σ² = 1, with half log-SNR ℓ as time, α² = sigmoid(2ℓ), the flow y from data to noise and the density
along it are

    dy/dℓ = α (x̂(y) - α y),        d log p(y)/dℓ = -tr ∂(dy/dℓ)/∂y = α² d - α tr ∂x̂/∂y

Solved from the clean end ℓ_0, y = α_0 x, to the noise at ℓ_T, where p is N(0, I), as it nearly is for data of
zero mean and unit variance:

    log p(x) = log N(y_T; 0, I) + ∫_{ℓ_0}^{ℓ_T} tr ∂(dy/dℓ)/∂y dℓ + d log α_0

The density is the one that the flow itself carries from N(0, I): of the data with noise of σ_0/α_0 added. The trace is
exact, with d backward passes, or by probes v of unit covariance, E vᵀ J v = tr J (Hutchinson 1990; Grathwohl et al.
2019, arXiv 1810.01367), which stay the same along the flow.

Quantized data need noise. With u = x + spacing (U - ½), U uniform, the density of u bounds the probability of the cell
around x, log P(x) >= E log p(u) + d log spacing (Theis et al. 2016, arXiv 1511.01844, section 3.1). That suits a
density that is smooth over a cell. One that has learned the levels themselves stands on them, as wide as the noise of
the clean end, with nothing in between. It is met by that noise, z ~ q(z|x) = N(x, (σ_0/α_0)² I), and the decoder P(x|z)
of the trajectory bound,

    log P(x) >= E log p(z) - log q(z|x) + log P(x|z)

(the same inequality for the law q; Zheng et al. 2023, arXiv 2305.03935, section 4.2, cut q at the cell instead).
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
from diffusion.likelihood.bound import Quantization, finite, reconstruction
from diffusion.likelihood.ode import Adaptive, Solver
from diffusion.samplers import RandN
from diffusion.schedules import Schedule

ProbeDistribution = Literal["rademacher", "gaussian"]
Dequantization = Literal["uniform", "noise"]


@dataclass(frozen=True)
class Hutchinson:
    """`count` random probes of the trace for each example; of the two laws Rademacher's has the smaller variance."""

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
        """`count` tensors like x (B, *)."""
        # In float64, so that both precisions of the denoiser see the same probes.
        noise = [randn(x.double()) for _ in range(self.count)]
        return [(z if self.distribution == "gaussian" else torch.where(z < 0, -1.0, 1.0)).to(x) for z in noise]


@dataclass(frozen=True)
class FlowLikelihood:
    """log p(x) in nats by its parts: that of the end of the flow, `prior` (B,); the integral of the trace by each
    probe, `trace` (B, P), P = 1 if `exact`; and `scale`, d log α_0 and what `shifted` adds. `nfe` of the denoiser
    were made.
    """

    prior: Tensor
    trace: Tensor
    scale: float | Tensor
    exact: bool
    nfe: int

    @property
    def log_likelihood(self) -> Tensor:
        """log p(x): (B,) nats, unbiased but for the solver."""
        return self.prior + self.trace.mean(1) + self.scale

    @property
    def variance(self) -> Tensor:
        """Of `log_likelihood` by the choice of the probes: (B,), 0 if exact, NaN for a single probe."""
        if self.exact:
            return torch.zeros_like(self.prior)
        count = self.trace.shape[1]
        return self.trace.var(1) / count if count > 1 else torch.full_like(self.prior, math.nan)

    def shifted(self, nats: float | Tensor) -> FlowLikelihood:
        """The same in other units of volume, or after dequantization: `nats`, () or (B,), are added to `scale`."""
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
    """log p(x) of continuous x (B, C, *), with the exact trace unless there are `probes`.

    The flow and the density are in float64, the denoiser runs in the dtype of x. The solver is `Adaptive` by default;
    with it, the steps of an example depend on the others of its batch, and the answer on them within the tolerance.

    Raises InputError when x is not finite or the denoiser has no gradient, FloatingPointError when the flow fails.
    """
    finite(x)
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
    """The slope of the flow and of the integral of its trace, (B, D + traces), as a function of half log-SNR; counts
    the calls of the denoiser.
    """

    def __init__(
        self, denoiser: AnyDenoiser, like: Tensor, vectors: list[Tensor], exact: bool, label: Tensor | None
    ) -> None:
        self.denoiser, self.like, self.vectors, self.exact, self.label = denoiser, like, vectors, exact, label
        self.traces = 1 if exact else len(vectors)
        self.nfe = 0

    def __call__(self, half: float, state: Tensor) -> Tensor:
        """state: (B, D + traces) float64."""
        self.nfe += 1
        dim = state.shape[1] - self.traces
        y = state[:, :dim].reshape(self.like.shape)
        t = self.denoiser.schedule.time(torch.tensor(2 * half, dtype=torch.float64))
        mean, forms = quadratic_forms(lambda y_t: self.denoiser(y_t, t, self.label).mean, y.to(self.like), self.vectors)
        trace = torch.stack(forms, 1).double()
        if self.exact:
            trace = trace.sum(1, keepdim=True)
        alpha = math.sqrt(1 / (1 + math.exp(-2 * half)))
        slope = alpha * (mean.double() - alpha * y)
        return torch.cat([slope.flatten(1), alpha * trace - alpha**2 * dim], 1)


def quadratic_forms(
    function: Callable[[Tensor], Tensor], y: Tensor, vectors: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """f(y) and vᵀ (∂f/∂y) v for every v like y (B, *), (B,) each, with one backward pass each."""
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
    """The unit vectors of one example, each repeated for the batch: (D, B, *), without memory of their own for B."""
    dim = x[0].numel()
    eye = torch.eye(dim, dtype=x.dtype, device=x.device).reshape(dim, 1, *x.shape[1:])
    return eye.expand(dim, *x.shape)


def dequantize(x: Tensor, quantization: Quantization, randn: RandN) -> Tensor:
    """x + spacing (U - ½), U uniform: continuous values for quantized ones, (B, *) float64."""
    # The distribution function of a normal number is uniform; noise comes as normal numbers, one stream per example.
    uniform: Tensor = torch.special.ndtr(randn(x.double()))
    return x.double() + quantization.spacing * (uniform - 0.5)


def diffuse(x: Tensor, quantization: Quantization, schedule: Schedule, randn: RandN) -> tuple[Tensor, Tensor]:
    """z ~ q(z|x) at the clean end of the schedule, in units of x, (B, *) float64; and log P(x|z) - log q(z|x), (B,)."""
    t = torch.zeros(len(x), dtype=torch.float64)
    alpha, sigma = (float(v[0]) for v in schedule(t))
    x = x.double()
    distribution = Gaussian(x, torch.full_like(x, (sigma / alpha) ** 2))
    z = x + sigma / alpha * randn(x)
    return z, distribution.nll(z) - reconstruction(schedule, x, alpha * z, t, quantization)
