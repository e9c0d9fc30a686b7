"""Restoration by selection: the prior decides what there is, y which of it, the posterior denoiser does the rest.

Data of several kinds, the modes of a mixture, take their decision at log-SNRs at which x given x_t is not Gaussian, and
a closure of `posterior.py` leads them to the wrong kinds. So many particles follow the prior's own flow, without y, to
a level where x given x_t is about Gaussian. There p(y|x_t) is that of the closure, particles are resampled by it, and
each goes on alone with E[x|x_t, y].

Both errors can be made small: what is wrong with the closure at that level by a later level, where the weights fall on
fewer particles, and that by more of them. In the limit it is importance sampling of the prior by y. The mean weight
estimates p(y) as in `work.py`.

Before the selection steps are those of a flow, whose solver is of second order, after it those of a reverse SDE, of
first order, and within one mode: `split_at` moves steps of a grid from one to the other accordingly.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.errors import require
from diffusion.grids import interp
from diffusion.likelihood.importance import log_mean_exp
from diffusion.restoration.particles import FixedPrediction, Particles, ParticleSet, step_moments, uniform
from diffusion.restoration.posterior import Posterior
from diffusion.samplers import DPMSolver, RandN, Sampler, SDESolver
from diffusion.schedules import Schedule

# The ratio of the two errors below. With it 26 of 100 steps are for after the selection, where the mixtures of
# `benchmarks/posterior.py` are nearer to the posterior than with the 13 of the measured grid, and than with 33.
ORDERS = 24.0
# The log-SNR of a time that was computed from a log-SNR misses that by rounding; it is far from a step of any grid.
ROUNDING = 1e-6


def reaches(log_snr: Tensor, at: float) -> Tensor:
    """Which of them are `at` or more, but for rounding: (T,) -> (T,) bool."""
    return log_snr >= at - ROUNDING


def split_at(schedule: Schedule, times: Tensor, at: float) -> Tensor:
    """As many times, from the same first to the same last one, of which one has the log-SNR `at`: spaced as given
    before it, evenly in log-SNR after it.

    Of n calls n₁ come up to it. With errors of a/n₁² before and b/n₂ after, the n₂ that make the sum least are
    n₁^1.5 b/(2a). Times that have as many calls after `at` already, or none, are returned as they are.
    """
    log_snr = schedule.log_snr(times[:-1].double())
    calls, given = len(log_snr), int(reaches(log_snr, at).sum())
    after = max(k for k in range(calls) if ORDERS * k <= (calls - k) ** 1.5)
    if not 0 < given < after:
        return times
    order = torch.arange(calls, dtype=torch.float64)
    reached = interp(torch.tensor([at], dtype=torch.float64), log_snr, order)
    before = interp(torch.linspace(0, float(reached), calls - after, dtype=torch.float64), order, log_snr)
    later = torch.linspace(at, float(log_snr[-1]), after + 1, dtype=torch.float64)[1:]
    return torch.cat([schedule.time(torch.cat([before, later])), times[-1:].double()])


@torch.no_grad()
def resample_at(
    posterior: Posterior,
    x: Tensor,
    times: Tensor,
    *,
    at: float,
    n: int | None = None,
    flow: Sampler = DPMSolver(),  # noqa: B008
    sampler: Sampler = SDESolver(),  # noqa: B008
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Particles:
    """n restorations, by default N, from N particles x (N, C, *), which are at times[0].

    `flow` takes them to the first of the times of a log-SNR of at least `at`, at most to the last before the clean
    end; `sampler` takes those selected on from there, and draws the noise that tells copies apart. A step is one
    call of the denoiser, with backward passes only after the selection.

    Raises InputError unless both samplers call once a step, `sampler` draws noise and 1 <= n <= N.
    """
    count = len(x)
    n = count if n is None else n
    require(1 <= n <= count, "n", f"between 1 and the {count} particles", n)
    for name, each in (("flow", flow), ("sampler", sampler)):
        require(each.nfe_per_step == 1, name, "one with a call a step", each)
    times = times.detach().double().cpu()
    late = reaches(posterior.schedule.log_snr(times[:-1]), at).nonzero()
    switch = int(late[0]) if len(late) else len(times) - 2
    # Whether it draws noise depends on no estimate: known before any is made. The step onto the clean end has next to
    # none by any sampler.
    if switch < len(times) - 2:
        nothing = torch.zeros_like(x[:1])
        blank = FixedPrediction(posterior.schedule, Prediction(nothing))
        step_moments(sampler, blank, nothing, times[switch], times[switch + 1], None)
    state = None
    for t, s in pairwise(times[: switch + 1]):
        x, state = flow.step(
            FixedPrediction(posterior.schedule, posterior.denoiser(x, t, label)), x, t, s, state, randn
        )
    current = ParticleSet.begin(x, posterior.condition(x, times[switch], label))
    chosen = current.resampled(uniform(current, randn), n)
    x, prediction, state = chosen.x, chosen.at.posterior, None
    for t, s in pairwise(times[switch:]):
        prediction = prediction if t == times[switch] else posterior(x, t, label)
        x, state = sampler.step(FixedPrediction(posterior.schedule, prediction), x, t, s, state, randn)
    share = current.relative_ess[None] / count
    return Particles(x, log_mean_exp(current.log_weight).cpu(), share, len(torch.unique(chosen.ancestor)))
