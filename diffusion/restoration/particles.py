"""Restoration by twisted sequential Monte Carlo: particles that converge to the exact posterior, and log p(y).

Wu et al. (2023, arXiv 2306.17775, algorithm 1). Particles move by the sampler's step with E[x|x_t, y], a Gaussian
q(x_s|x_t) whose mean differs from that of p(x_s|x_t) by what y says. What the closure ψ_t(x_t) ≈ p(y|x_t) of
`posterior.py` has wrong is made good by weights

    w_T = ψ_T(x_T),        w_s = w_t · p(x_s|x_t) ψ_s(x_s) / (q(x_s|x_t) ψ_t(x_t))

-log w is the work of pulling a particle from the prior to the posterior, and log p(y) = log E w as in `work.py`
(Jarzynski). When the effective number of particles falls below a share of them they are resampled (Liu and Chen 1998).
For any ψ the weighted particles converge to the posterior of the sampler's own chain, as they grow in number; for
Gaussian data and small steps with the Jacobian all weights are equal. The sampler may remember, as multistep solvers
do: each particle then has two memories, one of the estimates without y and one of those with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.errors import InputError, require
from diffusion.gaussian import Gaussian
from diffusion.likelihood.importance import log_mean_exp
from diffusion.restoration.posterior import Conditioned, Posterior
from diffusion.samplers import RandN, Sampler, State
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class Particles:
    """Equally weighted samples of the posterior and how they came about.

    x: (n, C, *). log_evidence: (), log p(y) in nats, its exponential an unbiased estimate for the sampler's chain; it
    lacks a constant unless the `Posterior` is dense. effective: the share of effective particles (Σw)²/(N Σw²) at every
    time but the last, (T,). ancestors: how many of the first particles have descendants among x.
    """

    x: Tensor
    log_evidence: Tensor
    relative_ess: Tensor
    ancestors: int


@dataclass(frozen=True)
class FixedPrediction:
    """A denoiser that was asked before, at one place, and has the answer."""

    schedule: Schedule
    prediction: Prediction

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """What it was."""
        return self.prediction


@torch.no_grad()
def particles(
    posterior: Posterior,
    sampler: Sampler,
    x: Tensor,
    times: Tensor,
    *,
    n: int | None = None,
    threshold: float = 0.5,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Particles:
    """n samples of one posterior, by default N, from N particles x (N, C, *), which are at times[0].

    A step is one call of the denoiser with its backward passes. The last one, onto the clean end, takes x̂ given y.
    Particles are resampled when the share of effective ones is below `threshold`.

    Raises InputError for a sampler that draws no noise or asks more than once a step, and unless 1 <= n <= N.
    """
    count = len(x)
    n = count if n is None else n
    require(1 <= n <= count, "n", f"between 1 and the {count} particles", n)
    require(0 <= threshold <= 1, "threshold", "in [0, 1]", threshold)
    require(sampler.nfe_per_step == 1, "sampler", "one with a call a step", sampler)
    times = times.detach().double().cpu()
    current = ParticleSet.begin(x, posterior.condition(x, times[0], label))
    log_evidence, relative_ess = torch.zeros((), dtype=torch.float64), []
    for t, s in pairwise(times[:-1]):
        relative_ess.append(current.relative_ess / count)
        if relative_ess[-1] < threshold:
            log_evidence = log_evidence + log_mean_exp(current.log_weight).cpu()
            current = current.resampled(uniform(current, randn), count)
        current = move(current, posterior, sampler, t, s, label, randn)
    relative_ess.append(current.relative_ess / count)
    log_evidence = log_evidence + log_mean_exp(current.log_weight).cpu()
    current = current.resampled(uniform(current, randn), n)
    return Particles(
        current.at.posterior.mean, log_evidence, torch.stack(relative_ess), len(torch.unique(current.ancestor))
    )


@dataclass(frozen=True)
class ParticleSet:
    """Particles x (N, C, *), their log-weights (N,) float64, what is known at them, the sampler's memories without and
    with y, and the first particles that they descend from (N,).
    """

    x: Tensor
    log_weight: Tensor
    at: Conditioned
    sampler_state: tuple[State, State]
    ancestor: Tensor

    @classmethod
    def begin(cls, x: Tensor, at: Conditioned) -> ParticleSet:
        """Those of the prior."""
        return cls(x, at.log_likelihood.double(), at, (None, None), torch.arange(len(x), device=x.device))

    @property
    def relative_ess(self) -> Tensor:
        """(Σ w)² / Σ w²: () float64 on the CPU, from 1 to N."""
        return (2 * self.log_weight.logsumexp(0) - (2 * self.log_weight).logsumexp(0)).exp().cpu()

    def resampled(self, offset: Tensor, n: int) -> ParticleSet:
        """n of them of equal weight; `offset` is uniform in [0, 1)."""
        index = systematic(self.log_weight, offset, n)
        return ParticleSet(
            self.x[index],
            torch.zeros_like(self.log_weight[index]),
            Conditioned(*(_rows(part, index) for part in self.at)),
            (_rows(self.sampler_state[0], index), _rows(self.sampler_state[1], index)),
            self.ancestor[index],
        )


def _rows(state: State, index: Tensor) -> State:
    """The rows of whatever tensors a state holds."""
    if isinstance(state, Tensor):
        return state[index]
    if isinstance(state, Prediction):
        return Prediction(*(_rows(part, index) for part in state))
    return tuple(_rows(part, index) for part in state) if isinstance(state, tuple) else state


def uniform(current: ParticleSet, randn: RandN) -> Tensor:
    """A number uniform in [0, 1) from the stream of normal ones: ()."""
    offset: Tensor = torch.special.ndtr(randn(current.log_weight[:, None])[0, 0])
    return offset


def systematic(log_weight: Tensor, offset: Tensor, n: int) -> Tensor:
    """Numbers of n particles, each drawn n w / Σ w times but for rounding up or down: log_weight (N,) -> (n,) int64.

    The places (i + offset)/n in the cumulated weights (Kitagawa 1996); unbiased for an offset uniform in [0, 1).
    """
    cumulated = log_weight.softmax(0).cumsum(0)
    places = (torch.arange(n, dtype=cumulated.dtype, device=cumulated.device) + offset.to(cumulated)) / n
    return torch.searchsorted(cumulated, places * cumulated[-1]).clamp_max(len(log_weight) - 1)


def step_moments(
    sampler: Sampler, at: FixedPrediction, x_t: Tensor, t: Tensor, s: Tensor, state: State
) -> tuple[Tensor, Tensor, State]:
    """A step as the mean and the standard deviation of its Gaussian, (B, C, *), and the next state.

    Raises InputError for a sampler that draws no noise.
    """
    mean, following = sampler.step(at, x_t, t, s, state, torch.zeros_like)
    deviation = sampler.step(at, x_t, t, s, state, torch.ones_like)[0] - mean
    if not bool((deviation > 0).all()):
        raise InputError(
            f"sampler: must draw noise, which tells copies of a particle apart, got {sampler}; take ddpm or "
            "dpmpp_2m_sde, or the method mmps, which has no particles"
        )
    return mean, deviation, following


def move(
    current: ParticleSet,
    posterior: Posterior,
    sampler: Sampler,
    t: Tensor,
    s: Tensor,
    label: Tensor | None,
    randn: RandN,
) -> ParticleSet:
    """The particles at s < t, with the weights of the step."""
    free, bound = (
        FixedPrediction(posterior.schedule, prediction) for prediction in (current.at.prior, current.at.posterior)
    )
    plain, sampler_state = sampler.step(free, current.x, t, s, current.sampler_state[0], torch.zeros_like)
    mean, deviation, memory_y = step_moments(sampler, bound, current.x, t, s, current.sampler_state[1])
    x = mean + deviation * randn(current.x)
    variance = deviation.double().square()
    log_proposal_ratio = Gaussian(mean.double(), variance).nll(x.double()) - Gaussian(plain.double(), variance).nll(
        x.double()
    )
    at = posterior.condition(x, s, label)
    log_twist_ratio = at.log_likelihood.double() - current.at.log_likelihood.double()
    return ParticleSet(
        x, current.log_weight + log_proposal_ratio + log_twist_ratio, at, (sampler_state, memory_y), current.ancestor
    )
