"""Replacement keeps what is known on the forward process; alone it is biased, and repeats repair it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.grids import UniformLogSNR
from diffusion.operators import Mask
from diffusion.restoration.replacement import ReplacementStep
from diffusion.samplers import DDIM, DDPM, SAMPLERS, Sampler, sample, trajectory
from diffusion.schedules import Cosine
from tests.oracles import GaussianOracle, affine, correlated


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Two correlated numbers, the first of which is known.
KNOWN = torch.tensor([True, False])
FIRST = torch.tensor([[1.0, 0.0]], dtype=torch.float64)


def replaced(sampler: Sampler, repeats: int) -> tuple[Tensor, Tensor, Tensor, GaussianOracle]:
    """Returns times, mean and variance of both numbers at each of them, (T, 2), for y = 1, and the exact posterior."""
    schedule = Cosine()
    oracle, y = correlated(schedule), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    times = UniformLogSNR(first=-8.0, last=6.0)(schedule, 50)
    whole = ReplacementStep(sampler, Mask(KNOWN), y, repeats)
    produced = affine(lambda x, r: torch.stack(list(trajectory(oracle, whole, x, times, randn=r)), 1), (2,))
    start = schedule(times[0])[1] ** 2 * torch.eye(2, dtype=torch.float64)
    mean, covariance = produced.moments(torch.zeros(2, dtype=torch.float64), start)
    exact = oracle.posterior(FIRST, torch.ones(1, dtype=torch.float64), 0.0)
    return times, mean.reshape(-1, 2), covariance.diag().reshape(-1, 2), exact


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_known_part_follows_the_forward_process_at_every_time(repeats: int) -> None:
    times, mean, variance, _ = replaced(DDPM(), repeats)
    alpha, sigma = Cosine()(times)
    assert torch.allclose(mean[1:, 0], alpha[1:], rtol=0, atol=1e-12)
    assert torch.allclose(variance[1:, 0], sigma[1:] ** 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_replacement_is_biased_and_repeats_repair_it(name: str) -> None:
    """The unknown number has mean 1.98 given the other; without repeats it falls short of it by 0.6 or more."""
    biases = []
    for repeats in (1, 4, 16):
        _, mean, variance, exact = replaced(SAMPLERS[name](), repeats)
        biases.append((exact.mean[1] - mean[-1, 1]).item())
    assert biases[0] > 0.5
    assert biases[0] / biases[1] > 2.5 and biases[1] / biases[2] > 3
    assert biases[2] < 0.08
    assert variance[-1, 1].item() == pytest.approx(exact.covariance[1, 1].item(), rel=0.3), "and the spread is kept"


def test_replacement_of_everything_is_the_forward_process() -> None:
    oracle, y = correlated(Cosine()), torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    whole = ReplacementStep(DDIM(), Mask(torch.tensor([True, True])), y)
    result = sample(oracle, whole, normal(5, 2), UniformLogSNR()(Cosine(), 4), randn=torch.zeros_like)
    assert torch.allclose(result, y.expand(5, 2), rtol=1e-5)
    assert ReplacementStep(SAMPLERS["heun"](), Mask(KNOWN), y, 3).nfe_per_step == 6


@pytest.mark.parametrize("repeats", [1, 3])
def test_every_repeat_draws_the_known_part_and_all_but_the_last_go_back(repeats: int) -> None:
    drawn: list[Tensor] = []

    def randn(like: Tensor) -> Tensor:
        drawn.append(like)
        return torch.zeros_like(like)

    t, s = (torch.tensor(v, dtype=torch.float64) for v in (0.5, 0.4))
    whole = ReplacementStep(DDIM(), Mask(KNOWN), torch.zeros(1, 2, dtype=torch.float64), repeats)
    whole.step(correlated(Cosine()), normal(4, 2), t, s, None, randn)
    assert len(drawn) == repeats + (repeats - 1), "DDIM draws nothing"


def test_no_repeat_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="repeats: must be at least 1, got 0"):
        ReplacementStep(DDIM(), Mask(KNOWN), torch.zeros(1, 2), 0)
