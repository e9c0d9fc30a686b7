"""The likelihood as the average of importance weights of whole paths.

The forward process q draws a path x_0, ..., x_T from x. Its weight is w = p(x, path)/q(path|x), and

    p(x) = E_q w,        E log w = log p(x) - KL(q(path|x) || p(path|x)) <= log p(x)

(annealed importance sampling, Neal 2001; for diffusion models Sohl-Dickstein et al. 2015, arXiv 1503.03585, eq. 7-9).
The log of the mean of K weights is a bound that rises to log p(x) with K (IWAE; Burda et al. 2016, arXiv 1509.00519,
theorem 1).

In the thermodynamics of 2015, -log w is the work done along the path, -log p(x) the free energy difference, and the
excess of the work over it is dissipated (Jarzynski 1997). The exact denoiser with infinitely many steps dissipates
nothing.

Paths are drawn from their noisy end, by q(x_T|x) Π q(x_s|x_t, x). This is the same distribution, factored in the order
in which p is:

    -log w = log q(x_T|x)/p(x_T) + Σ log q(x_s|x_t, x)/p(x_s|x_t) - log p(x|x_0)
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
from diffusion.likelihood.bound import Quantization, checked_times, reconstruction
from diffusion.likelihood.kl import predict
from diffusion.samplers import RandN

# The effective sample size below which the mean weight depends on a few paths and says little about the rest.
ENOUGH = 10.0


@dataclass(frozen=True)
class PathWeights:
    """The importance weights of K independent paths for each example: `log_weights` (B, K) float64, in nats."""

    log_weights: Tensor

    @property
    def elbo(self) -> Tensor:
        """The mean of log w: (B,), on average a lower bound on log p(x)."""
        return self.log_weights.mean(1)

    @property
    def log_likelihood(self) -> Tensor:
        """The K-sample bound log mean w: (B,), on average a lower bound on log p(x)."""
        return log_mean_exp(self.log_weights)

    @property
    def second_cumulant(self) -> Tensor:
        """mean + ½ variance of log w: (B,), NaN for a single path. It is log p(x) if log w is normal, and no bound."""
        return variance(self.log_weights) / 2 + self.elbo

    @property
    def ess(self) -> Tensor:
        """The effective sample size: (B,), from 1 to K."""
        return effective_sample_size(self.log_weights)

    @property
    def variance(self) -> Tensor:
        """The variance of `log_likelihood`, by the jackknife (Efron and Stein 1981): (B,), NaN for a single path.

        (K-1)/K Σ (θ_i - θ̄)², where θ_i is the bound without path i. The delta method's 1/ESS - 1/K is less than 1 even
        where one path outweighs all others and the bound varies as much as log w does.
        """
        count = self.log_weights.shape[1]
        # Sums replace means, as the constant log(K - 1) does not change the variance.
        return variance(log_sum_exp_of_others(self.log_weights)) * (count - 1) ** 2 / count

    @property
    def reliable(self) -> Tensor:
        """Whether the K-sample bound may be read as an estimate of log p(x), `ess` >= `ENOUGH`: (B,) bool.

        The bound is then too low by about half the `variance` on average, less than 0.08 nats. This too is an estimate:
        it cannot account for a set of paths from which none was drawn.
        """
        return self.ess >= ENOUGH

    @property
    def excess(self) -> Tensor:
        """-log w + log mean w, the work dissipated on each path: (B, K) nats."""
        return self.log_likelihood[:, None] - self.log_weights

    def curve(self) -> dict[int, Tensor]:
        """The bound by groups of 1, 2, 4, ... paths, averaged over disjoint groups: (B,) for each size.

        Each group is the union of two groups of half its size, so the bound never falls. Paths beyond the last power of
        two are left out.
        """
        count = 1 << (self.log_weights.shape[1].bit_length() - 1)
        weights = self.log_weights[:, :count]
        sizes = [1 << power for power in range(count.bit_length())]
        return {size: log_mean_exp(weights.reshape(len(weights), -1, size)).mean(1) for size in sizes}


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(Σ w)² / Σ w² over the last axis: (*, K) -> (*), from 1 to K."""
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def variance(values: Tensor) -> Tensor:
    """The variance over the last axis, NaN for a single value: (*, K) -> (*)."""
    return values.var(-1) if values.shape[-1] > 1 else torch.full_like(values[..., 0], math.nan)


def log_mean_exp(x: Tensor) -> Tensor:
    """log mean exp over the last axis: (*, K) -> (*)."""
    return x.logsumexp(-1) - math.log(x.shape[-1])


def log_sum_exp_of_others(x: Tensor) -> Tensor:
    """log Σ_{j≠i} exp(x_j) at every i of the last axis, -inf for a single value: (*, K) -> (*, K).

    Partial sums from both ends are added. Subtracting x_i from the whole sum would cancel where x_i outweighs the rest.
    """
    none = torch.full_like(x[..., :1], -math.inf)
    before = torch.cat([none, x[..., :-1].logcumsumexp(-1)], -1)
    after = torch.cat([x[..., 1:].flip(-1).logcumsumexp(-1).flip(-1), none], -1)
    return torch.logaddexp(before, after)


@torch.no_grad()
def path_weights(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    *,
    paths: int,
    quantization: Quantization | None = None,
    variance_interp: float = 0.0,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> PathWeights:
    """Draws `paths` paths on the timestep grid `times`, decreasing, for each x (B, C, *), and returns their weights.

    It takes one denoiser evaluation per step and path. p(x) is the one that `bound.bound` bounds: the probability of
    quantized data with `quantization`, else the density. `variance_interp` has the meaning it has there.

    Raises InputError as `bound.bound` does, and unless 1 <= paths.
    """
    times = checked_times(x, times, quantization)
    require(paths >= 1, "paths", "at least 1", paths)
    drawn = [_log_weight(denoiser, x, times, quantization, variance_interp, label, randn) for _ in range(paths)]
    return PathWeights(torch.stack(drawn, 1))


def _log_weight(
    denoiser: AnyDenoiser,
    x: Tensor,
    times: Tensor,
    quantization: Quantization | None,
    variance_interp: float,
    label: Tensor | None,
    randn: RandN,
) -> Tensor:
    """log w of one path for each x: (B,) nats."""
    schedule, clean = denoiser.schedule, x.double()
    last = gaussian.marginal(schedule, clean, times[0])
    x_t = last.sample(randn(clean))
    # log q/p, in the order of the factors of p.
    log_ratio = gaussian.Gaussian(torch.zeros_like(clean), last.variance).nll(x_t) - last.nll(x_t)
    for t, s in pairwise(times):
        forward = gaussian.posterior(schedule, clean, x_t, t, s)
        mean, interp = predict(denoiser, x_t, t, label, x.dtype, variance_interp)
        model = gaussian.reverse(schedule, mean, x_t, t, s, variance_interp=interp)
        x_t = forward.sample(randn(clean))
        log_ratio = log_ratio + model.nll(x_t) - forward.nll(x_t)
    return -(log_ratio + reconstruction(schedule, clean, x_t, times[-1], quantization))
