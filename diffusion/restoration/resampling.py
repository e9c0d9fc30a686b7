"""Restoration by importance resampling at one log-SNR: particles follow the prior down to it, and y selects among them.

The prior decides which modes there are, y selects among them, and the posterior denoiser does the rest. Data of several
kinds, the modes of a mixture, decide between them at log-SNRs at which x given x_t is not Gaussian; there a twisting
function of `posterior.py` leads to the wrong modes. So several particles follow the prior's own probability flow,
without y, to a log-SNR `at` at which x given x_t is about Gaussian. There the twisting function is about p(y|x_t):
particles are resampled by it, and each goes on alone with E[x|x_t, y].

Two errors remain, and both can be made small: that of the twisting function at this log-SNR by a higher `at`, where the
weights fall on fewer particles, and that of the few particles by more of them. In the limit this is importance sampling
of the prior by y. The mean weight estimates p(y) as in `likelihood/importance.py`.

The steps before the resampling are those of the flow, whose solver is of second order. The steps after it are those of
a reverse SDE, of first order, and within one mode. `split_at` moves steps of a grid from one to the other accordingly.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.grids import interp
from diffusion.likelihood.importance import log_mean_exp
from diffusion.restoration.particles import FixedPrediction, Particles, ParticleSet, check_draws, uniform_offset
from diffusion.restoration.posterior import Posterior
from diffusion.samplers import DPMSolver, RandN, Sampler, SDESolver
from diffusion.schedules import Schedule

# The ratio 2a/b of the errors in `split_at`. With it 26 of 100 steps come after the resampling. On the mixtures of
# `benchmarks/posterior.py` this is nearer to the posterior than the 13 of the measured grid, and than 33.
ERROR_RATIO = 24.0
# A time that was computed from a log-SNR has that log-SNR up to rounding, of much less than a step of any grid.
ROUNDING = 1e-6


def reaches(log_snr: Tensor, at: float) -> Tensor:
    """Whether each log-SNR is `at` or more, up to rounding: (T,) -> (T,) bool."""
    return log_snr >= at - ROUNDING


def split_at(schedule: Schedule, times: Tensor, at: float) -> Tensor:
    """Returns a grid of as many times between the same ends, one of which has the log-SNR `at`.

    The times before it are spaced as in `times`, those after it evenly in log-SNR. Of n evaluations n₁ are made before
    `at` and n₂ from there on. With errors of a/n₁² before and b/n₂ after, the sum is least at n₂ = n₁^1.5 b/(2a). A
    grid that has this many evaluations from `at` on already, or none, is returned as it is.
    """
    log_snr = schedule.log_snr(times[:-1].double())
    evaluations, given = len(log_snr), int(reaches(log_snr, at).sum())
    after = max(k for k in range(evaluations) if ERROR_RATIO * k <= (evaluations - k) ** 1.5)
    if not 0 < given < after:
        return times
    order = torch.arange(evaluations, dtype=torch.float64)
    position = interp(torch.tensor([at], dtype=torch.float64), log_snr, order)
    before = interp(torch.linspace(0, float(position), evaluations - after, dtype=torch.float64), order, log_snr)
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
    """Draws n restorations, by default N, from N particles x (N, C, *), which are at times[0].

    `flow` takes the particles to the first of the times with a log-SNR of at least `at`, or to the last before the
    clean end. There they are resampled. `sampler` takes the resampled ones on, and draws the noise without which copies
    would stay equal. A step takes one evaluation of the denoiser, with backward passes only from the resampling on.

    Raises InputError unless both samplers take one evaluation per step, `sampler` draws noise and 1 <= n <= N.
    """
    count = len(x)
    n = count if n is None else n
    require(1 <= n <= count, "n", f"between 1 and the {count} particles", n)
    for name, each in (("flow", flow), ("sampler", sampler)):
        require(each.nfe_per_step == 1, name, "one with a single evaluation per step", each)
    times = times.detach().double().cpu()
    late = reaches(posterior.schedule.log_snr(times[:-1]), at).nonzero()
    switch = int(late[0]) if len(late) else len(times) - 2
    # The step onto the clean end has next to no noise with any sampler.
    if switch < len(times) - 2:
        check_draws(sampler, posterior.schedule, x, times[switch], times[switch + 1])
    state = None
    for t, s in pairwise(times[: switch + 1]):
        x, state = flow.step(
            FixedPrediction(posterior.schedule, posterior.denoiser(x, t, label)), x, t, s, state, randn
        )
    current = ParticleSet.begin(x, posterior.condition(x, times[switch], label))
    resampled = current.resampled(uniform_offset(current, randn), n)
    x, prediction, state = resampled.x, resampled.estimates.posterior, None
    for t, s in pairwise(times[switch:]):
        prediction = prediction if t == times[switch] else posterior(x, t, label)
        x, state = sampler.step(FixedPrediction(posterior.schedule, prediction), x, t, s, state, randn)
    relative_ess = current.ess[None] / count
    return Particles(x, log_mean_exp(current.log_weight).cpu(), relative_ess, len(torch.unique(resampled.ancestor)))
