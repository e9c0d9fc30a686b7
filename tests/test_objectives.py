"""The loss: its weights, and what makes a learned variance the right one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion import gaussian, levels
from diffusion.backbones import UNetConfig
from diffusion.denoiser import PARAMETERIZATIONS, X0, Denoiser, EDMPrecond, V
from diffusion.errors import InputError
from diffusion.grids import UniformTime
from diffusion.levels import UNSEEN
from diffusion.likelihood import bound
from diffusion.noise_levels import LogitNormal, LogNormal, Measured, NoiseLevels, PiecewiseConstant, Uniform
from diffusion.objectives import (
    P2,
    WEIGHTINGS,
    AnyObjective,
    Batch,
    EDMError,
    Exact,
    MinSNR,
    Objective,
    SigmoidError,
    TrajectoryBound,
    Weighting,
    X0Error,
)
from diffusion.schedules import EDM as VarianceExploding
from diffusion.schedules import Cosine, DiscreteBetas, Schedule, expand
from tests.oracles import GaussianOracle, OracleNetwork, correlated, sigma_points

BETAS = (0.05, 0.2, 0.4, 0.9)
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), VarianceExploding()], ids=["vp", "ve"])

# w(λ) for every weighting with its default options, as a function of the SNR and of the density of noise levels.
WEIGHTS: dict[str, Callable[[float, float], float]] = {
    "exact": lambda snr, density: snr / (2 * density),
    "simple": lambda snr, _: snr,
    "x0": lambda snr, _: 1.0,
    "v": lambda snr, _: snr + 1,
    "edm": lambda snr, _: snr + 1 / EDMError().sigma_data ** 2,
    "min_snr": lambda snr, _: min(snr, 5.0),
    "p2": lambda snr, _: snr / (1 + snr),
    "sigmoid": lambda snr, density: snr / (1 + snr * math.exp(-2)) / density,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("log_snr", [-6.0, 0.3, 1.0, 4.0])
def test_weights_are_in_units_of_x(name: str, log_snr: float) -> None:
    assert name in WEIGHTS, f"state the weight of {name!r} in WEIGHTS"
    weight = WEIGHTINGS[name]()(torch.tensor([log_snr], dtype=torch.float64), torch.tensor([0.37], dtype=torch.float64))
    assert weight.item() == pytest.approx(WEIGHTS[name](math.exp(log_snr), 0.37), rel=1e-12)


def test_options_are_those_of_the_formulas() -> None:
    log_snr, density = torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.full((2,), 0.37, dtype=torch.float64)
    snr = log_snr.exp()
    cases = [
        (EDMError(0.5), snr + 4),
        (MinSNR(2.0), torch.tensor([math.exp(-1), 2.0]).double()),
        (P2(2.0, 3.0), snr / (2 + snr) ** 3),
        (SigmoidError(-1.5), snr / (1 + snr * math.exp(1.5)) / 0.37),
    ]
    for weighting, expected in cases:
        assert torch.allclose(weighting(log_snr, density), expected, rtol=1e-12)


def test_the_weightings_that_divide_by_the_density_say_so() -> None:
    log_snr = torch.zeros(1, dtype=torch.float64)
    for weighting in WEIGHTINGS.values():
        once, twice = (weighting()(log_snr, torch.tensor([p], dtype=torch.float64)) for p in (0.3, 0.6))
        assert float(once / twice) == pytest.approx(2 if weighting.per_log_snr else 1, rel=1e-12)


SHARES = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
DISTRIBUTIONS = pytest.mark.parametrize(
    "distribution",
    [Uniform(), LogNormal(uniform=0.2), LogNormal(), LogitNormal(), Measured(), PiecewiseConstant(SHARES)],
    ids=["uniform", "log_normal and uniform", "log_normal", "logit_normal", "measured", "piecewise"],
)


@SCHEDULES
@DISTRIBUTIONS
@pytest.mark.parametrize(
    ("weighting", "antiderivative"),
    [
        # ∫ sigmoid(b - λ) dλ = -log(1 + e^(b - λ)).
        (SigmoidError(), lambda log_snr: -(2 - log_snr).exp().log1p()),
        (SigmoidError(bias=-1.0), lambda log_snr: -(-1 - log_snr).exp().log1p()),
        (Exact(), lambda log_snr: log_snr / 2),
    ],
    ids=["sigmoid", "sigmoid -1", "exact"],
)
def test_what_is_an_integral_over_log_snr_does_not_depend_on_the_draws(
    schedule: Schedule,
    distribution: NoiseLevels,
    weighting: Weighting,
    antiderivative: Callable[[Tensor], Tensor],
) -> None:
    """The weights e^-λ w of the squared error of eps are summed in bins of λ over a great many draws."""
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    log_snr = distribution.log_snr(u, schedule)
    weights = weighting(log_snr, distribution.density(u, schedule)) / log_snr.exp()
    edges = torch.linspace(-4, 5, 10, dtype=torch.float64)
    bins = torch.bucketize(log_snr, edges)
    found = torch.stack([weights[bins == i].sum() for i in range(1, 10)]) / len(u)
    assert torch.allclose(found, antiderivative(edges).diff(), rtol=2e-3)


@SCHEDULES
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_is_the_weighted_error_of_x(schedule: Schedule, parameterization: str, weighting: str) -> None:
    x, noise, u = normal(16, 2, 3, 3), normal(16, 2, 3, 3, seed=1), torch.linspace(0.01, 0.99, 16, dtype=torch.float64)
    denoiser = Denoiser(lambda x, *_: (3 * x).sin(), schedule, PARAMETERIZATIONS[parameterization]())
    objective = Objective(Uniform(), WEIGHTINGS[weighting]())
    t, weight = objective.times(u, schedule)
    x_t = gaussian.marginal(schedule, x, t).sample(noise)
    expected = weight * (denoiser(x_t, t).mean - x).square().mean((1, 2, 3))
    # 1e-8 and not 1e-10: at the clean end it is the error of x that cancels.
    assert torch.allclose(objective.loss(denoiser, Batch(x, u, noise)), expected, rtol=1e-8)


@SCHEDULES
@pytest.mark.parametrize(
    ("parameterization", "weighting"), [("eps", "simple"), ("x0", "x0"), ("v", "v"), ("edm", "edm")]
)
def test_each_weighting_is_the_plain_error_of_its_network(
    schedule: Schedule, parameterization: str, weighting: str
) -> None:
    x, noise, u = normal(16, 2, 3, 3), normal(16, 2, 3, 3, seed=1), torch.linspace(0.01, 0.99, 16, dtype=torch.float64)
    t, output = schedule.time(schedule.log_snr(u)), normal(16, 2, 3, 3, seed=2)
    alpha, sigma = (expand(v, x) for v in schedule(t))
    spread = EDMError().sigma_data
    size, total = (alpha**2 + sigma**2).sqrt(), alpha**2 * spread**2 + sigma**2
    target = {
        "eps": noise,
        "x0": x,
        "v": (alpha * noise - sigma * x) / size,
        "edm": (sigma * x / spread - alpha * spread * noise) / total.sqrt(),
    }[parameterization]
    denoiser = Denoiser(lambda *_: output, schedule, PARAMETERIZATIONS[parameterization]())
    objective = Objective(Uniform(), WEIGHTINGS[weighting]())
    assert torch.allclose(
        objective.loss(denoiser, Batch(x, u, noise)), (output - target).square().mean((1, 2, 3)), rtol=1e-8
    )


def hybrid_case(logit: Tensor, shift: Tensor, hybrid: float) -> tuple[Denoiser, Objective]:
    schedule = Cosine()
    oracle = GaussianOracle(schedule, torch.zeros(1, dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64))
    network = OracleNetwork(oracle, X0(), logit)

    def shifted(x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        return network(x, log_snr, label) + torch.cat([shift, torch.zeros_like(shift)])

    return Denoiser(shifted, schedule, X0()), Objective(Uniform(), X0Error(), hybrid=hybrid, hybrid_steps=20)


def hybrid_loss(logit: Tensor, shift: Tensor, hybrid: float, u: float) -> Tensor:
    """Returns the exact expectation of the hybrid loss over x and noise, which are integrated as quadratic forms."""
    denoiser, objective = hybrid_case(logit, shift, hybrid)
    points = sigma_points(2)
    x, noise = 0.3**0.5 * points[:, :1], points[:, 1:]
    return objective.loss(denoiser, Batch(x, torch.full((4,), u), noise)).mean()


def test_the_hybrid_term_trains_the_variance_alone() -> None:
    gradients = {}
    for hybrid in (0.0, 0.7):
        logit, shift = (
            torch.zeros(1, dtype=torch.float64, requires_grad=True),
            torch.full((1,), 0.2, dtype=torch.float64),
        )
        shift.requires_grad_()
        value = hybrid_loss(logit, shift, hybrid, 0.4)
        gradients[hybrid] = torch.autograd.grad(value, [shift, logit], allow_unused=True)
    assert gradients[0.0][1] is None or gradients[0.0][1].item() == 0
    assert gradients[0.7][1].abs().item() > 1e-3
    assert torch.equal(gradients[0.0][0], gradients[0.7][0]) and gradients[0.0][0].item() == pytest.approx(
        0.4, rel=1e-6
    )


@pytest.mark.parametrize("u", [0.3, 0.5, 0.7])
def test_the_hybrid_term_is_least_at_the_exact_reverse_variance(u: float) -> None:
    low, high = torch.tensor([-12.0]).double(), torch.tensor([12.0]).double()
    for _ in range(50):
        logit = ((low + high) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(hybrid_loss(logit, torch.zeros(1).double(), 1.0, u), logit)
        low, high = (logit.detach(), high) if slope < 0 else (low, logit.detach())
    denoiser, objective = hybrid_case(logit, torch.zeros(1).double(), 1.0)
    schedule = denoiser.schedule
    t = torch.tensor(u, dtype=torch.float64)
    s = schedule.time(schedule.log_snr(t) + 26.6 / objective.hybrid_steps)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    learned = gaussian.reverse(
        schedule, zero, zero, t, s, variance_interp=torch.sigmoid(logit.detach())
    ).variance.item()
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    spread_t, spread_s = alpha_t**2 * 0.3 + sigma_t**2, alpha_s**2 * 0.3 + sigma_s**2
    exact = (spread_s - (alpha_t / alpha_s * spread_s) ** 2 / spread_t).item()
    assert learned == pytest.approx(exact, rel=1e-6)


@SCHEDULES
@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_the_hybrid_term_is_the_kl_of_a_step_times_their_number(schedule: Schedule, steps: int) -> None:
    """Each of two coordinates adds ½ (d²/V + ρ - 1 - log ρ), for means that differ by d and variances V and V/ρ."""
    logit = torch.tensor([0.4, -0.7], dtype=torch.float64)
    denoiser = Denoiser(lambda x, *_: torch.cat([(3 * x).sin(), logit.expand_as(x)], 1), schedule, X0())
    x, noise, u = normal(6, 2), normal(6, 2, seed=1), torch.linspace(0.3, 0.9, 6, dtype=torch.float64)
    plain, hybrid = (
        Objective(Uniform(), X0Error(), hybrid=h, hybrid_steps=steps).loss(denoiser, Batch(x, u, noise))
        for h in (0.0, 0.7)
    )
    span = schedule.log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    log_snr_t = schedule.log_snr(u)
    log_snr_s = (log_snr_t + (span[0] - span[1]) / steps).clamp_max(span[0])
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        [v[:, None] for v in schedule(schedule.time(v))] for v in (log_snr_t, log_snr_s)
    )
    drop = 1 - ((alpha_t * sigma_s) / (alpha_s * sigma_t)) ** 2
    mean = denoiser(alpha_t * x + sigma_t * noise, u).mean
    larger = (sigma_t / sigma_s) ** (2 * torch.sigmoid(logit))
    distance = (alpha_s * drop * (mean - x)) ** 2 / (sigma_s**2 * drop * larger)
    kl = (distance + 1 / larger - 1 + larger.log()) / 2
    assert torch.allclose(hybrid - plain, 0.7 * steps * kl.mean(1), rtol=1e-6, atol=1e-9)


def test_the_hybrid_term_needs_a_learned_variance() -> None:
    denoiser, objective = hybrid_case(torch.zeros(1).double(), torch.zeros(1).double(), 0.1)
    plain = replace(denoiser, backbone=lambda x, *_: x)
    with pytest.raises(ValueError, match=re.escape("training.hybrid: needs a learned variance")):
        objective.loss(plain, Batch(normal(2, 1), torch.tensor([0.2, 0.6]), normal(2, 1, seed=1)))


@pytest.mark.parametrize("u", [0.0, 1e-7, 1 - 1e-9])
def test_the_ends_of_the_unit_interval_are_finite(u: float) -> None:
    assert math.isfinite(hybrid_loss(torch.zeros(1).double(), torch.zeros(1).double(), 1.0, u).item())


def bound_case(schedule: Schedule, logit: Tensor, shift: Tensor) -> Denoiser:
    """Returns a denoiser of data N(0, 0.3) whose estimate differs from the exact one by `shift` in units of x."""
    oracle = GaussianOracle(schedule, torch.zeros(1, dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64))
    network = OracleNetwork(oracle, X0(), logit)
    return Denoiser(lambda *z: network(*z) + torch.cat([shift, torch.zeros_like(shift)]), schedule, X0())


def test_the_trajectory_bound_sums_to_the_diffusion_term() -> None:
    schedule, steps = DiscreteBetas(betas=BETAS), len(BETAS) - 1
    logit, shift = torch.full((1,), 0.4, dtype=torch.float64), torch.full((1,), 0.1, dtype=torch.float64)
    denoiser, times = bound_case(schedule, logit, shift), UniformTime()(schedule, steps)
    x, noises = normal(4, 1), [normal(4, 1, seed=i) for i in range(1, steps + 2)]
    objective, queue = TrajectoryBound(times), iter(noises)
    u = [torch.full((4,), (i + 0.5) / steps, dtype=torch.float64) for i in range(steps)]
    losses = [objective.loss(denoiser, Batch(x, *pair)) for pair in zip(u, noises, strict=False)]
    expected = bound.bound(denoiser, x, times, randn=lambda _: next(queue)).diffusion
    assert torch.allclose(torch.stack(losses).mean(0), expected, rtol=1e-12)
    log_snr = torch.stack([objective.log_snr(v, schedule)[0] for v in u])
    assert torch.allclose(log_snr, schedule.table.flip(0)[:-1], rtol=1e-12)
    assert float(objective.log_snr(torch.ones(1), schedule)) == pytest.approx(float(schedule.table[1]))


def test_the_trajectory_bound_without_a_learned_variance_weighs_the_error_of_x() -> None:
    """At the lower variance the KL of a step is ½ (SNR_s - SNR_t) ‖x̂ - x‖², here per coordinate and of 3 steps."""
    schedule = DiscreteBetas(betas=BETAS)
    times, x, noise = UniformTime()(schedule, 3), normal(6, 2), normal(6, 2, seed=1)
    denoiser = Denoiser(lambda x, *_: (3 * x).sin(), schedule, X0())
    u = torch.tensor([0.0, 0.3, 0.4, 0.6, 0.7, 0.99], dtype=torch.float64)
    step = torch.tensor([0, 0, 1, 1, 2, 2])
    t, snr = times[step], schedule.log_snr(times).exp()
    x_t = gaussian.marginal(schedule, x, t).sample(noise)
    error = (denoiser(x_t, t).mean - x).square().sum(1)
    expected = 3 / 2 * (snr[step + 1] - snr[step]) / 2 * error
    assert torch.allclose(TrajectoryBound(times).loss(denoiser, Batch(x, u, noise)), expected, rtol=1e-9)


@pytest.mark.parametrize("step", range(3))
def test_the_trajectory_bound_is_least_at_the_exact_mean_and_variance(step: int) -> None:
    schedule = DiscreteBetas(betas=BETAS)
    times = UniformTime()(schedule, 3)
    t, s = times[step], times[step + 1]
    spread_t, spread_s = (a**2 * 0.3 + b**2 for a, b in (schedule(t), schedule(s)))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    exact = spread_s - (alpha_t / alpha_s * spread_s) ** 2 / spread_t
    small = sigma_s**2 * gaussian.snr_drop(schedule, s, t)
    variance_interp = (exact / small).log() / (2 * (sigma_t / sigma_s).log())
    points = sigma_points(2)
    slopes = []
    for off in (0.0, 0.3):
        logit = (torch.logit(variance_interp)[None] + off).requires_grad_()
        shift = torch.full((1,), off, dtype=torch.float64, requires_grad=True)
        u = torch.full((4,), (step + 0.5) / 3, dtype=torch.float64)
        denoiser = bound_case(schedule, logit, shift)
        loss = TrajectoryBound(times).loss(denoiser, Batch(0.3**0.5 * points[:, :1], u, points[:, 1:]))
        slopes.append(torch.stack(torch.autograd.grad(loss.mean(), [shift, logit])))
    assert slopes[0].abs().max() < 1e-9 and slopes[1].abs().min() > 1e-3


def test_float32_loses_little_of_the_target_at_low_noise() -> None:
    schedule = VarianceExploding()
    x, noise = normal(64, 3).float(), normal(64, 3, seed=1).float()
    u = torch.full((64,), 0.01)
    denoiser = Denoiser(lambda x, *_: torch.zeros_like(x), schedule, EDMPrecond())
    objective = Objective(Uniform(), EDMError())
    single, double = (
        objective.loss(denoiser, Batch(x.to(d), u, noise.to(d))).double() for d in (torch.float32, torch.float64)
    )
    assert single.mean().item() == pytest.approx(1, abs=0.3), (
        "EDM weight and parameterization: unit error of a zero network"
    )
    assert (single - double).abs().max() < 2e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective(hybrid=-0.1), "hybrid: must be 0 or more, got -0.1"),
        (lambda: Objective(hybrid_steps=0), "hybrid_steps: must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Weighting], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_levels_of_one_trajectory_give_the_loss_of_one_level() -> None:
    oracle = correlated(Cosine(), (1, 2, 3))
    denoiser = Denoiser(OracleNetwork(oracle, V()), Cosine(), V())
    x, noise, u = (
        oracle.sample(5, torch.Generator().manual_seed(1)),
        normal(5, 1, 2, 3),
        torch.linspace(0.05, 0.95, 5, dtype=torch.float64),
    )
    objective = Objective()
    plain = objective.loss(denoiser, Batch(x, u, noise))
    by_pixel = objective.loss(denoiser, Batch(x, u, noise, relative=torch.ones(5, 1, 2, 3)))
    assert (plain - by_pixel).abs().max() < 1e-10 * plain.abs().max()


def test_the_loss_is_the_error_of_the_pixels_that_are_not_known() -> None:
    """E ‖x̂ - x‖² over the pixels in noise that somebody saw is the trace of the exact posterior covariance there."""
    oracle, schedule, count = correlated(Cosine(), (1, 2, 3)), Cosine(), 20_000
    denoiser = Denoiser(OracleNetwork(oracle, V()), schedule, V())
    relative = torch.tensor([[[0.0, 1.0, 0.5], [1.0, UNSEEN, 1.0]]])
    u = torch.full((count,), 0.4, dtype=torch.float64)
    objective = Objective(weighting=X0Error())
    x, noise = oracle.sample(count, torch.Generator().manual_seed(1)), normal(count, 1, 2, 3)
    losses = objective.loss(denoiser, Batch(x, u, noise, relative=relative.expand(count, 1, 2, 3)))
    t = objective.times(u[:1], schedule)[0]
    alpha, sigma = schedule(levels.seen(levels.relative(relative[None].double(), t)).flatten())
    covariance = oracle.covariance
    gain = covariance * alpha @ torch.linalg.inv(alpha[:, None] * covariance * alpha + torch.diag(sigma**2))
    left = (covariance - gain * alpha @ covariance).diagonal()[(relative.flatten() > 0) & (relative.flatten() <= 1)]
    assert abs(losses.mean() - left.sum() / 6) < 4 * losses.std() / count**0.5


def test_the_exact_loss_does_not_depend_on_the_noise_levels_of_observed_examples() -> None:
    """∫ ½ SNR ‖x̂ - x‖² dλ by the levels of either law, for x = 0, ε = 1 and a network of zeros: x̂ = c_skip σ."""
    schedule, u = Cosine(), (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    denoiser = Denoiser(lambda x, *_: torch.zeros_like(x), schedule, V())
    objective = Objective(Uniform(), Exact(), observed_levels=LogNormal(1.0, 2.0, 0.1))
    x, noise, relative = torch.zeros(len(u), 1).double(), torch.ones(len(u), 1).double(), torch.ones(len(u), 1)
    found = [
        objective.loss(denoiser, Batch(x, u, noise, relative=relative, observed=observed)).mean()
        for observed in (torch.zeros(len(u)).bool(), torch.ones(len(u)).bool())
    ]
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, 100_001, dtype=torch.float64)
    exact = torch.trapezoid(log_snr.exp() / 2 * (torch.sigmoid(log_snr) * torch.sigmoid(-log_snr)), log_snr)
    assert max(abs(float(value / exact) - 1) for value in found) < 2e-3


def test_observed_examples_draw_noise_levels_of_their_own() -> None:
    schedule, u = VarianceExploding(), torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    law = LogNormal(1.0, 2.0)
    objective = Objective(observed_levels=law)
    observed = torch.arange(999) % 2 == 0
    found = objective.log_snr(u, schedule, observed)
    assert torch.equal(found[observed], law.log_snr(u, schedule)[observed])
    assert torch.equal(found[~observed], LogNormal().log_snr(u, schedule)[~observed])
    assert torch.equal(Objective().log_snr(u, schedule, observed), objective.log_snr(u, schedule))


def test_what_nobody_saw_has_no_part_in_the_loss_or_its_gradient() -> None:
    network = UNetConfig(channels=(4, 8), blocks=1, attention=()).build(1, 1, mapped=True)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    denoiser = Denoiser(network, VarianceExploding(), EDMPrecond())
    relative = torch.ones(2, 1, 4, 4)
    relative[:, :, :2] = UNSEEN
    x, u = normal(2, 1, 4, 4).float(), torch.tensor([0.3, 0.8])
    changed = x.clone()
    changed[:, :, :2] += 0.1
    noise = normal(2, 1, 4, 4).float()
    # At the noisy end the signal is 1/160 of the noise: what is there changes the input by less than a thousandth.
    losses = [Objective().loss(denoiser, Batch(values, u, noise, relative=relative)) for values in (x, changed)]
    assert (losses[0] - losses[1]).abs().max() < 1e-2 * losses[0].abs().max()
    wrong = x.clone()
    wrong[:, :, 2:] += 0.1
    assert (Objective().loss(denoiser, Batch(wrong, u, noise, relative=relative)) - losses[0]).abs().max() > 0


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Objective(hybrid=0.1), r"training.hybrid: must be 0 with a noise level for every pixel, got 0.1"),
        (TrajectoryBound(torch.linspace(1, 0, 4)), r"observed.share: must be 0 with training.trajectory"),
    ],
)
def test_bounds_of_one_level_refuse_levels_by_pixel(objective: AnyObjective, message: str) -> None:
    oracle = correlated(Cosine(), (1, 2, 3))
    denoiser = Denoiser(OracleNetwork(oracle, V()), Cosine(), V())
    batch = Batch(normal(1, 1, 2, 3), torch.zeros(1), normal(1, 1, 2, 3), relative=torch.ones(1, 1, 2, 3))
    with pytest.raises(InputError, match=message):
        objective.loss(denoiser, batch)
