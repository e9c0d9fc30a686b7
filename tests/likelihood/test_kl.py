"""The KL between trajectories: in continuous time it is ½ ∫ SNR mmse dλ, the limit of every discrete sum."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.errors import InputError
from diffusion.grids import UniformLogSNR
from diffusion.likelihood.bound import bound
from diffusion.likelihood.kl import sample_step_kl
from diffusion.schedules import EDM, Cosine, Schedule
from tests.oracles import GaussianOracle, MixtureOracle, correlated, hermite, sigma_points

LINE = {
    "means": torch.tensor([[-1.0], [0.8]], dtype=torch.float64),
    "variance": 0.09,
    "weights": torch.tensor([0.3, 0.7], dtype=torch.float64),
}


def quadrature() -> tuple[Tensor, Tensor, Tensor]:
    """Returns data of `LINE`, noise, and weights of a quadrature: (N, 1), (N,), (N,)."""
    z, w = hermite(24)
    x = torch.cat([mean + 0.3 * z for mean in LINE["means"]]).repeat_interleave(24)[:, None]  # type: ignore[union-attr]
    w_x = torch.cat([weight * w for weight in LINE["weights"]])  # type: ignore[union-attr]
    return x, z.repeat(48), torch.outer(w_x, w).flatten()


@pytest.mark.parametrize("schedule", [Cosine(), EDM()], ids=["cosine", "edm"])
def test_the_bound_in_continuous_time_is_the_entropy(schedule: Schedule) -> None:
    oracle = MixtureOracle(schedule, **LINE)  # type: ignore[arg-type]
    x, noise, weight = quadrature()
    ends = UniformLogSNR()(schedule, 1)
    estimate = bound(oracle, x, ends, continuous=True, draws=400, randn=lambda like: noise.reshape(like.shape))
    assert (weight * estimate.total).sum().item() == pytest.approx((weight * oracle.nll(x)).sum().item(), abs=2e-4)


def test_in_continuous_time_the_reverse_variance_is_no_matter() -> None:
    oracle = correlated(Cosine())
    points, (values, vectors) = sigma_points(4), oracle.eigen
    x = oracle.mean + (points[:, :2] * values.sqrt()) @ vectors.mT

    def total(steps: int, **options: float) -> float:
        times = UniformLogSNR()(Cosine(), steps)
        return bound(oracle, x, times, randn=lambda like: points[:, 2:], **options).total.mean().item()  # type: ignore[arg-type]

    limit = total(1, continuous=True, draws=250)
    assert limit == pytest.approx(oracle.entropy, abs=1e-4)
    for variance_interp in (0.0, 1.0):
        gaps = [total(steps, variance_interp=variance_interp) - limit for steps in (150, 300)]
        assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05) and gaps[1] > 0


def test_a_fixed_variance_gives_the_bound_of_a_denoiser_that_learned_it() -> None:
    oracle = correlated(Cosine())
    x, times = oracle.sample(3, torch.Generator().manual_seed(0)), UniformLogSNR()(Cosine(), 20)

    class Learned:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(oracle(x_t, t).mean, torch.full_like(x_t, 0.3))

    fixed = bound(oracle, x, times, variance_interp=0.3, randn=torch.ones_like)
    learned = bound(Learned(), x, times, variance_interp=0.9, randn=torch.ones_like)
    assert torch.allclose(fixed.total, learned.total, rtol=1e-12)


def test_samples_say_at_which_log_snr_the_divergence_is() -> None:
    """For white data of variance c the divergence per unit of log-SNR is half the SNR times the closed-form error."""
    oracle = GaussianOracle(Cosine(), torch.zeros(2, dtype=torch.float64), 0.25 * torch.eye(2, dtype=torch.float64))
    points = 0.5 * sigma_points(4)[:, :2], sigma_points(4)[:, 2:]
    times = UniformLogSNR()(Cosine(), 1)
    kl_samples = bound(oracle, points[0], times, continuous=True, draws=7, randn=lambda like: points[1]).kl_samples
    assert kl_samples is not None and kl_samples.log_snr.shape == kl_samples.nats.shape == (8, 7)
    snr = kl_samples.log_snr.exp()
    span = Cosine().log_snr_max - Cosine().log_snr_min
    expected = span * snr * 0.25 / (0.25 * snr + 1)
    assert torch.allclose(kl_samples.nats.mean(0), expected[0], rtol=1e-6)


def test_a_step_has_the_log_snr_halfway_between_its_ends() -> None:
    oracle, times = correlated(Cosine()), Cosine().time(torch.tensor([-4.0, -1.0, 3.0], dtype=torch.float64))
    found = bound(oracle, torch.zeros(2, 2, dtype=torch.float64), times).kl_samples
    assert found is not None and torch.allclose(found.log_snr, torch.tensor([[-2.5, 1.0]] * 2).double(), atol=1e-9)


def test_with_the_smaller_variance_a_step_costs_half_the_gain_in_snr_times_the_square_error() -> None:
    x, mean = torch.tensor([[0.5, -1.0], [2.0, 0.1]]).double(), torch.tensor([[0.2, 0.3], [-0.4, 0.0]]).double()

    class Constant:
        schedule = Cosine()

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(mean)

    t, s = (Cosine().time(torch.full((2,), v)) for v in (-1.0, 0.5))
    found = sample_step_kl(Constant(), x, t, s, None, torch.randn_like, torch.float64)
    gain = math.exp(0.5) - math.exp(-1)
    assert torch.allclose(found, gain / 2 * (x - mean).square().sum(1), rtol=1e-9)


def test_the_largest_offset_falls_into_the_last_step() -> None:
    log_snr = torch.tensor([-4.0, -1.0, 3.0, 5.0], dtype=torch.float64)
    oracle, x = correlated(Cosine()), torch.zeros(1, 2, dtype=torch.float64)
    found = bound(oracle, x, Cosine().time(log_snr), draws=3, offset=math.nextafter(1.0, 0.0)).kl_samples
    assert found is not None and float(found.log_snr[0, -1]) == pytest.approx(4.0, abs=1e-9)


def test_every_example_may_have_its_own_offset() -> None:
    oracle, times = correlated(Cosine()), UniformLogSNR()(Cosine(), 64)
    x = oracle.sample(3, torch.Generator().manual_seed(0))
    offsets = torch.tensor([0.1, 0.6, 0.95])
    together = bound(oracle, x, times, draws=3, randn=torch.ones_like, offset=offsets)
    alone = [
        bound(oracle, x[i : i + 1], times, draws=3, randn=torch.ones_like, offset=float(o))
        for i, o in enumerate(offsets)
    ]
    assert torch.allclose(together.total, torch.cat([one.total for one in alone]), rtol=1e-12)


def test_bad_arguments_are_named() -> None:
    oracle, x, times = correlated(Cosine()), torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1.0, 0.0])
    with pytest.raises(InputError, match="draws: must be a number in continuous time, got None"):
        bound(oracle, x, times, continuous=True)
    with pytest.raises(InputError, match=r"variance_interp: must be in \[0, 1\], got 2"):
        bound(oracle, x, times, variance_interp=2.0)
