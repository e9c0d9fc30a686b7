"""Restoration by a noise level for every pixel, on oracles whose posterior is known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion import grids
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError
from diffusion.guidance import ClassifierFree
from diffusion.operators import GaussianBlur, Identity, Mask
from diffusion.restoration import Problem, restore
from diffusion.restoration.learned import Observed
from diffusion.restoration.methods import Guided, Learned, Resampling, choose, default
from diffusion.samplers import DDIM, DDPM, DPMSolver, DPMSolver3M, Heun, Sampler, SDESolver, prior, sample
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, MixtureOracle, affine, correlated

SHAPE = (1, 2, 3)
KNOWN = torch.tensor([[[True, False, False], [False, True, False]]])
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 4) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """A Gaussian oracle, an observation y of its known pixels in noise, and the exact posterior."""

    oracle: GaussianOracle
    y: Tensor
    noise: float
    posterior: GaussianOracle

    @classmethod
    def of(cls, schedule: Schedule, noise: float, known: Tensor = KNOWN) -> Case:
        oracle = correlated(schedule, SHAPE)
        x = oracle.sample(1, generator(1))
        y = torch.where(known, x + noise * torch.randn(x.shape, generator=generator(2), dtype=torch.float64), 0.0)
        matrix = torch.eye(6, dtype=torch.float64)[known.flatten()]
        return cls(oracle, y, noise, oracle.posterior(matrix, y.flatten()[known.flatten()], noise))

    def observed(self, known: Tensor = KNOWN) -> Observed:
        return Observed.of(self.oracle, self.y, known.expand(1, *SHAPE), self.noise)


@SCHEDULES
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("time", [0.05, 0.4, 0.9])
def test_the_estimate_is_the_exact_mean_given_the_state_and_y(schedule: Schedule, noise: float, time: float) -> None:
    """The same as the oracle of the posterior, which is Gaussian: what y and x_t say of a pixel is in their mean."""
    case, t = Case.of(schedule, noise), torch.tensor(time, dtype=torch.float64)
    alpha, sigma = schedule(t)
    x_t = alpha * case.oracle.sample(3, generator(3)) + sigma * normal(3, *SHAPE)
    found = case.observed()(x_t, t).mean
    # A pixel known exactly is told to the network as one at the clean end, which is not quite without noise.
    end = float(schedule(torch.zeros((), dtype=torch.float64))[1])
    assert (found - case.posterior(x_t, t).mean).abs().max() < (1e-10 if noise else 3 * end)
    assert not noise or torch.equal(found, case.observed()(x_t, t.expand(3)).mean)


def test_the_mixture_is_exact_too() -> None:
    """Each component of a mixture is Gaussian; y weighs them by its likelihood."""
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=torch.float64)
    oracle = MixtureOracle(Cosine(), means, 0.2, torch.tensor([0.3, 0.7], dtype=torch.float64))
    y, known, noise = torch.tensor([[0.4, 0.0]], dtype=torch.float64), torch.tensor([[True, False]]), 0.5
    x_t, t = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = (float(v) for v in Cosine()(t))
    # Given a component, x_t and y are independent observations of each coordinate.
    precision = 1 / 0.2 + alpha**2 / sigma**2 + torch.tensor([1 / noise**2, 0.0], dtype=torch.float64)
    pull = x_t * alpha / sigma**2 + torch.tensor([[0.4 / noise**2, 0.0]], dtype=torch.float64)
    parts = (means / 0.2 + pull) / precision
    likelihood = torch.distributions.Normal(alpha * means, (alpha**2 * 0.2 + sigma**2) ** 0.5).log_prob(x_t).sum(1)
    # y given x_t and the component: x given x_t has the variance v.
    v = 1 / (1 / 0.2 + alpha**2 / sigma**2)
    mean = v * (means[:, 0] / 0.2 + x_t[0, 0] * alpha / sigma**2)
    likelihood = likelihood + torch.distributions.Normal(mean, (v + noise**2) ** 0.5).log_prob(y[0, 0])
    weights = (oracle.weights.log() + likelihood).softmax(0)
    found = Observed.of(oracle, y, known, noise)(x_t, t).mean
    assert (found - weights @ parts).abs().max() < 1e-10


def test_a_map_of_noise_is_exact() -> None:
    """Every pixel has noise of its own, one has none, and one was not observed."""
    oracle, noise = correlated(Flow(), SHAPE), torch.tensor([[[0.1, 0.4, 0.0], [2.0, 1.0, 0.3]]], dtype=torch.float64)
    known = torch.tensor([[[True, True, True], [True, False, True]]])
    y, t = oracle.sample(1, generator(1)), torch.tensor(0.5, dtype=torch.float64)
    posterior, rows = oracle, torch.eye(6, dtype=torch.float64)
    for i, (value, sigma) in enumerate(zip(y.flatten(), noise.flatten(), strict=True)):
        if known.flatten()[i]:
            posterior = posterior.posterior(rows[i : i + 1], value[None], float(sigma))
    x_t = normal(2, *SHAPE)
    found = Observed.of(oracle, y, known[None], noise[None])(x_t, t).mean
    assert (found - posterior(x_t, t).mean).abs().max() < 5e-3  # The clean end of this schedule has a noise of 0.002.
    assert (found - posterior(x_t, t).mean)[:, 0, 1, 1].abs().max() < 5e-3
    assert torch.equal(found[:, 0, 0, 2], y[:, 0, 0, 2].expand(2))


def moments(case: Case, sampler: Sampler, steps: int) -> tuple[Tensor, Tensor]:
    """The exact mean and covariance of the restorations of a sampler, from unit impulses of its noise."""
    observed, schedule = case.observed(), case.oracle.schedule
    times = grids.UniformLogSNR()(schedule, steps)

    def run(start: Tensor, randn: object) -> Tensor:
        x = prior(observed, start, times[0])
        return sample(observed, sampler, x, times, randn=randn)  # type: ignore[arg-type]

    found = affine(run, SHAPE)
    return found.moments(torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64))


def error(case: Case, sampler: Sampler, steps: int) -> float:
    """The largest error of the moments of the hidden pixels, at the clean end."""
    hidden = ~KNOWN.flatten() if not case.noise else torch.ones(6, dtype=torch.bool)
    mean, covariance = moments(case, sampler, steps)
    exact_mean, exact_covariance = case.posterior.moments(torch.zeros((), dtype=torch.float64))
    both = (mean - exact_mean)[hidden], (covariance - exact_covariance)[hidden][:, hidden]
    return max(float(part.abs().max()) for part in both)


@pytest.mark.parametrize(
    ("sampler", "noise", "order"),
    [
        (DDIM(), 0.0, 1),
        (DDPM(), 0.0, 1),
        (DDPM(), 0.2, 1),
        (Heun(), 0.0, 2),
        (DPMSolver(), 0.0, 2),
        (SDESolver(), 0.0, 2),
        (Heun(), 0.2, 2),
        (DPMSolver(), 0.2, 2),
        (SDESolver(), 0.2, 2),
    ],
    ids=lambda value: str(value),
)
def test_samplers_keep_their_order(sampler: Sampler, noise: float, order: int) -> None:
    """The errors of the mean and the covariance of the restorations fall as those of samples do."""
    case = Case.of(Cosine(), noise)
    errors = [error(case, sampler, steps) for steps in (64, 128, 256)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > order - 0.25


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_third_order_is_kept_too(noise: float) -> None:
    """Against many steps, as the ends of the grid are farther from exact than a few steps are from many."""
    case = Case.of(Cosine(), noise)
    _, limit = moments(case, DPMSolver3M(), 512)
    errors = [float((moments(case, DPMSolver3M(), steps)[1] - limit).abs().max()) for steps in (24, 48, 96)]
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 2.75


def test_restoring_draws_from_the_exact_posterior() -> None:
    case = Case.of(Cosine(), 0.0)
    problem = Problem(Mask(KNOWN), case.y, 0.0, SHAPE)
    noise = torch.randn(4000, *SHAPE, generator=generator(5), dtype=torch.float64)
    times = grids.UniformLogSNR()(Cosine(), 60)
    drawn = restore(case.oracle, problem, noise, times, method=Learned()).x
    assert torch.equal(drawn[:, KNOWN], case.y[0][KNOWN].expand(4000, -1))
    hidden = ~KNOWN
    exact = case.posterior.covariance.diagonal()[hidden.flatten()]
    off = (drawn[:, hidden].mean(0) - case.posterior.mean[hidden]) / (exact / 4000).sqrt()
    assert off.abs().max() < 5
    assert (drawn[:, hidden].var(0) / exact - 1).abs().max() < 0.15


@pytest.mark.parametrize("sampler", [SDESolver(), DPMSolver()], ids=["reverse SDE", "flow"])
def test_noise_alone_is_removed_by_draws_from_the_posterior(sampler: Sampler) -> None:
    everything = torch.ones_like(KNOWN)
    case = Case.of(EDM(), 0.5, everything)
    problem, times = Problem(Identity(), case.y, 0.5, SHAPE), grids.UniformLogSNR()(EDM(), 60)
    drawn = restore(case.oracle, problem, normal(4000, *SHAPE, seed=6), times, method=Learned(sampler)).x
    exact = case.posterior.covariance.diagonal().reshape(SHAPE)
    assert ((drawn.mean(0) - case.posterior.mean) / (exact / 4000).sqrt()).abs().max() < 5
    assert (drawn.var(0) / exact - 1).abs().max() < 0.15


def test_the_default_is_learned_where_a_network_has_learned_it() -> None:
    mask = Problem(Mask(KNOWN), torch.zeros(1, *SHAPE), 0.0, SHAPE)
    blur = Problem(GaussianBlur(1.0), torch.zeros(1, 1, 8, 8), 0.1, (1, 8, 8))
    assert default(mask, learned=True) == Learned() and default(mask) == Resampling()
    assert default(blur, learned=True) == Guided()
    assert choose("learned", DDIM(), mask, learned=True) == Learned(sampler=DDIM())
    with pytest.raises(InputError, match=r"method: learned needs a model that learned to restore"):
        choose("learned", None, mask)


def test_operators_that_show_no_pixels_are_refused() -> None:
    oracle: AnyDenoiser = correlated(EDM(), (3, 2, 2))
    times, noise = grids.UniformLogSNR()(EDM(), 4), torch.zeros(1, 3, 2, 2)
    channels = torch.tensor([True, True, False]).reshape(3, 1, 1)
    for problem in (
        Problem(Mask(channels), torch.zeros(1, 3, 2, 2), 0.0, (3, 2, 2)),
        Problem(GaussianBlur(1.0), torch.zeros(1, 3, 2, 2), 0.0, (3, 2, 2)),
    ):
        with pytest.raises(InputError, match=r"operator: must be a mask that shows all channels of a pixel or none"):
            restore(oracle, problem, noise, times, method=Learned())


def test_guidance_is_that_of_the_posteriors_at_the_time_of_the_trajectory() -> None:
    """x̂ + (scale - 1)(x̂ - x̂ without a label), both given y, in an interval that the waiting pixel has left long ago."""
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5]], dtype=torch.float64)
    oracle = MixtureOracle(Cosine(), means, 0.2, torch.tensor([0.3, 0.7], dtype=torch.float64))
    y, known, label = torch.tensor([[0.4, 0.0]], dtype=torch.float64), torch.tensor([[True, False]]), torch.tensor([0])
    x_t, t = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    log_snr = float(Cosine().log_snr(t))
    own = Observed.of(oracle, y, known, 0.05)
    given, free = own(x_t, t, label).mean, own(x_t, t).mean
    assert (given - free).abs().max() > 0.1
    for interval, scale in (((log_snr - 1, log_snr + 1), 3.0), ((log_snr + 1, 20.0), 1.0), ((-20.0, log_snr - 1), 1.0)):
        guided = Observed.of(ClassifierFree(oracle, 3.0, interval), y, known, 0.05)(x_t, t, label).mean
        assert (guided - (free + scale * (given - free))).abs().max() < 1e-12
