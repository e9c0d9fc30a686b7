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
from diffusion.operators import GaussianBlur, Identity, Mask
from diffusion.restoration import Problem, restore
from diffusion.restoration.learned import NEVER, Observed, ObservedStep, begins
from diffusion.restoration.methods import Guided, Learned, Resampling, choose, default
from diffusion.samplers import DDIM, DDPM, DPMSolver, DPMSolver3M, Heun, Sampler, SDESolver, prior, sample
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, affine, correlated

SHAPE = (1, 2, 3)
KNOWN = torch.tensor([[[True, False, False], [False, True, False]]])
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
def test_the_estimate_is_the_exact_mean_given_the_state_and_y(schedule: Schedule, noise: float) -> None:
    """E[x | x_t where unknown, y where known] by another way: the posterior given y, then that given x_t."""
    case, t = Case.of(schedule, noise), torch.tensor(0.7, dtype=torch.float64)
    alpha, sigma = (float(v) for v in schedule(t))
    assert float(schedule.log_snr(t)) < -2 * math.log(max(noise, 1e-9))
    x_t = torch.randn(1, *SHAPE, generator=generator(3), dtype=torch.float64)
    hidden = ~KNOWN.flatten()
    matrix = alpha * torch.eye(6, dtype=torch.float64)[hidden]
    exact = case.posterior.posterior(matrix, x_t.flatten()[hidden], sigma).mean
    found = case.observed()(x_t, t).mean[0]
    # A pixel known exactly is told to the network as one at the clean end, which is not quite without noise.
    end = float(schedule(torch.zeros((), dtype=torch.float64))[1])
    assert (found - exact).abs().max() < (1e-10 if noise else 2 * end)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_pixels_wait_and_then_move(noise: float) -> None:
    case = Case.of(EDM(), noise)
    observed = case.observed()
    x_t = torch.full((2, *SHAPE), 7.0, dtype=torch.float64)
    early, late = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)
    waiting = observed.placed(x_t, early)
    assert torch.equal(waiting[:, KNOWN], case.y[0][KNOWN].expand(2, -1)) and bool((waiting[:, ~KNOWN] == 7).all())
    moving = observed.placed(x_t, late)
    assert torch.equal(moving, x_t) if noise else torch.equal(moving, waiting)
    wait = float(observed.waits[0, 0, 0, 0])
    assert float(EDM()(torch.tensor(wait, dtype=torch.float64))[1]) == pytest.approx(max(noise, EDM().sigma_min))
    assert float(observed.times(early)[0, 0, 0, 1]) == 0.9


def moments(case: Case, sampler: Sampler, steps: int) -> tuple[Tensor, Tensor]:
    """The exact mean and covariance of the restorations of a sampler, from unit impulses of its noise."""
    observed, schedule = case.observed(), case.oracle.schedule
    times = grids.UniformLogSNR()(schedule, steps)

    def run(start: Tensor, randn: object) -> Tensor:
        x = prior(observed, start, times[0])
        return sample(observed, ObservedStep(sampler, observed), x, times, randn=randn)  # type: ignore[arg-type]

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


def test_the_third_order_is_kept_too() -> None:
    """Against many steps, as the ends of the grid are farther from exact than a few steps are from many."""
    case = Case.of(Cosine(), 0.0)
    _, limit = moments(case, DPMSolver3M(), 512)
    errors = [float((moments(case, DPMSolver3M(), steps)[1] - limit).abs().max()) for steps in (24, 48, 96)]
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 2.75


def test_noise_asks_for_the_reverse_process() -> None:
    """The flow makes one image of what is known in noise: its restorations hardly vary there, the posterior does."""
    case = Case.of(Cosine(), 0.5)
    known = KNOWN.flatten()
    exact = case.posterior.covariance.diagonal()[known]
    _, flow = moments(case, DPMSolver(), 64)
    _, reverse = moments(case, SDESolver(), 64)
    assert (flow.diagonal()[known] / exact).max() < 0.7
    assert (reverse.diagonal()[known] / exact - 1).abs().max() < 0.02
    problem, times = Problem(Mask(KNOWN), case.y, 0.5, SHAPE), grids.UniformLogSNR()(Cosine(), 4)
    with pytest.raises(InputError, match=r"sampler: must be ddpm or dpmpp_2m_sde, or have eta = 1"):
        restore(case.oracle, problem, torch.zeros(1, *SHAPE), times, method=Learned(sampler=DDIM()))
    restore(case.oracle, problem, torch.zeros(1, *SHAPE), times, method=Learned(sampler=DDIM(eta=1.0)))


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


def test_noise_alone_begins_where_the_image_is() -> None:
    everything = torch.ones_like(KNOWN)
    case = Case.of(EDM(), 0.5, everything)
    problem = Problem(Identity(), case.y, 0.5, SHAPE)
    times = grids.UniformLogSNR()(EDM(), 30)
    observed = case.observed(everything)
    left = begins(times, observed.waits)
    assert float(EDM()(left[0])[1]) == pytest.approx(0.5) and 2 < len(left) < len(times)
    assert torch.equal(begins(times, torch.tensor([NEVER])), times)
    noise = torch.randn(4000, *SHAPE, generator=generator(6), dtype=torch.float64)
    drawn = restore(case.oracle, problem, noise, times, method=Learned()).x
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
