"""Particles converge to the exact posterior and evidence of mixtures, as the law of large numbers says."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from diffusion.grids import UniformLogSNR
from diffusion.operators import Matrix
from diffusion.restoration.particles import Particles, particles, systematic
from diffusion.restoration.posterior import Isotropic, Jacobian, Posterior
from diffusion.samplers import DDIM, DDPM, DPMSolver, Heun, Sampler, SDESolver, prior, sample
from diffusion.schedules import EDM, Cosine
from tests.oracles import MixtureOracle, correlated

SCHEDULE = EDM(sigma_max=80.0)
MEANS = torch.tensor([[-3.0, 1.0], [0.0, -2.0], [3.0, 2.0]], dtype=torch.float64)
MIXTURE = MixtureOracle(SCHEDULE, MEANS, 0.25, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64))
MATRIX = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
Y, NOISE = torch.tensor([0.9], dtype=torch.float64), 0.8


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact() -> tuple[Tensor, Tensor]:
    """Returns log p(y) and E[x|y] of the mixture."""
    total = NOISE**2 + 0.25
    seen = MEANS @ MATRIX[0]
    joint = MIXTURE.weights.log() - (Y - seen).square() / (2 * total) - math.log(2 * math.pi * total) / 2
    means = MEANS + 0.25 / total * (Y - seen)[:, None] * MATRIX
    return joint.logsumexp(0), joint.softmax(0) @ means


def run(count: int, seed: int, steps: int = 40, sampler: Sampler | None = None, **options: float) -> Particles:
    generator = torch.Generator().manual_seed(seed)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    times = UniformLogSNR(-6.0, 5.0)(SCHEDULE, steps)
    posterior = Posterior(MIXTURE, Matrix(MATRIX), Y, NOISE, Jacobian(), dense=True)
    start = prior(MIXTURE, randn(torch.zeros(count, 2)), times[0])
    return particles(posterior, sampler or SDESolver(), start, times, randn=randn, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", [SDESolver(), DDPM(0.5), DDIM(1.0)], ids=["2m", "ddpm", "ddim"])
def test_the_evidence_is_within_its_interval_of_the_exact_one(sampler: Sampler) -> None:
    """e^(log p̂ - log p) has the mean 1 for a chain of small steps; first-order samplers take more of them."""
    steps = 40 if isinstance(sampler, SDESolver) else 120
    ratios = torch.stack([run(300, seed, steps, sampler).log_evidence for seed in range(5)]).sub(exact()[0]).exp()
    error = ratios.std() / len(ratios) ** 0.5
    assert error < 0.05
    assert abs(ratios.mean() - 1) < 3 * error + 0.02


def test_the_evidence_of_all_resamplings_adds_up_to_the_exact_one() -> None:
    """Resampled at every step, the mean weights since the last time multiply to p(y)."""
    ratios = torch.stack([run(300, seed, threshold=1.0).log_evidence for seed in range(5)]).sub(exact()[0]).exp()
    error = ratios.std() / len(ratios) ** 0.5
    assert error < 0.05 and abs(ratios.mean() - 1) < 3 * error + 0.02


def test_the_square_error_falls_as_one_over_the_particles() -> None:
    _, mean = exact()
    errors = []
    for count in (16, 64, 256):
        found = torch.stack([run(count, seed, 20).x.mean(0) for seed in range(20)])
        errors.append((found - mean).square().sum(1).mean().log().item())
    order = (errors[2] - errors[0]) / math.log(256 / 16)
    assert order == pytest.approx(-1, abs=0.35)


def test_without_weights_the_same_steps_are_wrong_about_the_modes() -> None:
    times = UniformLogSNR(-6.0, 5.0)(SCHEDULE, 40)
    posterior = Posterior(MIXTURE, Matrix(MATRIX), Y, NOISE, Jacobian(), dense=True)
    generator = torch.Generator().manual_seed(0)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    x = sample(posterior, SDESolver(), prior(MIXTURE, randn(torch.zeros(2000, 2)), times[0]), times, randn=randn)
    _, mean = exact()
    assert (x.mean(0) - mean).norm() > 3 * (run(2000, 0).x.mean(0) - mean).norm()


def test_weights_are_equal_and_the_evidence_exact_for_gaussian_data_and_small_steps() -> None:
    oracle = correlated(Cosine(), (3,))
    matrix, y = normal(2, 3), torch.tensor([0.4, -0.3], dtype=torch.float64)
    posterior = Posterior(oracle, Matrix(matrix), y, 0.5, Jacobian(), dense=True)
    law = torch.distributions.MultivariateNormal(
        matrix @ oracle.mean, matrix @ oracle.covariance @ matrix.mT + 0.25 * torch.eye(2, dtype=torch.float64)
    )
    shares = []
    for steps in (40, 120):
        times = UniformLogSNR(-10.0, 8.0)(oracle.schedule, steps)
        generator = torch.Generator().manual_seed(0)

        def randn(like: Tensor, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(like.shape, generator=generator, dtype=torch.float64)

        found = particles(
            posterior, SDESolver(), prior(oracle, randn(torch.zeros(500, 3)), times[0]), times, randn=randn
        )
        shares.append(float(found.relative_ess.min()))
    assert shares[1] > 0.9 and 1 - shares[1] < 0.5 * (1 - shares[0])
    assert float(found.log_evidence) == pytest.approx(float(law.log_prob(y)), abs=0.03)


def test_fewer_samples_than_particles_and_their_ancestors() -> None:
    found = run(200, 0, n=50)
    assert found.x.shape == (50, 2) and found.relative_ess.shape == (40,)
    assert 1 <= found.ancestors <= 50
    never = run(200, 0, threshold=0.0)
    assert never.relative_ess[-1] <= never.relative_ess[0] and never.x.shape == (200, 2)


def test_particles_are_resampled_below_half_of_their_number_by_default() -> None:
    found, half, always = run(16, 0), run(16, 0, threshold=0.5), run(16, 0, threshold=1.0)
    assert torch.equal(found.x, half.x) and torch.equal(found.relative_ess, half.relative_ess)
    assert not torch.equal(found.relative_ess, always.relative_ess)
    assert run(2, 0, 3, n=1).x.shape == (1, 2)


def test_systematic_resampling_is_rounding() -> None:
    log_weight = normal(7) * 2
    expected = 20 * log_weight.softmax(0)
    counts = torch.stack(
        [torch.bincount(systematic(log_weight, u, 20), minlength=7) for u in torch.linspace(0, 0.999, 200)]
    )
    assert (counts.sum(1) == 20).all()
    assert (counts >= expected.floor()).all() and (counts <= expected.ceil()).all()
    assert torch.allclose(counts.double().mean(0), expected, atol=0.02), "and unbiased over the offset"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": Heun()}, "sampler: must be one with a single evaluation per step"),
        (
            {"sampler": DPMSolver()},
            "sampler: must draw noise, without which copies of a particle stay equal, got DPMSolver",
        ),
        ({"n": 0}, "n: must be between 1 and the 8 particles, got 0"),
        ({"n": 9}, "n: must be between 1 and the 8 particles, got 9"),
        ({"threshold": -0.1}, "threshold: must be in [0, 1], got -0.1"),
        ({"threshold": 1.5}, "threshold: must be in [0, 1], got 1.5"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run(8, 0, 3, **options)  # type: ignore[arg-type]


def test_isotropic_twists_come_to_the_same_posterior() -> None:
    times = UniformLogSNR(-6.0, 5.0)(SCHEDULE, 60)
    posterior = Posterior(MIXTURE, Matrix(MATRIX), Y, NOISE, Isotropic(2.5))
    generator = torch.Generator().manual_seed(0)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    found = particles(posterior, SDESolver(), prior(MIXTURE, randn(torch.zeros(2000, 2)), times[0]), times, randn=randn)
    assert (found.x.mean(0) - exact()[1]).norm() < 0.2
