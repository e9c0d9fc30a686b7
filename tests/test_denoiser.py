"""Parameterizations recover x from their exact targets, and a network is tied to log-SNR, not to a schedule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import PARAMETERIZATIONS, Denoiser, EDMPrecond, Parameterization, Rescaled, Velocity
from diffusion.schedules import EDM as VarianceExploding
from diffusion.schedules import Cosine, Flow, Schedule, VariancePreserving, expand
from tests.oracles import OracleNetwork, correlated

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding(), Flow()], ids=["vp", "ve", "flow"])
ALL = pytest.mark.parametrize(
    "parameterization", [pytest.param(cls(), id=name) for name, cls in PARAMETERIZATIONS.items()]
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(schedule: Schedule) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns x, ε, x_t, t, α and σ of a batch at log-SNRs of the whole schedule."""
    x, eps, t = normal(9, 3, 2, 2), normal(9, 3, 2, 2, seed=1), torch.linspace(0, 1, 9, dtype=torch.float64)
    alpha, sigma = (expand(v, x) for v in schedule(t))
    return x, eps, gaussian.marginal(schedule, x, t).sample(eps), t, alpha, sigma


@SCHEDULES
@ALL
def test_the_exact_target_gives_x(schedule: Schedule, parameterization: Parameterization) -> None:
    x, _, x_t, t, alpha, sigma = noisy(schedule)
    _, c_skip, c_out = parameterization(alpha, sigma)
    target = (x - c_skip * x_t) / c_out
    mean = Denoiser(lambda *_: target, schedule, parameterization)(x_t, t).mean
    assert (mean - x).norm() < 1e-12 * x.norm()


@SCHEDULES
@pytest.mark.parametrize("name", ["eps", "v", "x0", "flow"])
def test_targets_have_their_known_form(schedule: Schedule, name: str) -> None:
    x, eps, x_t, t, alpha, sigma = noisy(schedule)
    v = (alpha * eps - sigma * x) / (alpha**2 + sigma**2).sqrt()
    target = {"eps": eps, "v": v, "x0": x, "flow": eps - x}[name]
    mean = Denoiser(lambda *_: target, schedule, PARAMETERIZATIONS[name]())(x_t, t).mean
    # From eps, x is a difference of numbers of size σ/α: that is what float64 leaves at the noisy end.
    scale = (sigma / alpha).clamp_min(1) if name == "eps" else 1.0
    assert ((mean - x) / scale).abs().max() < 1e-12


@SCHEDULES
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_input_and_target_have_unit_variance(schedule: Schedule, sigma_data: float) -> None:
    alpha, sigma = schedule(torch.linspace(0, 1, 101, dtype=torch.float64))
    c_in, c_skip, c_out = EDMPrecond(sigma_data)(alpha, sigma)
    # x = σ_d z and x_t = α x + σ ε: variances by hand.
    assert torch.allclose(c_in**2 * (alpha**2 * sigma_data**2 + sigma**2), torch.ones_like(alpha), rtol=1e-10)
    target = ((1 - c_skip * alpha) * sigma_data / c_out) ** 2 + (c_skip * sigma / c_out) ** 2
    assert torch.allclose(target, torch.ones_like(alpha), rtol=0, atol=1e-10)
    # And c_skip is the regression of x on x_t, so c_out² is the least error of a linear estimate.
    assert torch.allclose(c_out**2, sigma_data**2 * (1 - c_skip * alpha), rtol=1e-6)


@ALL
@SCHEDULES
def test_the_network_sees_unit_variance_or_the_straight_path(
    schedule: Schedule, parameterization: Parameterization
) -> None:
    alpha, sigma = schedule(torch.linspace(0, 1, 101, dtype=torch.float64))
    spread = getattr(parameterization, "sigma_data", 1.0)
    c_in = parameterization(alpha, sigma).c_in
    variance = (alpha**2 * spread**2 + sigma**2) * c_in**2
    if isinstance(parameterization, Velocity):  # It sees the point (1 - u) x + u ε of the straight path.
        u = sigma / (alpha + sigma)
        assert torch.allclose(variance, (1 - u) ** 2 + u**2, rtol=1e-12)
    else:
        assert torch.allclose(variance, torch.ones_like(alpha), rtol=1e-12)


@ALL
@pytest.mark.parametrize("other", [VarianceExploding(), Flow()], ids=["ve", "flow"])
def test_the_schedule_may_be_replaced_after_training(parameterization: Parameterization, other: Schedule) -> None:
    def network(x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        return (x * 1.3 + log_snr[:, None]).sin()

    trained = Denoiser(network, Cosine(), parameterization)
    replaced = Denoiser(network, other, parameterization)
    log_snr = torch.linspace(-8, 8, 5, dtype=torch.float64)
    t, t_other = trained.schedule.time(log_snr), other.time(log_snr)
    (alpha, _), (alpha_other, _) = trained.schedule(t), other(t_other)
    x_t = normal(5, 3)
    a = trained(x_t, t).mean
    b = replaced(x_t / alpha[:, None] * alpha_other[:, None], t_other).mean
    assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@ALL
@SCHEDULES
def test_a_network_that_matches_an_oracle_gives_the_oracle(
    schedule: Schedule, parameterization: Parameterization
) -> None:
    oracle = correlated(schedule, (1, 2, 2))
    x_t, t = normal(9, 1, 2, 2), torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    denoiser = Denoiser(OracleNetwork(oracle, parameterization), schedule, parameterization)
    assert torch.allclose(denoiser(x_t, t).mean, oracle(x_t, t).mean, rtol=1e-9, atol=1e-9)
    assert torch.allclose(denoiser(x_t[:1], t[3]).mean, oracle(x_t[:1], t[3]).mean, rtol=1e-9, atol=1e-9)


def test_twice_the_channels_are_a_mean_and_a_variance() -> None:
    schedule, x_t, t = Cosine(), normal(4, 3, 2, 2), torch.full((4,), 0.5, dtype=torch.float64)
    output = normal(4, 6, 2, 2, seed=1)
    prediction = Denoiser(lambda *_: output, schedule, PARAMETERIZATIONS["x0"]())(x_t, t)
    assert torch.equal(prediction.mean, output[:, :3])
    assert prediction.variance_interp is not None
    assert torch.allclose(prediction.variance_interp, 1 / (1 + (-output[:, 3:]).exp()), rtol=1e-12)
    assert Denoiser(lambda *_: output[:, :3], schedule, PARAMETERIZATIONS["x0"]())(x_t, t).variance_interp is None
    linear = Denoiser(lambda *_: output, schedule, PARAMETERIZATIONS["x0"](), linear_variance=True)(x_t, t)
    assert linear.variance_interp is not None
    assert torch.allclose(2 * linear.variance_interp - 1, output[:, 3:], rtol=0, atol=1e-12)


def test_the_network_gets_scaled_input_log_snr_and_label_in_the_dtype_of_the_data() -> None:
    seen: list[Tensor] = []

    def network(*arguments: Tensor) -> Tensor:
        seen.extend(arguments)
        return arguments[0].bfloat16()

    schedule, label = VarianceExploding(), torch.tensor([2, -1])
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x_t = normal(2, 3).float()
    mean = Denoiser(network, schedule, EDMPrecond(sigma_data=1.0))(x_t, t, label).mean
    _, sigma = schedule(t)
    assert mean.dtype == seen[0].dtype == seen[1].dtype == torch.float32
    assert torch.allclose(seen[0], x_t / (1 + sigma**2).sqrt()[:, None].float(), rtol=1e-6)
    assert torch.allclose(seen[1], schedule.log_snr(t).float()) and seen[2] is label


@SCHEDULES
def test_a_rescaled_denoiser_is_the_oracle_on_the_variance_preserving_schedule(schedule: Schedule) -> None:
    oracle = correlated(schedule)
    rescaled, t = Rescaled(oracle), torch.tensor([0.2, 0.6, 0.9], dtype=torch.float64)
    expected = correlated(VariancePreserving(schedule))(normal(3, 2), t).mean
    assert torch.allclose(rescaled(normal(3, 2), t).mean, expected, rtol=1e-10)
    assert rescaled.schedule == VariancePreserving(schedule)
