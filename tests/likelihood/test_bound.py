"""The bound is a bound, it is tight, and for 8-bit images it bounds the probability of the 8-bit image.

Expectations over data and noise are taken by quadrature. For Gaussian data the bound is quadratic in both, and a few
sigma points are exact.
"""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import Prediction
from diffusion.grids import UniformLogSNR
from diffusion.likelihood.bound import Bound, Quantization, bound, bound_2015, decoder, entropy_bounds, prior_kl
from diffusion.likelihood.units import bits_per_dim, null_log_likelihood
from diffusion.samplers import RandN
from diffusion.schedules import EDM, Cosine, Schedule, VariancePreserving, VPLinear
from tests.oracles import MixtureOracle, correlated, hermite, sigma_points

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), VPLinear()], ids=["cosine", "edm", "linear"])


def given(noise: Tensor) -> RandN:
    return lambda like: noise.reshape(like.shape)


def gaussian_bound(schedule: Schedule, steps: int) -> tuple[Bound, float]:
    """Returns the bound for each sigma point of data and noise, whose mean is the expectation, and the entropy."""
    oracle = correlated(schedule, (1, 2, 2))
    points, (values, vectors) = sigma_points(8), oracle.eigen
    x = (oracle.mean.flatten() + (points[:, :4] * values.sqrt()) @ vectors.mT).reshape(-1, 1, 2, 2)
    return bound(oracle, x, UniformLogSNR()(schedule, steps), randn=given(points[:, 4:])), oracle.entropy


@SCHEDULES
def test_the_bound_on_gaussian_data_is_tight_to_first_order(schedule: Schedule) -> None:
    gaps = []
    for steps in (256, 1024):
        estimate, entropy = gaussian_bound(schedule, steps)
        gaps.append(estimate.total.mean().item() - entropy)
    assert 3.9 < gaps[0] / gaps[1] < 4.2
    assert 0 < gaps[1] < 0.29, "nats for four numbers at 1024 steps: 0.28 measured for cosine, 0.22 for edm"


def mixture_bound(steps: int) -> tuple[float, float]:
    """Returns the expected bound and the entropy of two modes on a line, by quadrature over data and noise."""
    schedule = Cosine()
    means, weights = torch.tensor([[-1.0], [0.8]], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    oracle = MixtureOracle(schedule, means, 0.09, weights)
    z, w = hermite(24)
    x = torch.cat([mean + 0.3 * z for mean in means]).repeat_interleave(24)[:, None]
    w_x = torch.cat([weight * w for weight in weights])
    noise, weight = z.repeat(48), torch.outer(w_x, w).flatten()
    estimate = bound(oracle, x, UniformLogSNR()(schedule, steps), randn=given(noise))
    return (weight * estimate.total).sum().item(), (weight * oracle.nll(x)).sum().item()


def test_the_bound_on_a_mixture_is_tight_to_first_order() -> None:
    gaps = [expected - entropy for expected, entropy in map(mixture_bound, (256, 1024))]
    assert 3.9 < gaps[0] / gaps[1] < 4.2
    assert 0 < gaps[1] < 0.075, "nats at 1024 steps: 0.0727 measured"


def test_a_wrong_denoiser_has_a_looser_bound() -> None:
    schedule = Cosine()
    right, wrong = correlated(schedule), correlated(schedule, low=0.05, high=1.6)
    points, (values, vectors) = sigma_points(4), right.eigen
    x, times = right.mean + (points[:, :2] * values.sqrt()) @ vectors.mT, UniformLogSNR()(schedule, 1024)
    a, b = (bound(oracle, x, times, randn=given(points[:, 2:])).total.mean().item() for oracle in (right, wrong))
    # In continuous time the difference is KL(right || wrong), of two Gaussians that differ by 2 in one variance.
    assert b - a == pytest.approx((math.log(2) + 0.5 - 1) / 2, rel=0.02)


@pytest.mark.parametrize("batch", [1, 3])
def test_draws_of_every_step_are_the_whole_sum(batch: int) -> None:
    oracle, times = correlated(Cosine()), UniformLogSNR()(Cosine(), 16)
    x = oracle.sample(batch, torch.Generator().manual_seed(0))
    noise = torch.randn(batch, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = bound(oracle, x, times, randn=given(noise))
    drawn = bound(oracle, x, times, randn=given(noise), draws=16, offset=0.3301)
    assert torch.allclose(drawn.diffusion, whole.diffusion, rtol=1e-12)


def test_few_draws_are_unbiased_and_spread_over_the_whole_grid() -> None:
    oracle, steps = correlated(Cosine()), 16
    times, x = UniformLogSNR()(Cosine(), steps), oracle.sample(3, torch.Generator().manual_seed(1))
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = bound(oracle, x, times, randn=given(noise)).diffusion
    n = 9 * steps
    offsets = [(k + 0.5) / n for k in range(n)]
    spread = {}
    for draws, most in ((1, 1.4), (3, 0.5)):
        found = [bound(oracle, x, times, randn=given(noise), draws=draws, offset=o).diffusion for o in offsets]
        assert torch.allclose(torch.stack(found).mean(0), whole, rtol=1e-10)
        spread[draws] = torch.stack(found).std(0)
        assert (spread[draws] / whole).max() < most
    assert (spread[3] / spread[1]).max() < 3**-0.5, "independent draws would do as well"


@SCHEDULES
@pytest.mark.parametrize(
    "levels",
    [
        Quantization(),
        Quantization(256, -2.1, 2.6),
        Quantization(2),
        Quantization(16, 0.0, 1.0),
        Quantization(81, -20.0, 20.0),
    ],
)
def test_the_decoder_is_a_probability(schedule: Schedule, levels: Quantization) -> None:
    values = levels.low + levels.spacing * torch.arange(levels.count, dtype=torch.float64)
    t = torch.zeros((), dtype=torch.float64)
    for clean_end in (t, schedule.time(torch.tensor(7.0)), schedule.time(torch.tensor(-2.0))):
        alpha, sigma = schedule(clean_end)
        for x_0 in (levels.low - 0.01, levels.low + 0.37 * levels.spacing, (levels.low + levels.high) / 2, levels.high):
            noise = (x_0 - alpha * values) / sigma
            nll = decoder(schedule, values[:, None], clean_end, levels, given(noise))
            assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-9)
            # It is the distribution in proportion to q(x_0|x).
            log_p = (-((x_0 / alpha - values) * alpha / sigma).square() / 2).log_softmax(0)
            assert torch.allclose(nll[log_p > -20], -log_p[log_p > -20], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("schedule", [Cosine(), EDM()], ids=["cosine", "edm"])
def test_the_bound_on_8_bit_data_is_that_of_their_probability(schedule: Schedule) -> None:
    """A pixel takes 6 of 256 values, some of them neighbors: the exact denoiser is a softmax, the answer is -log p."""
    levels = Quantization(256, -2.1, 2.6)
    numbers = torch.tensor([0, 100, 101, 103, 180, 255])
    weights = torch.tensor([0.05, 0.3, 0.25, 0.2, 0.15, 0.05], dtype=torch.float64)
    atoms = (levels.low + levels.spacing * numbers)[:, None].double()
    oracle = MixtureOracle(schedule, atoms, 0.0, weights)
    z, w = hermite(48)
    x, noise = atoms.repeat_interleave(48, dim=0), z.repeat(6)
    entropy = -(weights * weights.log()).sum().item()
    gaps, each = [], weights
    for steps in (250, 1000):
        estimate = bound(oracle, x, UniformLogSNR()(schedule, steps), quantization=levels, randn=given(noise))
        each = (estimate.total.reshape(6, 48) * w).sum(1)
        gaps.append((weights * each).sum().item() - entropy)
    bits = [bits_per_dim(torch.tensor(gap), 1).item() for gap in gaps]
    assert 0 < bits[1] < 0.035, "bits at 1000 steps: 0.0312 measured for cosine, 0.0265 for edm"
    assert abs(bits[1] - (bits[0] - bits[1]) / 3) < 2e-3, "nothing is left as the steps grow"
    # And for every value by itself, not only on average.
    assert ((each + weights.log() > 0) & (each + weights.log() < 0.045)).all()


def test_examples_of_one_batch_may_be_decoded_at_times_of_their_own() -> None:
    levels, x = Quantization(81, -20.0, 20.0), torch.tensor([[0.5], [-3.0], [20.0]], dtype=torch.float64)
    t = Cosine().time(torch.tensor([9.0, -2.0, 0.0]))
    together = decoder(Cosine(), x, t, levels, torch.ones_like)
    alone = [decoder(Cosine(), x[i : i + 1], t[i], levels, torch.ones_like) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-12)


def test_gray_levels_out_of_reach_of_the_noise_cost_nothing() -> None:
    x = torch.tensor([[0.25]], dtype=torch.float64) * 2 - 1
    one = decoder(Cosine(), x, torch.zeros(()).double(), Quantization(5), given(torch.ones(1)))
    assert one.item() == pytest.approx(0, abs=1e-12)


@SCHEDULES
def test_prior_kl_is_the_closed_form(schedule: Schedule) -> None:
    x = torch.tensor([[1.0, -2.0], [0.5, 0.0]], dtype=torch.float64)
    t = torch.tensor(0.7, dtype=torch.float64)
    assert torch.allclose(
        prior_kl(schedule, x, t), schedule.log_snr(t).exp() * torch.tensor([5.0, 0.25]).double() / 2, rtol=1e-12
    )


def test_continuous_decoder_is_the_density_of_the_clean_end() -> None:
    schedule, x = Cosine(), torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    t = torch.tensor(0.2, dtype=torch.float64)
    std = (-schedule.log_snr(t) / 2).exp()
    noise = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    expected = -torch.distributions.Normal(x + std * noise, std).log_prob(x).sum()
    assert decoder(schedule, x, t, None, given(noise)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_total_is_the_sum_of_its_terms() -> None:
    parts = Bound(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0]))
    assert parts.total.item() == 7.0


def test_a_learned_variance_enters_the_bound() -> None:
    """A variance in between beats both limits, as it must for data that are neither white nor a single point."""
    oracle, times = correlated(Cosine()), UniformLogSNR()(Cosine(), 100)
    points, (values, vectors) = sigma_points(4), oracle.eigen
    x = oracle.mean + (points[:, :2] * values.sqrt()) @ vectors.mT

    def total(variance_interp: float) -> float:
        class Learned:
            schedule = oracle.schedule

            def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
                return Prediction(oracle(x_t, t).mean, torch.full_like(x_t, variance_interp))

        return bound(Learned(), x, times, randn=given(points[:, 2:])).total.mean().item()

    assert total(0.0) == pytest.approx(
        bound(oracle, x, times, randn=given(points[:, 2:])).total.mean().item(), rel=1e-12
    )
    gaps = [total(variance_interp) - oracle.entropy for variance_interp in (0.0, 0.9, 1.0)]
    assert gaps == pytest.approx([1.550, 0.0715, 0.0838], rel=0.01), "nats at 100 steps, as measured"


def test_bad_arguments_are_named() -> None:
    oracle, x = correlated(Cosine()), torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=re.escape("times: must decrease strictly, got 0 followed by 1")):
        bound(oracle, x, torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=re.escape("draws: must be at least 1, got 0")):
        bound(oracle, x, torch.tensor([1.0, 0.0]), draws=0)


def unit_mixture(schedule: Schedule) -> MixtureOracle:
    """Two modes on a line, of zero mean and unit variance."""
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([[-1.0], [0.8]], dtype=torch.float64)
    means = means - weights @ means
    scale = ((weights @ means.square()).item() + 0.09) ** 0.5
    return MixtureOracle(schedule, means / scale, 0.09 / scale**2, weights)


def over(oracle: MixtureOracle, n: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Returns data, noise and weights of a quadrature over both: (N, 1), (N,), (N,)."""
    z, w = hermite(n)
    x = torch.cat([mean + oracle.variance**0.5 * z for mean in oracle.means]).repeat_interleave(n)[:, None]
    w_x = torch.cat([weight * w for weight in oracle.weights])
    return x, z.repeat(len(x) // n), torch.outer(w_x, w).flatten()


@SCHEDULES
def test_k_is_a_bound_whose_gap_falls_as_one_over_the_steps(schedule: Schedule) -> None:
    oracle = unit_mixture(schedule)
    x, noise, weight = over(oracle)
    exact = -(weight * oracle.nll(x)).sum().item()
    gaps = []
    for steps in (256, 1024):
        estimate = bound_2015(oracle, x, UniformLogSNR()(schedule, steps), randn=given(noise))
        gaps.append(exact - (weight * estimate.total).sum().item())
        # Equation 14 leaves out what is zero on average over data of unit second moment.
        assert (weight * estimate.moment).sum().item() == pytest.approx(0, abs=1e-12)
        assert (weight * estimate.equation_14).sum().item() == pytest.approx(exact - gaps[-1], abs=1e-9)
    order = math.log(gaps[0] / gaps[1]) / math.log(4)
    assert order == pytest.approx(1, abs=0.05) and gaps[1] > 0


def test_k_in_continuous_time_is_the_log_likelihood() -> None:
    oracle = unit_mixture(Cosine())
    x, noise, weight = over(oracle)
    ends = UniformLogSNR()(Cosine(), 1)
    estimate = bound_2015(oracle, x, ends, continuous=True, draws=400, randn=given(noise))
    assert (weight * (estimate.total + oracle.nll(x))).sum().item() == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("schedule", [Cosine(), EDM()], ids=["cosine", "edm"])
@pytest.mark.parametrize("value", [0.7, -2.0])
def test_k_is_the_average_over_paths_of_their_log_ratio(schedule: Schedule, value: float) -> None:
    """Equation 12 for T = 2 by quadrature over both noises, in the formulas of the paper and of Ho et al. (2020)."""
    log_snr = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    n, (z, w) = 40, hermite(40)
    times, (a_2, a_1) = schedule.time(log_snr), torch.sigmoid(log_snr)
    x = torch.full((n, 1), value, dtype=torch.float64)
    estimate = bound_2015(unit_mixture(schedule), x, times, randn=given(z))
    normal = torch.distributions.Normal

    oracle, beta_1, beta_2 = unit_mixture(VariancePreserving(schedule)), 1 - a_1, 1 - a_2 / a_1
    x_1 = (a_1.sqrt() * value + beta_1.sqrt() * z).repeat_interleave(n)
    x_2 = (1 - beta_2).sqrt() * x_1 + beta_2.sqrt() * z.repeat(n)
    mean = oracle(x_2[:, None], times[0]).mean[:, 0]
    reverse = (a_1.sqrt() * beta_2 * mean + (1 - beta_2).sqrt() * beta_1 * x_2) / (1 - a_2)
    log_ratio = (
        normal(0, 1).log_prob(x_2)
        + normal(reverse, (beta_2 * beta_1 / (1 - a_2)).sqrt()).log_prob(x_1)
        + normal((1 - beta_1).sqrt() * x_1, beta_1.sqrt()).log_prob(x[0])  # The first step is T_π.
        - normal((1 - beta_1).sqrt() * x[0], beta_1.sqrt()).log_prob(x_1)
        - normal((1 - beta_2).sqrt() * x_1, beta_2.sqrt()).log_prob(x_2)
    )
    expected = (torch.outer(w, w).flatten() * log_ratio).sum().item()
    assert (w * estimate.total).sum().item() == pytest.approx(expected, abs=1e-6)


def test_k_above_the_null_is_a_bound_on_the_cost_of_destroying_the_data() -> None:
    """K - L_null <= KL(data || N(0, I))."""
    oracle = unit_mixture(Cosine())
    x, noise, weight = over(oracle)
    estimate = bound_2015(oracle, x, UniformLogSNR()(Cosine(), 1024), randn=given(noise))
    above = (weight * estimate.total).sum().item() - null_log_likelihood(1)
    null = torch.distributions.Normal(0, 1).log_prob(x[:, 0])
    divergence = -(weight * (oracle.nll(x) + null)).sum().item()
    assert divergence - 0.1 < above < divergence


def entropy(oracle: MixtureOracle, t: Tensor) -> float:
    """Returns the entropy of x_t, by quadrature on a line."""
    alpha, sigma = oracle.schedule(t)
    later = MixtureOracle(
        oracle.schedule, alpha * oracle.means, float(alpha**2 * oracle.variance + sigma**2), oracle.weights
    )
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    nll = later.nll(x[:, None])
    return torch.trapezoid(nll * (-nll).exp(), x).item()


@pytest.mark.parametrize("log_snr", [-6.0, -2.0, 0.0, 2.0, 5.0])
def test_the_entropy_of_a_reverse_step_lies_between_its_limits(log_snr: float) -> None:
    schedule = Cosine()
    t, s = (schedule.time(torch.tensor(v, dtype=torch.float64)) for v in (log_snr, log_snr + 0.3))
    x = torch.zeros(1, 1, dtype=torch.float64)
    lower, upper = (v.item() for v in entropy_bounds(schedule, x, t, s))
    assert lower == pytest.approx(gaussian.posterior(schedule, x, x, t, s).entropy().item(), abs=1e-9)
    forward = gaussian.transition(schedule, x, s, t).entropy().item()

    def of(oracle: MixtureOracle) -> float:
        return forward + entropy(oracle, s) - entropy(oracle, t)

    assert lower < of(unit_mixture(schedule)) < upper
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert of(MixtureOracle(schedule, zero, 1.0, one)) == pytest.approx(upper, abs=1e-6), "white data reach the upper"
    assert of(MixtureOracle(schedule, zero, 0.0, one)) == pytest.approx(lower, abs=1e-6), "an atom the lower limit"
    assert of(MixtureOracle(schedule, zero, 4.0, one)) > upper, "data of another scale may be beyond it"


def test_values_that_cannot_be_used_are_named() -> None:
    oracle, times = correlated(Cosine()), torch.tensor([1.0, 0.0])
    x = torch.zeros(2, 2, dtype=torch.float64)
    for bad in (math.nan, math.inf):
        x[1, 0] = bad
        with pytest.raises(ValueError, match=re.escape(f"x: must be finite, got {bad} in example 1")):
            bound(oracle, x, times)
        with pytest.raises(ValueError, match=re.escape(f"x: must be finite, got {bad} in example 1")):
            bound_2015(oracle, x, times)
    for off in (0.1, -1.5, 1.5):
        x[1, 0] = off
        with pytest.raises(
            ValueError, match=re.escape(f"x: must hold the 5 values from -1 to 1 alone, got {off} in example 1")
        ):
            bound(oracle, x, times, quantization=Quantization(5))
    with pytest.raises(ValueError, match="times: must be at least two"):
        bound(oracle, torch.zeros(1, 2), torch.tensor([1.0]))
