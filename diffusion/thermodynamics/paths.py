"""The work along paths, forward and reverse, and the theorems that it obeys.

The work of a path is W = -log w (`likelihood.importance`), in nats, where w = p(x, path)/q(path|x), and the free energy
difference is ΔF = -log p(x). For an x, forward paths are drawn from q(path|x) and reverse paths from p(path|x):

    E_q exp(-(W - ΔF)) = 1                         Jarzynski 1997, arXiv cond-mat/9610209
    P_q(W) / P_p(W) = exp(W - ΔF)                  Crooks 1999, arXiv cond-mat/9901352
    E_p W <= ΔF <= E_q W                           the second law, both ways

The last line bounds log p(x) from both sides (Grosse, Ghahramani, Adams 2015, arXiv 1511.02543, section 3). A path of
p(path|x) is to be had for an x that the model draws itself: the one by which it was drawn. ΔF is not known there, but
it is the same for both directions, and drops out of the difference D = W_forward - W_reverse of two independent paths
of one x. From Crooks' theorem, over all x together,

    P(D) / P(-D) = exp(D),        E exp(-D) = 1,        P(D < 0) = E exp(-D) [D > 0].

The last of these is a mean of bounded numbers, and can be tested by few paths.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.likelihood.bound import Quantization, checked_times, reconstruction
from diffusion.likelihood.kl import predict
from diffusion.samplers import RandN
from diffusion.schedules import expand

# The logarithm of the least weight of a gray level, relative to the nearest one, that the decoder draws.
TINY = -50.0
# The values of levels that are held at once, beyond one scalar's own.
AT_ONCE = 2**22


@torch.no_grad()
def reverse_paths(
    denoiser: AnyDenoiser,
    like: Tensor,
    times: Tensor,
    *,
    quantization: Quantization | None = None,
    variance_interp: float = 0.0,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> tuple[Tensor, Tensor]:
    """Draws an example and its path from the model, and returns the example and log w: (B, *), (B,) float64.

    The examples have the shape and the network the dtype of `like` (B, C, *). The model is the one of
    `importance.path_weights`, with the same arguments: DDPM steps on the timestep grid `times`, then the decoder.

    Raises InputError unless `times` decreases strictly.
    """
    times = checked_times(torch.zeros_like(like), times, None)
    schedule, blank = denoiser.schedule, torch.zeros_like(like, dtype=torch.float64)
    start = gaussian.marginal(schedule, blank, times[0])
    x_t = start.sample(randn(blank))
    log_weight = -start.nll(x_t)
    for t, s in pairwise(times):
        mean, interp = predict(denoiser, x_t, t, label, like.dtype, variance_interp)
        model = gaussian.reverse(schedule, mean, x_t, t, s, variance_interp=interp)
        x_s = model.sample(randn(blank))
        # q(path|x) in the order of the forward process, in which it needs no x but for the first step.
        log_weight = log_weight - model.nll(x_s) + gaussian.transition(schedule, x_s, s, t).nll(x_t)
        x_t = x_s
    x = decoded(denoiser, x_t, times[-1], quantization, randn)
    first = gaussian.marginal(schedule, x, times[-1]).nll(x_t)
    return x, log_weight + first - reconstruction(schedule, x, x_t, times[-1], quantization)


def decoded(denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, quantization: Quantization | None, randn: RandN) -> Tensor:
    """Draws x from the decoder p(x|x_t) (`bound.reconstruction`): (B, *), of the values of `quantization` if given."""
    alpha, sigma = denoiser.schedule(t)
    mean, std = x_t / expand(alpha, x_t), float(sigma / alpha)
    noise = randn(x_t)
    if quantization is None:
        return mean + std * noise
    reach = min(quantization.count - 1, math.ceil(std * math.sqrt(-2 * TINY) / quantization.spacing) + 1)
    # Data of 16 bits have many levels within reach of every scalar.
    means, noises = (torch.split(each.flatten(), max(1, AT_ONCE // (2 * reach + 1))) for each in (mean, noise))
    drawn = [_drawn(m, n, std, reach, quantization) for m, n in zip(means, noises, strict=True)]
    return torch.cat(drawn).reshape(mean.shape)


def _drawn(mean: Tensor, noise: Tensor, std: float, reach: int, quantization: Quantization) -> Tensor:
    """The values for scalars (N,), by normal noise (N,), among the levels within `reach` of the nearest one: (N,)."""
    nearest = ((mean - quantization.low) / quantization.spacing).round().clamp(0, quantization.count - 1)
    levels = nearest + torch.arange(-reach, reach + 1).to(nearest).reshape(-1, *[1] * nearest.ndim)
    values = quantization.low + quantization.spacing * levels
    log_weights = -(mean - values).square() / (2 * std**2)
    outside = (levels < 0) | (levels > quantization.count - 1)
    shares = log_weights.masked_fill(outside, -math.inf).softmax(0).cumsum(0)
    index = (torch.special.ndtr(noise) > shares).sum(0, keepdim=True).clamp_max(2 * reach)
    return values.gather(0, index)[0]


def free_energy(forward: Tensor, reverse: Tensor, *, iterations: int = 100) -> Tensor:
    """ΔF by the work of K forward and R reverse paths of each x, (B, K) and (B, R): (B,) nats.

    It is the root of Bennett's acceptance ratio (Bennett 1976; Shirts et al. 2003), Σ_q f(M + W - ΔF) = Σ_p f(-M
    - W + ΔF), f(u) = 1/(1 + e^u), M = log(K/R), of least variance of all such estimates for many paths.
    """
    shift = math.log(forward.shape[1] / reverse.shape[1])
    both = torch.cat([forward, reverse], 1)
    low, high = both.amin(1) - abs(shift) - 50, both.amax(1) + abs(shift) + 50
    for _ in range(iterations):
        middle = (low + high) / 2
        excess = torch.sigmoid(-(shift + forward - middle[:, None])).sum(1)
        excess = excess - torch.sigmoid(shift + reverse - middle[:, None]).sum(1)
        # The sum over forward paths grows with ΔF, that over reverse ones falls.
        low, high = torch.where(excess < 0, middle, low), torch.where(excess < 0, high, middle)
    return (low + high) / 2


def crossing(difference: Tensor) -> Tensor:
    """[D < 0] - exp(-D) [D > 0], of mean 0 by Crooks' theorem, for differences D (*) of work: (*), in [-1, 1]."""
    return (difference < 0).to(difference) - torch.where(difference > 0, (-difference.clamp_min(0)).exp(), 0.0)
