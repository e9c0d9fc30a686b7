"""Path weights against a model whose likelihood is known: a Gaussian denoiser on a grid is a chain of affine maps."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR
from diffusion.likelihood.bound import Quantization, bound
from diffusion.likelihood.importance import ENOUGH, PathWeights, log_sum_exp_of_others, path_weights
from diffusion.samplers import DDPM, RandN, sample
from diffusion.schedules import Cosine
from tests.oracles import GaussianOracle, MixtureOracle, affine, correlated, sigma_points

SCHEDULE = Cosine(8.0, -8.0)
X = torch.tensor([[0.4, -0.9]], dtype=torch.float64)


def log_density(oracle: GaussianOracle, times: Tensor, x: Tensor) -> float:
    """Returns log p(x) of the model on the grid: its reverse trajectory and decoder are affine in their noise."""
    alpha, sigma = oracle.schedule(times[-1])

    def run(x_t: Tensor, randn: RandN) -> Tensor:
        x_0 = sample(oracle, DDPM(), x_t, times, randn=randn)
        return (x_0 + sigma * randn(x_0)) / alpha

    start = oracle.schedule(times[0])[1].square() * torch.eye(2, dtype=torch.float64)
    mean, covariance = affine(run, (2,)).moments(torch.zeros(2, dtype=torch.float64), start)
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)[0].item()


def drawn(steps: int, rows: int, paths: int, seed: int = 0) -> tuple[PathWeights, float]:
    """Returns independent path weights of one x, (rows, paths), and the log-likelihood."""
    oracle, times = correlated(SCHEDULE), UniformLogSNR()(SCHEDULE, steps)
    generator = torch.Generator().manual_seed(seed)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    # Rows of one batch are as independent as paths, and much faster.
    weights = path_weights(oracle, X.expand(rows * paths, 2), times, paths=1, randn=randn).log_weights
    return PathWeights(weights.reshape(rows, paths)), log_density(oracle, times, X)


@pytest.mark.parametrize("steps", [32, 128])
def test_the_average_of_the_path_weights_is_the_likelihood(steps: int) -> None:
    """Jarzynski: E exp(-(W - ΔF)) = 1, at any number of steps."""
    result, log_p = drawn(steps, 20_000, 1)
    weights = (result.log_weights[:, 0] - log_p).exp()
    error = (weights.std() / math.sqrt(len(weights))).item()
    assert weights.mean().item() == pytest.approx(1, abs=1.96 * error) and error < 0.1
    assert -result.log_weights.mean().item() > -log_p, "the mean log-weight is below log p(x)"


def test_the_mean_log_weight_is_the_bound() -> None:
    """Both are quadratic in the noise, so that a few points integrate them exactly."""
    oracle, steps = correlated(SCHEDULE), 6
    times, points = UniformLogSNR()(SCHEDULE, steps), sigma_points(2 * (steps + 2))
    used = iter(points.split(2, dim=1))
    rows = X.expand(len(points), 2)
    negative_elbo = -path_weights(oracle, rows, times, paths=1, randn=lambda like: next(used)).elbo.mean().item()
    two = sigma_points(2)
    expected = bound(oracle, X.expand(4, 2), times, randn=lambda like: two).total.mean().item()
    assert negative_elbo == pytest.approx(expected, rel=1e-10)


def test_the_sum_of_the_others_leaves_out_each_in_turn_along_the_last_axis() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    for shape in ((4,), (2, 4), (2, 3, 4)):
        found = log_sum_exp_of_others(values.log().expand(shape)).exp()
        assert torch.allclose(found, torch.tensor([14.0, 13.0, 11.0, 7.0], dtype=torch.float64).expand(shape))
    assert log_sum_exp_of_others(torch.tensor([0.0])).tolist() == [-math.inf]


def test_the_bound_of_k_paths_crosses_none_of_its_limits() -> None:
    result, log_p = drawn(24, 400, 64)
    curve = {size: (values.mean().item(), values.std().item() / 20) for size, values in result.curve().items()}
    assert list(curve) == [1, 2, 4, 8, 16, 32, 64]
    assert curve[1][0] == pytest.approx(result.elbo.mean().item(), rel=1e-12)
    assert curve[64][0] == pytest.approx(result.log_likelihood.mean().item(), rel=1e-12)
    means = [mean for mean, _ in curve.values()]
    assert means == sorted(means)
    assert all(mean < log_p + 2.6 * error for mean, error in curve.values())
    assert log_p - curve[64][0] < (log_p - curve[1][0]) / 10


def test_the_bound_never_falls_with_k_for_any_weights() -> None:
    values = 5 * torch.randn(50, 37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = torch.stack(list(PathWeights(-values).curve().values()))
    assert curve.shape == (6, 50) and bool((curve.diff(dim=0) >= -1e-12).all())


def test_the_gap_of_the_bound_falls_as_one_over_the_steps() -> None:
    gaps = []
    for steps in (32, 128):
        result, log_p = drawn(steps, 4000, 1)
        gaps.append(log_p - result.elbo.mean().item())
    assert math.log(gaps[0] / gaps[1]) / math.log(4) == pytest.approx(1, abs=0.15)


def test_the_effective_sample_size_counts_the_paths_that_matter() -> None:
    even, one = torch.zeros(1, 8, dtype=torch.float64), torch.tensor([[0.0] + [50.0] * 7], dtype=torch.float64)
    assert PathWeights(-even).ess.item() == pytest.approx(8) and PathWeights(-one).ess.item() == pytest.approx(1)
    assert PathWeights(-even - 1e4).log_likelihood.item() == pytest.approx(-1e4)
    assert PathWeights(-even).variance.item() == pytest.approx(0, abs=1e-12)


def test_the_bound_is_called_reliable_only_when_enough_paths_count() -> None:
    fine, log_p = drawn(384, 100, 64)
    assert bool(fine.reliable.all())
    assert fine.log_likelihood.mean().item() == pytest.approx(log_p, abs=0.02)
    coarse, log_p = drawn(6, 100, 32)
    assert coarse.reliable.double().mean() < 0.5 and float(coarse.ess.median()) < ENOUGH
    assert log_p - coarse.log_likelihood.mean().item() > 0.05
    assert not drawn(256, 4, 4)[0].reliable.any(), "four paths are never enough"
    # The most that a reliable bound may miss by its variance: one weight has all the share that is allowed.
    heavy = math.sqrt(0.0999)
    weights = torch.tensor([[heavy] + [(1 - heavy) / 9999] * 9999], dtype=torch.float64)
    worst = PathWeights(weights.log())
    assert bool(worst.reliable) and 0.07 < worst.variance.item() / 2 < 0.08


def test_what_a_reliable_bound_misses_is_about_half_its_variance() -> None:
    result, log_p = drawn(128, 4000, 32)
    assert result.reliable.double().mean() > 0.85
    missing, half = log_p - result.log_likelihood, result.variance.mean().item() / 2
    # Neither a quarter nor all of it: the noise of so many bounds is smaller than that.
    assert missing.mean().item() == pytest.approx(half, rel=0.5) and missing.std().item() / math.sqrt(4000) < half / 5


def test_the_second_cumulant_is_the_likelihood_when_log_weights_are_nearly_normal() -> None:
    result, log_p = drawn(256, 100, 64)
    assert result.second_cumulant.mean().item() == pytest.approx(log_p, abs=0.01)
    assert result.elbo.mean().item() < log_p - 0.05
    assert bool(PathWeights(torch.zeros(1, 1)).second_cumulant.isnan())


def test_the_variance_of_the_bound_is_that_of_its_repetitions() -> None:
    result, _ = drawn(64, 500, 32)
    assert result.variance.mean().item() == pytest.approx(result.log_likelihood.var().item(), rel=0.3)
    assert bool(PathWeights(torch.zeros(1, 1)).variance.isnan())


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("paths", [2, 16])
def test_the_variance_of_the_bound_grows_with_that_of_the_log_weights(spread: float, paths: int) -> None:
    """From equal weights to one path that outweighs the others, it is within 14 % of the standard deviation."""
    generator = torch.Generator().manual_seed(0)
    result = PathWeights(-spread * torch.randn(20_000, paths, generator=generator, dtype=torch.float64))
    claimed = result.variance.mean().sqrt().item()
    assert claimed == pytest.approx(result.log_likelihood.std().item(), rel=0.15)


def test_the_variance_of_the_bound_is_that_of_leaving_out_each_path_in_turn() -> None:
    """It holds also where one path outweighs all others by more than the digits of float64."""
    values = torch.tensor([[0.3, -1.0, 0.8, 2.0], [0.0, 50.0, 53.0, 51.0]], dtype=torch.float64)
    left = [PathWeights(-torch.cat([values[:, :i], values[:, i + 1 :]], 1)).log_likelihood for i in range(4)]
    expected = 3 / 4 * torch.stack(left).sub(sum(left) / 4).square().sum(0)
    torch.testing.assert_close(PathWeights(-values).variance, expected, rtol=1e-12, atol=0.0)
    shifted = PathWeights(-values - 1e4).variance
    torch.testing.assert_close(shifted, expected, rtol=1e-9, atol=0.0)


def test_path_weights_of_quantized_data_give_their_probability() -> None:
    levels = Quantization(16, -1.5, 1.5)
    numbers, weights = torch.tensor([1, 6, 7, 12]), torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    atoms = (levels.low + levels.spacing * numbers)[:, None].double()
    schedule = Cosine()
    times = UniformLogSNR()(schedule, 400)
    generator = torch.Generator().manual_seed(0)
    result = path_weights(
        MixtureOracle(schedule, atoms, 0.0, weights),
        atoms.repeat(64, 1),
        times,
        paths=4,
        quantization=levels,
        randn=lambda like: torch.randn(like.shape, generator=generator, dtype=torch.float64),
    )
    together = PathWeights(result.log_weights.reshape(64, 4, 4).transpose(0, 1).reshape(4, 256))
    assert torch.allclose(together.log_likelihood, weights.log(), atol=0.04)


def test_bad_arguments_are_named() -> None:
    oracle, times = correlated(SCHEDULE), torch.tensor([1.0, 0.0])
    with pytest.raises(InputError, match="paths: must be at least 1, got 0"):
        path_weights(oracle, X, times, paths=0)
    with pytest.raises(InputError, match=re.escape("x: must be finite, got nan in example 0")):
        path_weights(oracle, X * math.nan, times, paths=1)
