"""Resampled particles have the exact weights of the modes and the exact evidence, the nearer the higher the log-SNR."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion import schedules
from diffusion.grids import Tabulated, UniformLogSNR
from diffusion.operators import Matrix
from diffusion.restoration.counting import CountingDenoiser
from diffusion.restoration.particles import Particles
from diffusion.restoration.posterior import Jacobian, Posterior
from diffusion.restoration.resampling import reaches, resample_at, split_at
from diffusion.samplers import DDIM, DDPM, DPMSolver, Heun, Sampler, SDESolver, prior
from diffusion.schedules import EDM, Schedule
from tests.oracles import MixtureOracle

SCHEDULE = EDM(sigma_max=80.0)
MEANS = torch.tensor([[-6.0, 2.0], [0.0, -4.0], [6.0, 3.0]], dtype=torch.float64)
MIXTURE = MixtureOracle(SCHEDULE, MEANS, 0.25, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))
MATRIX = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
SCHEDULES = pytest.mark.parametrize(
    "schedule", [kind() for kind in schedules.SCHEDULES.values()], ids=schedules.SCHEDULES
)
Y, NOISE = torch.tensor([0.2], dtype=torch.float64), 0.8


def run(count: int, seed: int, at: float, steps: int = 40, **options: object) -> Particles:
    generator = torch.Generator().manual_seed(seed)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    times = UniformLogSNR(-7.0, 6.0)(SCHEDULE, steps)
    posterior = Posterior(MIXTURE, Matrix(MATRIX), Y, NOISE, Jacobian(), dense=True)
    start = prior(MIXTURE, randn(torch.zeros(count, 2)), times[0])
    return resample_at(posterior, start, times, at=at, randn=randn, **options)  # type: ignore[arg-type]


def exact() -> tuple[Tensor, Tensor, Tensor]:
    """Returns log p(y), the posterior weights of the modes (K,), and their means (K, 2)."""
    total = NOISE**2 + 0.25 * MATRIX.square().sum()
    missed = Y - MEANS @ MATRIX[0]
    joint = MIXTURE.weights.log() - missed.square() / (2 * total) - (2 * torch.pi * total).log() / 2
    return joint.logsumexp(0), joint.softmax(0), MEANS + 0.25 / total * missed[:, None] * MATRIX


def kinds(x: Tensor) -> Tensor:
    return torch.cdist(x, MEANS).argmin(1)


def test_modes_their_moments_and_the_evidence_are_exact() -> None:
    found = run(8000, 0, at=1.0)
    evidence, weights, means = exact()
    assert float(found.log_evidence) == pytest.approx(float(evidence), abs=0.03)
    kind = kinds(found.x)
    shares = torch.bincount(kind, minlength=3) / len(kind)
    assert (shares - weights).abs().max() < 0.03
    total = NOISE**2 + 0.25 * MATRIX.square().sum()
    covariance = 0.25 * torch.eye(2, dtype=torch.float64) - 0.0625 / total * MATRIX.mT @ MATRIX
    for k in range(3):
        inside = found.x[kind == k]
        assert (inside.mean(0) - means[k]).norm() < 5 * (0.25 / len(inside)) ** 0.5 + 0.02
        assert (inside.mT.cov() - covariance).abs().max() < 0.05


def test_the_error_of_the_evidence_falls_as_the_square_root_of_the_particles() -> None:
    errors = []
    for count in (100, 1600):
        found = torch.stack([run(count, seed, 1.0, 20).log_evidence for seed in range(24)])
        errors.append(float((found - exact()[0]).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.5)


def test_resampling_before_the_modes_are_decided_is_wrong_about_them() -> None:
    _, weights, _ = exact()

    def error(at: float) -> float:
        shares = torch.bincount(kinds(run(4000, 1, at).x), minlength=3) / 4000
        return float((shares - weights).abs().sum())

    assert error(-5.0) > 3 * error(1.0)


@pytest.mark.parametrize("sampler", [DDPM(), DDIM(1.0), SDESolver()], ids=["ddpm", "ddim", "2m"])
def test_noise_tells_copies_of_one_particle_apart(sampler: Sampler) -> None:
    found = run(60, 0, at=1.0, sampler=sampler)
    assert found.ancestors < 40, "copies there are"
    apart = torch.cdist(found.x, found.x) + 1e3 * torch.eye(60, dtype=torch.float64)
    assert apart.min() > 1e-3 and apart.min(1).values.mean() > 0.05


def test_fewer_samples_than_particles_and_a_log_snr_beyond_the_grid() -> None:
    found = run(300, 0, at=50.0, steps=10, n=40)
    assert found.x.shape == (40, 2) and 1 <= found.ancestors <= 40 and found.relative_ess.shape == (1,)
    clean = run(300, 0, at=50.0, steps=10, n=40, sampler=DDIM())
    assert torch.allclose(clean.x, found.x, rtol=0, atol=0.02), "onto the clean end there is no noise to ask for"


def test_noise_is_asked_for_wherever_a_step_follows_before_the_last() -> None:
    # Ten log-SNRs from -7 to 6: the last but one is 4.56.
    with pytest.raises(ValueError, match="sampler: must draw noise"):
        run(8, 0, at=4.5, steps=10, sampler=DDIM())
    assert run(8, 0, at=4.6, steps=10, sampler=DDIM(), n=1).x.shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n: must be between 1 and the 8 particles, got 0"),
        ({"flow": Heun()}, "flow: must be one with a single evaluation per step"),
        ({"sampler": Heun()}, "sampler: must be one with a single evaluation per step"),
        (
            {"sampler": DDIM()},
            "sampler: must draw noise, without which copies of a particle stay equal, got DDIM(eta=0.0)",
        ),
        (
            {"sampler": DPMSolver()},
            "sampler: must draw noise, without which copies of a particle stay equal, got DPMSolver",
        ),
    ],
)
def test_bad_arguments_are_named(options: dict[str, int | Sampler], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run(8, 0, 1.0, 10, **options)


@SCHEDULES
def test_steps_are_moved_after_the_resampling_where_a_grid_has_few(schedule: Schedule) -> None:
    # Even up to 2, with a tenth of the steps for the rest.
    few_after = Tabulated((*range(-7, 3), 6.0))(schedule, 100)
    log_snr = schedule.log_snr(few_after[:-1])
    found = split_at(schedule, few_after, 2.0)
    moved = schedule.log_snr(found[:-1])
    assert len(found) == len(few_after)
    assert (found.diff() < 0).all()
    assert moved[[0, -1]].tolist() == pytest.approx(log_snr[[0, -1]].tolist(), abs=1e-9)
    after = moved[moved > 2 - 1e-9]
    # The evaluation of the resampling and those after it; n₁ and n₂ are related as the errors of their orders demand.
    n1, n2 = 100 - (len(after) - 1), len(after) - 1
    assert n1**1.5 / 24 - 1.5 < n2 <= n1**1.5 / 24
    assert torch.allclose(after, torch.linspace(2, float(log_snr[-1]), n2 + 1, dtype=torch.float64), atol=1e-9)
    # Evenly still, but for the last step: the grid's own bends at 2, between two of its times.
    steps = moved[:n1].diff()
    assert torch.allclose(steps[:-1], steps[0], atol=1e-9)
    assert float(steps[-1]) == pytest.approx(float(steps[0]), rel=0.5)


@SCHEDULES
@pytest.mark.parametrize("at", [2.0, 2.3, 3.0])
def test_particles_are_resampled_at_the_log_snr_that_the_steps_were_moved_for(schedule: Schedule, at: float) -> None:
    # Evaluations up to and including that of the resampling have no backward passes before them.
    seen: list[Tensor] = []
    counted = CountingDenoiser(
        replace(MIXTURE, schedule=schedule), lambda t: None if counted.backward else seen.append(t)
    )
    times = split_at(schedule, Tabulated((*range(-7, 3), 6.0))(schedule, 100), at)
    posterior = Posterior(counted, Matrix(MATRIX), Y, NOISE, Jacobian(), dense=True)
    start = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    resample_at(posterior, prior(counted, start, times[0]), times, at=at)
    assert float(schedule.log_snr(seen[-1])) == pytest.approx(at, abs=1e-9)


@SCHEDULES
def test_a_grid_that_has_the_log_snr_is_counted_from_there(schedule: Schedule) -> None:
    times = UniformLogSNR(-7.0, 6.0)(schedule, 14)
    for at in range(-6, 7):
        assert int(reaches(schedule.log_snr(times[:-1]), at).sum()) == 7 - at


def test_evaluations_are_split_where_both_errors_are_equal() -> None:
    """24 n₂ = n₁^1.5 has the solution 9 and 36 in whole numbers."""
    times = split_at(SCHEDULE, UniformLogSNR(-7.0, 6.0)(SCHEDULE, 45), 5.0)
    log_snr = SCHEDULE.log_snr(times[:-1])
    assert float(log_snr[35]) == pytest.approx(5.0, abs=1e-9)
    assert torch.allclose(log_snr[35:], torch.linspace(5, 6, 10, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("steps", "at"), [(100, -3.0), (100, 6.5), (1, 0.0), (20, 3.0)])
def test_grids_with_enough_or_no_steps_after_the_resampling_stay_as_they_are(steps: int, at: float) -> None:
    times = UniformLogSNR(-7.0, 6.0)(SCHEDULE, steps)
    assert split_at(SCHEDULE, times, at) is times
