"""Works against a model whose likelihood is known: a Gaussian denoiser on a grid is a chain of affine maps."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR
from diffusion.likelihood.bound import Levels, bound
from diffusion.likelihood.importance import ENOUGH, Works, works
from diffusion.samplers import DDPM, RandN, sample
from diffusion.schedules import Cosine
from tests.oracles import GaussianOracle, MixtureOracle, affine, correlated, sigma_points

SCHEDULE = Cosine(8.0, -8.0)
X = torch.tensor([[0.4, -0.9]], dtype=torch.float64)


def log_density(oracle: GaussianOracle, times: Tensor, x: Tensor) -> float:
    """log p(x) of the model on the grid: its reverse trajectory and its decoder are one affine map of their noise."""
    alpha, sigma = oracle.schedule(times[-1])

    def run(x_t: Tensor, randn: RandN) -> Tensor:
        x_0 = sample(oracle, DDPM(), x_t, times, randn=randn)
        return (x_0 + sigma * randn(x_0)) / alpha

    start = oracle.schedule(times[0])[1].square() * torch.eye(2, dtype=torch.float64)
    mean, covariance = affine(run, (2,)).moments(torch.zeros(2, dtype=torch.float64), start)
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)[0].item()


def drawn(steps: int, rows: int, paths: int, seed: int = 0) -> tuple[Works, float]:
    """Independent works of one x, (rows, paths), and the log-likelihood."""
    oracle, times = correlated(SCHEDULE), UniformLogSNR()(SCHEDULE, steps)
    generator = torch.Generator().manual_seed(seed)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    # Rows of one batch are as independent as paths, and much faster.
    values = works(oracle, X.expand(rows * paths, 2), times, paths=1, randn=randn).values
    return Works(values.reshape(rows, paths)), log_density(oracle, times, X)


@pytest.mark.parametrize("steps", [32, 128])
def test_the_average_of_the_exponential_work_is_the_likelihood(steps: int) -> None:
    """Jarzynski: E exp(-(W - ΔF)) = 1, at any number of steps."""
    result, log_p = drawn(steps, 20_000, 1)
    weights = (-(result.values[:, 0] + log_p)).exp()
    error = (weights.std() / math.sqrt(len(weights))).item()
    assert weights.mean().item() == pytest.approx(1, abs=1.96 * error) and error < 0.1
    assert result.values.mean().item() > -log_p, "work is dissipated"


def test_the_mean_work_is_the_bound() -> None:
    """Both are quadratic in the noise, so that a few points integrate them exactly."""
    oracle, steps = correlated(SCHEDULE), 6
    times, points = UniformLogSNR()(SCHEDULE, steps), sigma_points(2 * (steps + 2))
    used = iter(points.split(2, dim=1))
    rows = X.expand(len(points), 2)
    mean_work = works(oracle, rows, times, paths=1, randn=lambda like: next(used)).mean.mean().item()
    two = sigma_points(2)
    expected = bound(oracle, X.expand(4, 2), times, randn=lambda like: two).total.mean().item()
    assert mean_work == pytest.approx(expected, rel=1e-10)


def test_the_bound_of_k_paths_crosses_none_of_its_limits() -> None:
    result, log_p = drawn(24, 400, 64)
    curve = {size: (values.mean().item(), values.std().item() / 20) for size, values in result.curve().items()}
    assert list(curve) == [1, 2, 4, 8, 16, 32, 64]
    assert curve[1][0] == pytest.approx(-result.mean.mean().item(), rel=1e-12)
    assert curve[64][0] == pytest.approx(result.log_likelihood.mean().item(), rel=1e-12)
    means = [mean for mean, _ in curve.values()]
    assert means == sorted(means)
    assert all(mean < log_p + 2.6 * error for mean, error in curve.values())
    assert log_p - curve[64][0] < (log_p - curve[1][0]) / 10


def test_the_bound_never_falls_with_k_for_any_works() -> None:
    values = 5 * torch.randn(50, 37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = torch.stack(list(Works(values).curve().values()))
    assert curve.shape == (6, 50) and bool((curve.diff(dim=0) >= -1e-12).all())


def test_what_is_dissipated_falls_as_one_over_the_steps() -> None:
    gaps = []
    for steps in (32, 128):
        result, log_p = drawn(steps, 4000, 1)
        gaps.append(result.mean.mean().item() + log_p)
    assert math.log(gaps[0] / gaps[1]) / math.log(4) == pytest.approx(1, abs=0.15)


def test_effective_paths_count_those_that_matter() -> None:
    even, one = torch.zeros(1, 8, dtype=torch.float64), torch.tensor([[0.0] + [50.0] * 7], dtype=torch.float64)
    assert Works(even).effective.item() == pytest.approx(8) and Works(one).effective.item() == pytest.approx(1)
    assert Works(even + 1e4).log_likelihood.item() == pytest.approx(-1e4)
    assert Works(even).variance.item() == pytest.approx(0, abs=1e-12)


def test_the_bound_is_called_tight_only_when_enough_paths_count() -> None:
    fine, log_p = drawn(384, 100, 64)
    assert bool(fine.tight.all())
    assert fine.log_likelihood.mean().item() == pytest.approx(log_p, abs=0.02)
    coarse, log_p = drawn(6, 100, 32)
    assert coarse.tight.double().mean() < 0.5 and float(coarse.effective.median()) < ENOUGH
    assert log_p - coarse.log_likelihood.mean().item() > 0.05
    assert not drawn(256, 4, 4)[0].tight.any(), "four paths are never enough"
    # The most that a tight bound may miss by its variance: one weight has all the share that is allowed.
    heavy = math.sqrt(0.0999)
    weights = torch.tensor([[heavy] + [(1 - heavy) / 9999] * 9999], dtype=torch.float64)
    worst = Works(-weights.log())
    assert bool(worst.tight) and 0.07 < worst.variance.item() / 2 < 0.08


def test_what_a_tight_bound_misses_is_about_half_its_variance() -> None:
    result, log_p = drawn(128, 4000, 32)
    assert result.tight.double().mean() > 0.85
    missing, half = log_p - result.log_likelihood, result.variance.mean().item() / 2
    # Neither a quarter nor all of it: the noise of so many bounds is smaller than that.
    assert missing.mean().item() == pytest.approx(half, rel=0.5) and missing.std().item() / math.sqrt(4000) < half / 5


def test_the_second_cumulant_is_the_likelihood_when_works_are_nearly_normal() -> None:
    result, log_p = drawn(256, 100, 64)
    assert result.second_cumulant.mean().item() == pytest.approx(log_p, abs=0.01)
    assert -result.mean.mean().item() < log_p - 0.05
    assert bool(Works(torch.zeros(1, 1)).second_cumulant.isnan())


def test_the_variance_of_the_bound_is_that_of_its_repetitions() -> None:
    result, _ = drawn(64, 500, 32)
    assert result.variance.mean().item() == pytest.approx(result.log_likelihood.var().item(), rel=0.3)
    assert bool(Works(torch.zeros(1, 1)).variance.isnan())


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("paths", [2, 16])
def test_the_variance_of_the_bound_grows_with_that_of_the_works(spread: float, paths: int) -> None:
    """From an average of all paths to one that outweighs the others: within 14 % of the standard deviation."""
    generator = torch.Generator().manual_seed(0)
    result = Works(spread * torch.randn(20_000, paths, generator=generator, dtype=torch.float64))
    claimed = result.variance.mean().sqrt().item()
    assert claimed == pytest.approx(result.log_likelihood.std().item(), rel=0.15)


def test_the_variance_of_the_bound_is_that_of_leaving_out_each_path_in_turn() -> None:
    """Also where one path outweighs all others by more than float64 has digits."""
    values = torch.tensor([[0.3, -1.0, 0.8, 2.0], [0.0, 50.0, 53.0, 51.0]], dtype=torch.float64)
    left = [Works(torch.cat([values[:, :i], values[:, i + 1 :]], 1)).log_likelihood for i in range(4)]
    expected = 3 / 4 * torch.stack(left).sub(sum(left) / 4).square().sum(0)
    torch.testing.assert_close(Works(values).variance, expected, rtol=1e-12, atol=0.0)
    shifted = Works(values + 1e4).variance
    torch.testing.assert_close(shifted, expected, rtol=1e-9, atol=0.0)


def test_works_of_quantized_data_give_their_probability() -> None:
    levels = Levels(16, -1.5, 1.5)
    numbers, weights = torch.tensor([1, 6, 7, 12]), torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    atoms = (levels.low + levels.spacing * numbers)[:, None].double()
    schedule = Cosine()
    times = UniformLogSNR()(schedule, 400)
    generator = torch.Generator().manual_seed(0)
    result = works(
        MixtureOracle(schedule, atoms, 0.0, weights),
        atoms.repeat(64, 1),
        times,
        paths=4,
        levels=levels,
        randn=lambda like: torch.randn(like.shape, generator=generator, dtype=torch.float64),
    )
    together = Works(result.values.reshape(64, 4, 4).transpose(0, 1).reshape(4, 256))
    assert torch.allclose(together.log_likelihood, weights.log(), atol=0.04)


def test_bad_arguments_are_named() -> None:
    oracle, times = correlated(SCHEDULE), torch.tensor([1.0, 0.0])
    with pytest.raises(InputError, match="paths: must be at least 1, got 0"):
        works(oracle, X, times, paths=0)
    with pytest.raises(InputError, match=re.escape("x: must be finite, got nan in example 0")):
        works(oracle, X * math.nan, times, paths=1)
