"""Restoration by twisted sequential Monte Carlo: particles that converge to the exact posterior, and log p(y).

Wu et al. (2023, arXiv 2306.17775, algorithm 1). Particles move by the sampler's step with E[x|x_t, y], a Gaussian
q(x_s|x_t) whose mean differs from that of p(x_s|x_t) by the influence of y. The errors of the twisting function
ψ_t(x_t) ≈ p(y|x_t) of `posterior.py` are corrected by importance weights

    w_T = ψ_T(x_T),        w_s = w_t · p(x_s|x_t) ψ_s(x_s) / (q(x_s|x_t) ψ_t(x_t))

-log w is the work of pulling a particle from the prior to the posterior, and log p(y) = log E w as in
`likelihood/importance.py` (Jarzynski 1997). When the effective sample size falls below a fraction of the number of
particles they are resampled (Liu and Chen 1998). For any ψ the weighted particles converge, as their number grows, to
the posterior of the sampler's own chain; for Gaussian data and small steps with the Jacobian all weights are equal.
The sampler may have a state, as multistep solvers do: each particle then has two, one of the estimates without y and
one of those with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.errors import InputError, require
from diffusion.gaussian import Gaussian
from diffusion.likelihood.importance import effective_sample_size, log_mean_exp
from diffusion.restoration.posterior import Conditioned, Posterior
from diffusion.samplers import RandN, Sampler, State
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class Particles:
    """Equally weighted samples of the posterior, with the diagnostics of their sampling.

    x: (n, C, *). log_evidence: (), log p(y) in nats; its exponential is an unbiased estimate for the sampler's chain,
    and it lacks a constant unless the `Posterior` is dense. relative_ess: (T,), the effective sample size divided by
    the number of particles, (Σw)²/(N Σw²), at every time but the last. ancestors: the number of initial particles that
    have descendants among x.
    """

    x: Tensor
    log_evidence: Tensor
    relative_ess: Tensor
    ancestors: int

    @property
    def least_ess(self) -> float:
        """The least `relative_ess` of any time; NaN where nothing was weighed."""
        return float(self.relative_ess.min()) if len(self.relative_ess) else math.nan


@dataclass(frozen=True)
class FixedPrediction:
    """A denoiser that returns one prediction, made before at the x_t and t of the step to be taken."""

    schedule: Schedule
    prediction: Prediction

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns the prediction, whatever the arguments."""
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
    """Draws n samples of one posterior, by default N, from N particles x (N, C, *), which are at times[0].

    A step takes one evaluation of the denoiser with its backward passes. The last one, onto the clean end, returns
    E[x|x_t, y]. Particles are resampled when the effective sample size divided by N is below `threshold`.

    Raises InputError for a sampler that draws no noise or takes several evaluations per step, and unless 1 <= n <= N.
    """
    count = len(x)
    n = count if n is None else n
    require(1 <= n <= count, "n", f"between 1 and the {count} particles", n)
    require(0 <= threshold <= 1, "threshold", "in [0, 1]", threshold)
    require(sampler.nfe_per_step == 1, "sampler", "one with a single evaluation per step", sampler)
    times = times.detach().double().cpu()
    if len(times) > 2:
        check_draws(sampler, posterior.schedule, x, times[0], times[1])
    current = ParticleSet.begin(x, posterior.condition(x, times[0], label))
    log_evidence, relative_ess = x.new_zeros((), dtype=torch.float64), []
    for t, s in pairwise(times[:-1]):
        relative_ess.append(current.ess / count)
        if relative_ess[-1] < threshold:
            log_evidence = log_evidence + log_mean_exp(current.log_weight)
            current = current.resampled(uniform_offset(current, randn), count)
        current = move(current, posterior, sampler, t, s, label, randn)
    relative_ess.append(current.ess / count)
    log_evidence = log_evidence + log_mean_exp(current.log_weight)
    current = current.resampled(uniform_offset(current, randn), n)
    return Particles(
        current.estimates.posterior.mean,
        log_evidence.cpu(),
        torch.stack(relative_ess),
        len(torch.unique(current.ancestor)),
    )


@dataclass(frozen=True)
class ParticleSet:
    """Weighted particles at one time.

    x: (N, C, *). log_weight: (N,) float64. estimates: those at x without and with y. sampler_state: the states of the
    sampler without and with y. ancestor: (N,), the number of the initial particle that each descends from.
    """

    x: Tensor
    log_weight: Tensor
    estimates: Conditioned
    sampler_state: tuple[State, State]
    ancestor: Tensor

    @classmethod
    def begin(cls, x: Tensor, estimates: Conditioned) -> ParticleSet:
        """Particles drawn from the prior, with the weights ψ(x) and no sampler states."""
        first = torch.arange(len(x), device=x.device)
        return cls(x, estimates.log_likelihood.double(), estimates, (None, None), first)

    @property
    def ess(self) -> Tensor:
        """The effective sample size: () float64 on the CPU, from 1 to N."""
        return effective_sample_size(self.log_weight).cpu()

    def resampled(self, offset: Tensor, n: int) -> ParticleSet:
        """Draws n particles of equal weight by systematic resampling; `offset` is uniform in [0, 1)."""
        index = systematic(self.log_weight, offset, n)
        return ParticleSet(
            self.x[index],
            torch.zeros_like(self.log_weight[index]),
            Conditioned(*(_rows(value, index) for value in self.estimates)),
            (_rows(self.sampler_state[0], index), _rows(self.sampler_state[1], index)),
            self.ancestor[index],
        )


def _rows(state: State, index: Tensor) -> State:
    """The rows `index` of all tensors in a sampler state."""
    if isinstance(state, Tensor):
        return state[index]
    if isinstance(state, Prediction):
        return Prediction(*(_rows(value, index) for value in state))
    return tuple(_rows(value, index) for value in state) if isinstance(state, tuple) else state


def uniform_offset(current: ParticleSet, randn: RandN) -> Tensor:
    """Draws a number uniform in [0, 1) from the stream of normal numbers: ()."""
    offset: Tensor = torch.special.ndtr(randn(current.log_weight[:, None])[0, 0])
    return offset


def systematic(log_weight: Tensor, offset: Tensor, n: int) -> Tensor:
    """Draws the indices of n particles by systematic resampling (Kitagawa 1996): log_weight (N,) -> (n,) int64.

    Index i is where the cumulative normalized weights reach (i + offset)/n. A particle is drawn n w / Σ w times,
    rounded up or down; for an `offset` uniform in [0, 1) this is unbiased.
    """
    cumulative = log_weight.softmax(0).cumsum(0)
    positions = (torch.arange(n, dtype=cumulative.dtype, device=cumulative.device) + offset.to(cumulative)) / n
    return torch.searchsorted(cumulative, positions * cumulative[-1]).clamp_max(len(log_weight) - 1)


def step_moments(
    sampler: Sampler, fixed: FixedPrediction, x_t: Tensor, t: Tensor, s: Tensor, state: State
) -> tuple[Tensor, Tensor, State]:
    """The moments of a step, the mean and the standard deviation of its Gaussian (B, C, *), and the next state."""
    mean, next_state = sampler.step(fixed, x_t, t, s, state, torch.zeros_like)
    std = sampler.step(fixed, x_t, t, s, state, torch.ones_like)[0] - mean
    return mean, std, next_state


def check_draws(sampler: Sampler, schedule: Schedule, like: Tensor, t: Tensor, s: Tensor) -> None:
    """Raises InputError for a sampler that draws no noise in a step from t to s.

    That depends on no estimate, so it is asked once and before any is made. like: (B, C, *).
    """
    zeros = torch.zeros_like(like[:1])
    _, std, _ = step_moments(sampler, FixedPrediction(schedule, Prediction(zeros)), zeros, t, s, None)
    if not bool((std > 0).all()):
        raise InputError(
            f"sampler: must draw noise, without which copies of a particle stay equal, got {sampler}; take ddpm or "
            "dpmpp_2m_sde, or the method mmps, which has no particles"
        )


def move(
    current: ParticleSet,
    posterior: Posterior,
    sampler: Sampler,
    t: Tensor,
    s: Tensor,
    label: Tensor | None,
    randn: RandN,
) -> ParticleSet:
    """Moves particles from t to s < t and multiplies their weights by those of the step."""
    without_y, with_y = (
        FixedPrediction(posterior.schedule, prediction)
        for prediction in (current.estimates.prior, current.estimates.posterior)
    )
    state, state_y = current.sampler_state
    prior_mean, state = sampler.step(without_y, current.x, t, s, state, torch.zeros_like)
    mean, std, state_y = step_moments(sampler, with_y, current.x, t, s, state_y)
    x = mean + std * randn(current.x)
    variance = std.double().square()
    proposal, prior = (Gaussian(m.double(), variance) for m in (mean, prior_mean))
    log_proposal_ratio = proposal.nll(x.double()) - prior.nll(x.double())
    estimates = posterior.condition(x, s, label)
    log_twist_ratio = estimates.log_likelihood.double() - current.estimates.log_likelihood.double()
    log_weight = current.log_weight + log_proposal_ratio + log_twist_ratio
    return ParticleSet(x, log_weight, estimates, (state, state_y), current.ancestor)
