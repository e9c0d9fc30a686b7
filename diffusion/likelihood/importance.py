"""Work along trajectories, and the likelihood as the average of its exponential.

Of a path x_0, ..., x_T that the forward process draws from x, the work is W = -log p(x, path)/q(path|x), and (Jarzynski
1997; Neal 2001; Sohl-Dickstein et al. 2015, arXiv 1503.03585, eq. 7-9)

    p(x) = E_q exp(-W),        E W = -log p(x) + KL(q(path|x) || p(path|x)) >= -log p(x)

What is above is dissipated: with infinitely many steps and the exact denoiser, nothing. The mean of exp(-W) over K
paths gives a bound that rises to log p(x) with K (Burda et al. 2016, arXiv 1509.00519, theorem 1). Paths are drawn from
their end, by q(x_T|x) Π q(x_s|x_t, x), the same law in the order in which p has its factors:

    W = log q(x_T|x)/p(x_T) + Σ log q(x_s|x_t, x)/p(x_s|x_t) - log p(x|x_0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.likelihood.bound import Levels, check, reconstruction
from diffusion.likelihood.kl import estimate
from diffusion.samplers import RandN

# Below this effective number of paths the average of exp(-W) hangs on a few of them, and says little about the rest.
ENOUGH = 10.0


@dataclass(frozen=True)
class Works:
    """The works of K independent paths for each example: `values` (B, K) float64, in nats."""

    values: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean work: (B,), on average an upper bound on -log p(x)."""
        return self.values.mean(1)

    @property
    def log_likelihood(self) -> Tensor:
        """The K-sample bound log mean exp(-W): (B,), on average a lower bound on log p(x)."""
        return log_mean_exp(-self.values)

    @property
    def second_cumulant(self) -> Tensor:
        """-mean + ½ variance: (B,), log p(x) if works were normal; NaN for a single path. Not a bound."""
        return variance(self.values) / 2 - self.mean

    @property
    def effective(self) -> Tensor:
        """The effective number of paths (Σ e^-W)² / Σ e^-2W: (B,), from 1 to K."""
        return (2 * (-self.values).logsumexp(1) - (-2 * self.values).logsumexp(1)).exp()

    @property
    def variance(self) -> Tensor:
        """Of `log_likelihood`, by the jackknife (Efron and Stein 1981): (B,), NaN for a single path.

        (K-1)/K Σ (θ_i - θ̄)², where θ_i is the bound without path i. The delta method's 1/effective - 1/K is less than
        1 even where one path outweighs all others, and the bound varies as much as the works.
        """
        count = self.values.shape[1]
        # Sums instead of means: log(K - 1) is the same in all.
        return variance(log_sum_exp_of_others(-self.values)) * (count - 1) ** 2 / count

    @property
    def tight(self) -> Tensor:
        """Whether the K-sample bound may be called tight: (B,) bool, at least `ENOUGH` paths count.

        What is missing on average is then about half the `variance`, less than 0.08 nats. That too is an estimate: it
        cannot see a part of the paths of which none was drawn.
        """
        return self.effective >= ENOUGH

    @property
    def dissipated(self) -> Tensor:
        """W - ΔF by the free energy ΔF = -log p of all paths together: (B, K), for a histogram."""
        return self.values + self.log_likelihood[:, None]

    def curve(self) -> dict[int, Tensor]:
        """The bound of 1, 2, 4, ... paths at a time: (B,) each, averaged over disjoint groups of all paths.

        Groups are made of two of the size before, so that the bound never falls. Paths beyond the last power of two
        are left out.
        """
        count = 1 << (self.values.shape[1].bit_length() - 1)
        works = self.values[:, :count]
        sizes = [1 << power for power in range(count.bit_length())]
        return {size: log_mean_exp(-works.reshape(len(works), -1, size)).mean(1) for size in sizes}


def variance(values: Tensor) -> Tensor:
    """Over the last axis, NaN for a single value: (*, K) -> (*)."""
    return values.var(-1) if values.shape[-1] > 1 else torch.full_like(values[..., 0], math.nan)


def log_mean_exp(x: Tensor) -> Tensor:
    """log mean exp over the last axis: (*, K) -> (*)."""
    return x.logsumexp(-1) - math.log(x.shape[-1])


def log_sum_exp_of_others(x: Tensor) -> Tensor:
    """log Σ_{j≠i} exp(x_j) at every i of the last axis, -inf for a single value: (*, K) -> (*, K).

    Added up from both ends, as a difference to the whole sum would lose all digits of a value that outweighs the rest.
    """
    none = torch.full_like(x[..., :1], -math.inf)
    before = torch.cat([none, x[..., :-1].logcumsumexp(-1)], -1)
    after = torch.cat([x[..., 1:].flip(-1).logcumsumexp(-1).flip(-1), none], -1)
    return torch.logaddexp(before, after)


@torch.no_grad()
def works(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    *,
    paths: int,
    levels: Levels | None = None,
    fraction: float = 0.0,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Works:
    """The works of that many paths on the grid `times`, decreasing, for each x (B, C, *); a call per step and path.

    -log p(x) is that of the model `likelihood.bound` bounds: of the probability of quantized data with `levels`, of the
    density without. Its mean is that bound. `fraction` as there.

    Raises InputError as `bound` does, and unless 1 <= paths.
    """
    times = check(x, times, levels)
    require(paths >= 1, "paths", "at least 1", paths)
    drawn = [work(denoiser, x, times, levels, fraction, label, randn) for _ in range(paths)]
    return Works(torch.stack(drawn, 1))


def work(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    levels: Levels | None,
    fraction: float,
    label: Tensor | None,
    randn: RandN,
) -> Tensor:
    """The work of one path for each x: (B,) nats."""
    schedule, clean = denoiser.schedule, x.double()
    last = gaussian.marginal(schedule, clean, times[0])
    x_t = last.sample(randn(clean))
    total = gaussian.Gaussian(torch.zeros_like(clean), last.variance).nll(x_t) - last.nll(x_t)
    for t, s in pairwise(times):
        forward = gaussian.posterior(schedule, clean, x_t, t, s)
        mean, part = estimate(denoiser, x_t, t, label, x.dtype, fraction)
        model = gaussian.reverse(schedule, mean, x_t, t, s, fraction=part)
        x_t = forward.sample(randn(clean))
        total = total + model.nll(x_t) - forward.nll(x_t)
    return total + reconstruction(schedule, clean, x_t, times[-1], levels)
