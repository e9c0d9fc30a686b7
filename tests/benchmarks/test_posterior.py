"""The problems of the posterior benchmark are what they say, and a small run of it ranks the methods."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import posterior
from benchmarks.fields import Field, Known
from benchmarks.mixture import Mixture, Problem, directions, sliced_wasserstein
from diffusion.operators import Downsample, GaussianBlur, Mask
from tests.oracles import GaussianOracle, MixtureOracle


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_mixture_and_its_denoiser() -> None:
    mixture = Mixture.draw(6, generator())
    assert mixture.means.shape == (25, 6) and float(mixture.weights.sum()) == pytest.approx(1)
    assert mixture.means[1].tolist() == [-16, -8] * 3
    oracle = MixtureOracle(mixture.schedule, mixture.means, 1.0, mixture.weights)
    for log_snr in (-8.0, -3.0, 2.0):
        t = mixture.schedule.time(torch.tensor(log_snr, dtype=torch.float64))
        x_t = mixture.sample(20, generator()) + mixture.schedule(t)[1] * torch.randn(20, 6, generator=generator())
        assert torch.allclose(mixture(x_t, t).mean, oracle(x_t, t).mean, rtol=1e-9, atol=1e-9)


def test_the_exact_posterior_is_that_of_weighted_draws_of_the_prior() -> None:
    mixture = Mixture.draw(4, generator())
    problem = Problem.draw(mixture, 1, generator())
    x = mixture.sample(400_000, torch.Generator().manual_seed(1))
    misfit = (problem.y - x @ problem.matrix.mT).square().sum(1)
    log_weight = -misfit / (2 * problem.noise**2) - math.log(2 * math.pi * problem.noise**2) / 2
    assert float(log_weight.logsumexp(0)) - math.log(len(x)) == pytest.approx(problem.log_evidence, abs=0.05)
    drawn = problem.sample(20_000, generator())
    expected = log_weight.softmax(0) @ x
    assert (drawn.mean(0) - expected).norm() < 0.05 * expected.norm() + 0.2
    assert problem.weight_distance(drawn) < 0.02


def test_sliced_wasserstein_of_a_shift() -> None:
    a = torch.randn(50, 3, generator=generator(), dtype=torch.float64)
    lines = directions(3, 4000, generator())
    shift = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    assert sliced_wasserstein(a, a + shift, lines) == pytest.approx(1.0, rel=0.05), "half of it in three dimensions"


@pytest.mark.parametrize("operator", [GaussianBlur(1.0, "circular"), Downsample(2)])
def test_the_posterior_of_a_field(operator: Downsample | GaussianBlur) -> None:
    field = Field(6)
    oracle = GaussianOracle(field.schedule, torch.zeros(1, 6, 6, dtype=torch.float64), field.covariance)
    matrix = operator(torch.eye(36, dtype=torch.float64).reshape(36, 1, 6, 6)).flatten(1).mT
    y = operator(field.sample(1, generator()))
    exact, known = oracle.posterior(matrix, y.flatten(), 0.1), Known(field, operator, 0.1)
    assert torch.allclose(known.mean(y), exact.mean.flatten(), rtol=0, atol=1e-9)
    assert torch.allclose(known.std.square(), exact.covariance.diagonal(), rtol=1e-7)
    x_t, t = torch.randn(3, 1, 6, 6, generator=generator(), dtype=torch.float64), torch.tensor(0.4).double()
    assert torch.allclose(field(x_t, t).mean, oracle(x_t, t).mean, rtol=0, atol=1e-9)
    assert torch.allclose(field.covariance.diagonal(), torch.ones(36, dtype=torch.float64))


def test_the_posterior_of_a_field_given_noise_that_differs_from_pixel_to_pixel() -> None:
    """As with whitened rows: y/σ = (A/σ) x + N(0, 1). Where nothing is shown the noise does not count."""
    operator, noise = posterior.operators(6)["noise map"]
    assert isinstance(operator, Mask) and isinstance(noise, torch.Tensor)
    field, shown = Field(6), operator.known.flatten()
    matrix, noise = torch.eye(36, dtype=torch.float64)[shown], noise.double()
    y, std = operator(field.sample(1, generator())), noise.flatten()[shown]
    oracle = GaussianOracle(field.schedule, torch.zeros(1, 6, 6, dtype=torch.float64), field.covariance)
    exact = oracle.posterior(matrix / std[:, None], y.flatten()[shown] / std, 1.0)
    for hidden in (1.0, 7.0):
        known = Known(field, operator, torch.where(operator.known, noise, hidden))
        assert torch.allclose(known.mean(y), exact.mean.flatten(), rtol=0, atol=1e-9)
        assert torch.allclose(known.std.square(), exact.covariance.diagonal(), rtol=1e-7)
    assert known.judged.all() and Known(field, operator, 0.1).judged.equal(~shown)


def test_a_field_takes_a_time_for_every_pixel() -> None:
    """A uniform map gives the estimate of one time, which is a filter; the rest is the algebra of any Gaussian."""
    field, generator = Field(6), torch.Generator().manual_seed(1)
    x_t, t = field.sample(3, generator), torch.tensor(0.4, dtype=torch.float64)
    whole, by_pixel = field(x_t, t).mean, field(x_t, t.expand(1, 1, 6, 6)).mean
    assert (whole - by_pixel).abs().max() < 1e-10
    times = torch.rand(1, 1, 6, 6, generator=generator, dtype=torch.float64)
    oracle = GaussianOracle(field.schedule, torch.zeros(1, 6, 6, dtype=torch.float64), field.covariance)
    assert (field(x_t, times).mean - oracle(x_t, times.expand(3, 1, 6, 6)).mean).abs().max() < 1e-8


def test_a_mean_of_figures_comes_with_its_interval_or_says_how_many_diverged() -> None:
    tally = posterior.Tally()
    for value in (1.0, 3.0):
        tally.add(distance=value)
    assert tally.interval("distance") == "2.00 ± 1.96"
    for value in (1e5, math.inf, math.nan):
        tally.add(distance=value)
    assert tally.interval("distance") == "diverged in 3 of 5"


def test_exact_draws_have_the_coverage_of_their_intervals() -> None:
    field, operator = Field(12), Downsample(2)
    known, y = Known(field, operator, 0.1), operator(field.sample(1, generator()))
    found = []
    for scale in (0.7, 1.0, 1.4):
        noise = torch.randn(39, 144, generator=generator(), dtype=torch.float64)
        x = known.mean(y) + scale * known.std * noise
        figures = posterior.moments(posterior.Particles(x.reshape(39, 1, 12, 12), *[torch.zeros(0)] * 2, 39), known, y)
        found.append(figures["coverage"])
    assert found[0] < 0.82 < 0.89 < found[1] < 0.91 < 0.95 < found[2]


def test_a_small_run_ranks_the_methods(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "posterior.json"
    arguments = ["--seeds", "3", "--dims", "8", "--samples", "400", "--images", "1", "--side", "12", "--fewer"]
    posterior.main([*arguments, "--only", "resampling", "mmps", "dps", "replacement", "learned", "--out", str(out)])
    record = json.loads(out.read_text())
    mixtures, fields = record["tables"].values()
    for observations in (1, 2, 4):
        rows = {row["method"]: row for row in mixtures if row["d, d_y"] == f"8, {observations}"}
        assert rows["resampling"]["NFE"] == 20
        floors = [rows[name]["times the floor"] for name in ("resampling", "mmps", "dps")]
        assert floors[0] < floors[1] < floors[2]
    figures = {(row["operator"], row["method"]): row for row in fields}
    for operator in ("mask", "blur", "downsample"):
        assert 0.87 < figures[operator, "mmps, 100 steps"]["coverage"] < 0.93
        assert figures[operator, "resampling, 100 steps"]["coverage"] < 0.5, "weights of many observations collapse"
    assert {name for operator, name in figures if operator == "noise map"} == {
        "learned, 20 steps",
        "learned, 100 steps",
    }
    for operator in ("mask", "mask, exact", "noise map"):
        assert figures[operator, "learned, 20 steps"]["backward"] == 0
        assert 0.88 < figures[operator, "learned, 20 steps"]["coverage"] < 0.93
    exact, biased = (figures["mask", f"{name}, 100 steps"]["error of the mean"] for name in ("mmps", "replacement"))
    assert exact < 0.2 < 0.4 < biased
    assert "MCGdiff" in capsys.readouterr().out
