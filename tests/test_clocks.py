"""The clocks of data against closed forms of Gaussians and mixtures, and against posteriors by direct enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion import clocks
from diffusion.errors import InputError
from diffusion.randomness import ExampleNoise, Stream, example_seed


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_classes(n: int, d: int, m: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Examples of unit variance around ±m along the diagonal, n of each."""
    labels = torch.arange(2 * n) % 2
    signs = 2.0 * labels.double() - 1
    return gaussian(2 * n, d, seed) + signs[:, None] * m / math.sqrt(d), labels


def collapse_of(n: int, d: int, variance: float = 1.0) -> float:
    """The log-SNR of the collapse of n examples of N(0, variance) in d dimensions (numbers of eq. 5)."""
    return math.log((n ** (2 / d) - 1) / variance)


def test_the_time_of_the_paper_has_its_alpha_and_sigma() -> None:
    for t in (0.01, 0.5, 3.0):
        log_snr = math.log(math.exp(-2 * t) / (1 - math.exp(-2 * t)))
        assert clocks.ou_time(log_snr) == pytest.approx(t, rel=1e-12)


def test_speciation_is_half_the_log_of_the_variance_in_the_time_of_the_paper() -> None:
    for variance in (0.3, 5.0, 1e4):
        log_snr = clocks.speciation(variance)
        assert clocks.ou_time(log_snr) == pytest.approx(math.log(1 + variance) / 2, rel=1e-12)
    assert clocks.ou_time(log_snr) == pytest.approx(math.log(1e4) / 2, rel=2e-5)
    assert clocks.speciation(0.0) == math.inf


@pytest.mark.parametrize(("n", "d"), [(300, 40), (60, 500), (300, 3)])
def test_the_largest_variances_are_the_eigenvalues_of_the_covariance(n: int, d: int) -> None:
    x = gaussian(n, d) * torch.arange(1, d + 1, dtype=torch.float64) ** -0.5 + 7
    exact = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)[:4]
    found = clocks.top_variances(x, 4)
    assert torch.allclose(found, exact[: len(found)], rtol=1e-6)
    assert torch.equal(found, clocks.top_variances(x, 4)) and len(found) == min(4, d)


@pytest.mark.parametrize("n", [10, 400])
def test_what_tells_two_classes_apart_is_free_of_the_noise_of_their_means(n: int) -> None:
    """The raw means of 10 examples in 64 dimensions would give m² + 3.2 and more."""
    found = [clocks.between_classes(*two_classes(n, 64, 3.0, seed)) for seed in range(40)]
    squares = torch.stack([each.squares[0, 1] for each in found if each is not None])
    within = torch.stack([each.within[0, 1] for each in found if each is not None])
    assert abs(squares.mean() - 9) < 3 * squares.std() / math.sqrt(40) and squares.std() < 6 / math.sqrt(n)
    assert within.mean() == pytest.approx(1.0, abs=0.35 if n == 10 else 0.02)
    many = clocks.between_classes(*two_classes(20_000, 8, 3.0))
    assert many is not None and many.variance == pytest.approx(9, rel=0.01)


def test_classes_that_cannot_be_told_apart() -> None:
    x = gaussian(200, 5)
    none = clocks.between_classes(x, torch.arange(200) % 2)
    assert none is not None and none.variance < 0.2
    assert clocks.between_classes(x, torch.zeros(200, dtype=torch.long)) is None
    lonely = clocks.between_classes(x, torch.tensor([0, 1] * 99 + [0, 2]))
    assert lonely is not None and lonely.squares.shape == (3, 3) and math.isinf(float(lonely.squares[0, 2]))


@pytest.mark.parametrize("log_snr", [-5.0, -2.5, 0.0])
def test_the_cloning_probability_is_that_of_two_draws_from_the_posterior(log_snr: float) -> None:
    """Draws x_t of a mixture in 6 dimensions; clones choose their class by its posterior at x_t."""
    x, labels = two_classes(100_000, 6, 3.0)
    y = x + math.exp(-log_snr / 2) * gaussian(len(x), 6, seed=1)
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) * 3 / math.sqrt(6)
    density = -((y[:, None] - means) ** 2).sum(2) / (2 * (1 + math.exp(-log_snr)))
    posterior = density.softmax(1)
    same = posterior.square().sum(1)
    predicted = float(clocks.cloning_probability(torch.tensor(log_snr), 9.0, 1.0))
    assert abs(same.mean() - predicted) < 4 * same.std() / math.sqrt(len(x)) and 0.5 < predicted < 1
    assert labels.sum() == 100_000


def test_classes_are_decided_around_speciation() -> None:
    """Far above their own width they share a curve: 0.55 two units before, 0.77 at it, 0.98 two units after."""
    for square in (1e3, 1e5):
        level = -math.log(square) + torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
        found = clocks.cloning_probability(level, square, 1.0)
        assert torch.allclose(found, torch.tensor([0.55, 0.77, 0.98], dtype=torch.float64), atol=0.02)


def enumerated(x: Tensor, numbers: Tensor, z: Tensor, log_snr: float) -> Tensor:
    """The posterior weights of all examples at x_t of some: (P, N)."""
    y = x[numbers] + math.exp(-log_snr / 2) * z
    return (-((y[:, None] - x) ** 2).sum(2) * math.exp(log_snr) / 2).softmax(1)


def test_log_odds_are_those_of_the_posterior_over_examples() -> None:
    x = gaussian(50, 6) + 3
    found = clocks.recognition(x, probes=7, draws=2, block=8)
    z = ExampleNoise([example_seed(0, Stream.PATH, i) for i in found.numbers.tolist()])(x[found.numbers])
    for k in (0, 4, 8, 11):
        own = torch.stack([enumerated(x, found.numbers, s * z, float(found.log_snr[k])) for s in (1, -1)])
        own = own.gather(2, found.numbers.expand(2, -1)[..., None])[..., 0]
        assert torch.allclose(found.log_odds[:, k], ((1 - own) / own).log().mean(0), rtol=1e-6, atol=1e-6)
        assert torch.allclose(found.entropy[:, k], -own.log().mean(0), rtol=1e-8, atol=1e-8)
        assert torch.allclose(found.odds[:, k], ((1 - own.mean(0)) / own.mean(0)).log(), rtol=1e-6, atol=1e-6)


def test_the_excess_entropy_is_that_of_the_density_of_the_examples() -> None:
    """s_sep - s^e of 5 points on a line, whose s^e comes by quadrature."""
    x = torch.tensor([-2.0, -0.3, 0.1, 1.0, 1.6], dtype=torch.float64)[:, None]
    found = clocks.recognition(x, probes=5, draws=400)
    y = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    for k in (0, 4, 8):
        sigma = math.exp(-float(found.log_snr[k]) / 2)
        density = ((-((y - x) / sigma).square() / 2).exp() / math.sqrt(2 * math.pi * sigma**2)).mean(0)
        s = -float((density * density.clamp_min(1e-300).log()).sum() * (y[1] - y[0]))
        s_sep = math.log(5) + 0.5 + math.log(2 * math.pi * sigma**2) / 2
        assert float(found.entropy[:, k].mean()) == pytest.approx(s_sep - s, abs=0.02)
    assert float(found.entropy[:, -1].max()) < 1e-9


@pytest.mark.parametrize(("n", "d", "variance"), [(400, 200, 1.0), (2000, 200, 4.0), (1000, 800, 1.0)])
def test_the_collapse_of_gaussians_is_that_of_the_closed_form(n: int, d: int, variance: float) -> None:
    """Within 5 % of the time of the paper; the interval is honest about the examples that were drawn."""
    found = clocks.recognition(gaussian(n, d) * math.sqrt(variance), probes=200, draws=2).collapse
    assert found is not None and found.low < found.value < found.high < found.low + 0.2
    predicted = collapse_of(n, d, variance)
    assert clocks.ou_time(found.value) == pytest.approx(clocks.ou_time(predicted), rel=0.05)
    assert found.value == pytest.approx(predicted, abs=0.15)


def test_the_collapse_moves_with_the_log_of_the_number_over_the_dimension() -> None:
    few = clocks.recognition(gaussian(300, 100), probes=200)
    many = clocks.recognition(gaussian(3000, 100), probes=150, draws=2).collapse
    assert few.collapse is not None and many is not None
    predicted = collapse_of(3000, 100) - collapse_of(300, 100)
    assert many.value - few.collapse.value == pytest.approx(predicted, abs=0.06)
    # A tenth of the examples foretells it, somewhat too noisy, as the sum over fewer of them fluctuates more.
    assert many.value - 0.12 < few.collapse_at(10) < many.value
    around = [50 * math.log(1 + math.exp(few.collapse.value + unit)) for unit in (-1, 0)]
    assert math.log(few.factor(few.collapse.value)) == pytest.approx(around[1] - around[0], rel=0.25)
    counted = clocks.recognition(gaussian(300, 100), probes=200, count=2991).collapse
    assert counted is not None and counted.value == pytest.approx(few.collapse_at(10), abs=1e-9)


def test_each_example_is_recognized_from_its_own_level_on() -> None:
    """At the level that is found, half of the posterior weight, over other draws, is the example's own."""
    x = gaussian(60, 5)
    x[0] *= 8
    found = clocks.recognition(x, probes=6, draws=400)
    assert found.levels.argmin() == 0 and float(found.levels[1:].min() - found.levels[0]) > 2
    for i, number in enumerate(found.numbers[:3]):
        z = gaussian(4000, 5, seed=3 + i)
        weights = enumerated(x, number.expand(4000), z, float(found.levels[i]))[:, number]
        assert float(weights.mean()) == pytest.approx(0.5, abs=0.03)


def test_copies_are_never_recognized_and_near_ones_late() -> None:
    """In float32 with a large mean, where distances by squares alone would be wrong by more than they are."""
    exact = gaussian(40, 30)
    exact[1], exact[2] = exact[0], exact[3]
    exact[2, 0] += 2e-3
    found, rough = (clocks.recognition(x, probes=40) for x in (exact + 50, (exact + 50).float()))
    assert found.levels[:2].tolist() == [math.inf, math.inf]
    assert float(found.levels[2:4].min()) > 7 > float(found.levels[4:].max())
    assert rough.levels[:2].tolist() == [math.inf, math.inf]
    assert rough.levels[2:4].tolist() == pytest.approx(found.levels[2:4].tolist(), abs=0.05)


def test_the_level_of_a_pair_is_where_the_noise_is_as_large_as_their_distance() -> None:
    """With a third of equal weight everything is known: three corners of a triangle."""
    x = torch.eye(3, dtype=torch.float64) * 0.1
    found = clocks.recognition(x, probes=3, draws=400)
    z = gaussian(40_000, 3, seed=9)
    weights = enumerated(x, torch.zeros(40_000, dtype=torch.long), z, float(found.levels[0]))
    assert float(weights[:, 0].mean()) == pytest.approx(0.5, abs=0.02)


def test_the_numbers_do_not_depend_on_blocks() -> None:
    x = gaussian(100, 8)
    one, other = (clocks.recognition(x, probes=20, block=block) for block in (7, 4096))
    assert torch.allclose(one.log_odds, other.log_odds, rtol=1e-10, atol=1e-10)


def test_a_crossing_is_found_to_a_fiftieth() -> None:
    levels = torch.arange(-3, 6, clocks.STEP, dtype=torch.float64)
    values = torch.stack([1.3 - levels.exp(), 3 - levels - 0.1 * levels**2, levels.exp(), -levels.exp()])
    found = clocks.crossing(levels, values)
    assert found[:2].tolist() == pytest.approx([math.log(1.3), 2.416198487], abs=0.02)
    assert found[2:].tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize(("n", "draws", "said"), [(2, 2, "at least 3"), (5, 3, "even")])
def test_what_cannot_be_measured_is_refused(n: int, draws: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        clocks.recognition(gaussian(n, 3), probes=2, draws=draws)


def test_equal_examples_are_refused() -> None:
    with pytest.raises(InputError, match="different from each other"):
        clocks.recognition(torch.ones(5, 3), probes=2)
