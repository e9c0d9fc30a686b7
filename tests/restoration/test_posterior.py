"""Restoration recovers the exact posterior of Gaussian data: its mean and, without Monte Carlo, its covariance."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.grids import UniformLogSNR
from diffusion.operators import Mask, Matrix, Operator
from diffusion.restoration.counting import CountingDenoiser
from diffusion.restoration.posterior import Covariance, Diagonal, Isotropic, Jacobian, Posterior, Zero, eigen_solve
from diffusion.samplers import SAMPLERS, sample
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, affine, correlated

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])
NOISES = pytest.mark.parametrize("noise", [0.1, 0.0])
MATRIX = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
Y = torch.tensor([0.4, -0.3], dtype=torch.float64)

# The error of the covariance, relative to its largest entry, after 100 steps. A sampler that is not listed must be at
# most as far off as DDPM.
COVARIANCE_ERRORS = {
    "ddpm": 0.13,
    "ddim": 0.07,
    "heun": 0.006,
    "dpmpp_2m": 0.003,
    "dpmpp_2m_sde": 0.007,
    "dpmpp_3m": 6.5e-5,
    "unipc": 2.6e-5,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diagonal(schedule: Schedule, values: list[float]) -> GaussianOracle:
    return replace(correlated(schedule, (3,)), covariance=torch.tensor(values, dtype=torch.float64).diag())


def error(posterior: Posterior, exact: GaussianOracle) -> float:
    """Returns the largest error of E[x|x_t, y] over all times."""
    t = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
    x_t = posterior.schedule(t)[0][:, None] * normal(40, 3) + posterior.schedule(t)[1][:, None] * normal(40, 3, seed=1)
    whole = posterior(x_t, t).mean
    assert torch.allclose(posterior(x_t[:1], t[0]).mean, whole[:1], rtol=1e-6, atol=1e-9), "one time or one for each"
    return (whole - exact(x_t, t).mean).abs().max().item()


@SCHEDULES
@NOISES
def test_jacobian_covariance_is_exact_for_gaussian_data(schedule: Schedule, noise: float) -> None:
    oracle = correlated(schedule, (3,))
    assert (
        error(Posterior(oracle, Matrix(MATRIX), Y, noise, Jacobian(1e-10)), oracle.posterior(MATRIX, Y, noise)) < 1e-8
    )


@SCHEDULES
@NOISES
def test_isotropic_covariance_is_exact_for_white_data(schedule: Schedule, noise: float) -> None:
    oracle = diagonal(schedule, [0.49, 0.49, 0.49])
    exact = oracle.posterior(MATRIX, Y, noise)
    assert error(Posterior(oracle, Matrix(MATRIX), Y, noise, Isotropic(0.7)), exact) < 1e-8
    assert error(Posterior(oracle, Matrix(MATRIX), Y, noise, Isotropic(1.4)), exact) > 1e-4 or noise == 0


@SCHEDULES
@NOISES
def test_diagonal_covariance_is_exact_for_independent_coordinates(schedule: Schedule, noise: float) -> None:
    oracle = diagonal(schedule, [0.1, 0.9, 0.4])
    exact = oracle.posterior(MATRIX, Y, noise)
    assert error(Posterior(oracle, Matrix(MATRIX), Y, noise, Diagonal()), exact) < 1e-8
    assert error(Posterior(oracle, Matrix(MATRIX), Y, noise, Isotropic()), exact) > 1e-2
    mixed = correlated(schedule, (3,))
    inexact = error(Posterior(mixed, Matrix(MATRIX), Y, noise, Diagonal()), mixed.posterior(MATRIX, Y, noise))
    assert inexact > 1e-2, "but not for others"


def test_zero_covariance_becomes_exact_at_high_log_snr() -> None:
    oracle = correlated(Cosine(), (3,))
    exact, posterior = oracle.posterior(MATRIX, Y, 0.1), Posterior(oracle, Matrix(MATRIX), Y, 0.1, Zero())
    errors = []
    for log_snr in (0.0, 8.0, 10.0):
        t = oracle.schedule.time(torch.tensor(log_snr, dtype=torch.float64))
        x_t = normal(8, 3)
        errors.append((posterior(x_t, t).mean - exact(x_t, t).mean).abs().max().item())
    assert errors[0] > 1 and errors[1] / errors[2] == pytest.approx(torch.tensor(4.0).exp().item(), rel=0.3)


@pytest.mark.parametrize("kind", Covariance.__subclasses__())
@SCHEDULES
def test_every_covariance_agrees_with_the_data_at_the_clean_end(kind: type[Covariance], schedule: Schedule) -> None:
    oracle = correlated(schedule, (3,))
    exact, posterior = oracle.posterior(MATRIX, Y, 0.1), Posterior(oracle, Matrix(MATRIX), Y, 0.1, kind())
    x_t, t = normal(8, 3), torch.tensor(1e-6, dtype=torch.float64)
    assert (posterior(x_t, t).mean - exact(x_t, t).mean).abs().max() < 5e-3


@NOISES
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_the_exact_posterior(name: str, noise: float) -> None:
    schedule = Cosine()
    oracle = correlated(schedule, (3,))
    exact = oracle.posterior(MATRIX, Y, noise)
    denoiser, times = Posterior(oracle, Matrix(MATRIX), Y, noise, Jacobian(1e-10)), UniformLogSNR()(schedule, 100)
    produced = affine(lambda x, randn: sample(denoiser, SAMPLERS[name](), x, times, randn=randn), (3,))
    start = schedule(times[0])[1] ** 2 * torch.eye(3, dtype=torch.float64)
    mean, covariance = produced.moments(torch.zeros(3, dtype=torch.float64), start)
    assert (mean - exact.mean).abs().max() < 1e-3
    scale = exact.covariance.abs().max()
    assert (covariance - exact.covariance).abs().max() / scale < COVARIANCE_ERRORS.get(name, COVARIANCE_ERRORS["ddpm"])


def test_images_and_masks() -> None:
    oracle = correlated(EDM(), (1, 2, 3))
    known = torch.tensor([[[True, False, True], [False, False, True]]])
    y = normal(1, 1, 2, 3) * known
    rows = torch.eye(6, dtype=torch.float64)[known.flatten()]
    exact = oracle.posterior(rows, y.flatten()[known.flatten()], 0.0)
    posterior = Posterior(oracle, Mask(known), y, 0.0, Jacobian(1e-10))
    x_t, t = 2 * normal(5, 1, 2, 3, seed=1), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    guided = posterior(x_t, t).mean
    assert torch.allclose(guided, exact(x_t, t).mean, rtol=0, atol=1e-8)
    assert torch.allclose(torch.where(known, guided, 0.0), y.expand_as(guided), rtol=0, atol=1e-8), (
        "what is known stays"
    )


def test_by_default_y_has_no_noise_and_the_data_unit_variance() -> None:
    oracle = diagonal(Cosine(), [1.0, 1.0, 1.0])
    assert error(Posterior(oracle, Matrix(MATRIX), Y), oracle.posterior(MATRIX, Y, 0.0)) < 1e-8


def test_a_jacobian_that_is_no_covariance_is_not_inverted() -> None:
    oracle = correlated(EDM(), (6,))
    skew = normal(6, 6, seed=3)
    error = 0.3 * (skew - skew.mT) + 0.2 * torch.diag(normal(6, seed=4))

    class Wrong:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(oracle(x_t, t).mean + x_t @ error)

    rows, y, x_t = normal(5, 6), normal(1, 5, seed=1), normal(4, 6, seed=2)
    t = torch.tensor(0.5, dtype=torch.float64)
    jacobian, white = (
        Posterior(Wrong(), Matrix(rows), y, 0.1, kind)(x_t, t).mean for kind in (Jacobian(), Isotropic())
    )
    alpha, sigma = EDM()(t)
    slope = torch.func.jacrev(lambda x: Wrong()(x[None], t).mean[0])(x_t[0]) * sigma**2 / alpha
    residual = y - Wrong()(x_t, t).mean @ rows.mT
    gram = rows @ rows.mT * sigma**2 / (alpha**2 + sigma**2)
    by_jacobian = torch.einsum("bi,ij,bj->b", residual, rows @ slope.mT @ rows.mT, residual)
    k = (by_jacobian / torch.einsum("bi,ij,bj->b", residual, gram, residual)).clamp_min(1)
    assert float(k.max()) > 1.2 and float(k.min()) == 1, "both kinds are tried"
    matrix = 0.01 * torch.eye(5, dtype=torch.float64) + k[:, None, None] * gram
    expected = Wrong()(x_t, t).mean + torch.linalg.solve(matrix, residual[..., None])[..., 0] @ rows @ slope
    assert torch.allclose(jacobian, expected, rtol=0, atol=1e-2 * float(expected.abs().max()))
    assert not torch.allclose(jacobian, white, rtol=0, atol=1e-2 * float(white.abs().max()))
    right = [Posterior(oracle, Matrix(rows), y, 0.1, kind)(x_t, t).mean for kind in (Jacobian(), Isotropic())]
    assert not torch.allclose(*right, rtol=0, atol=1e-2 * float(right[1].abs().max()))


def test_it_works_without_gradients_and_leaves_no_graph() -> None:
    oracle, label = correlated(Cosine(), (3,)), torch.tensor([0, 1])

    class Learned:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            assert label is not None
            return Prediction(oracle(x_t, t).mean, torch.sigmoid(x_t * label[:, None]))

    posterior = Posterior(Learned(), Matrix(MATRIX), Y, 0.1, Jacobian())
    x_t, t = normal(2, 3), torch.tensor(0.4, dtype=torch.float64)
    prediction = posterior(x_t, t, label)
    assert prediction.variance_interp is not None and torch.equal(
        prediction.variance_interp, torch.sigmoid(x_t * label[:, None])
    )
    assert not prediction.mean.requires_grad and not prediction.variance_interp.requires_grad
    with torch.no_grad():
        assert torch.equal(posterior(x_t, t, label).mean, prediction.mean)


@SCHEDULES
@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_the_twisting_function_is_exact_for_gaussian_data(schedule: Schedule, noise: float) -> None:
    oracle, t = correlated(schedule, (3,)), torch.tensor(0.4, dtype=torch.float64)
    x_t = normal(6, 3)
    alpha, sigma = schedule(t)
    precision = torch.linalg.inv(oracle.covariance) + (alpha / sigma) ** 2 * torch.eye(3, dtype=torch.float64)
    covariance = MATRIX @ torch.linalg.inv(precision) @ MATRIX.mT + noise**2 * torch.eye(2, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(oracle(x_t, t).mean @ MATRIX.mT, covariance)
    dense = Posterior(oracle, Matrix(MATRIX), Y, noise, Jacobian(), dense=True).condition(x_t, t)
    assert torch.allclose(dense.log_likelihood, exact.log_prob(Y), rtol=1e-9)
    iterated = Posterior(oracle, Matrix(MATRIX), Y, noise, Jacobian(1e-12)).condition(x_t, t)
    assert torch.allclose(iterated.posterior.mean, dense.posterior.mean, rtol=0, atol=1e-9)
    constant = dense.log_likelihood - iterated.log_likelihood
    assert torch.allclose(constant, -covariance.logdet() / 2 - math.log(2 * math.pi), rtol=1e-9), "what is left out"


@pytest.mark.parametrize(
    ("values", "least", "raised"), [((4e6, 0.0), 0.0, 2 * 2**-52 * 4e6), ((4.0, -1.0), 0.25, 0.25)]
)
def test_eigenvalues_below_the_noise_or_below_rounding_are_raised(
    values: tuple[float, float], least: float, raised: float
) -> None:
    scale, b = torch.tensor(values, dtype=torch.float64), torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    solution, half_log_det = eigen_solve(lambda v: scale * v, b, least)
    assert solution[0].tolist() == pytest.approx([2 / values[0], 3 / raised], rel=1e-12)
    assert float(half_log_det) == pytest.approx(math.log(2 * math.pi) + math.log(values[0] * raised) / 2, rel=1e-12)


def test_the_tolerance_decides_how_many_backward_passes_are_made() -> None:
    oracle, t = correlated(Cosine(), (30,), low=1e-4, high=10.0), torch.tensor(0.5, dtype=torch.float64)
    matrix, x_t = normal(20, 30), normal(4, 30, seed=1)
    y, exact = normal(20, seed=2), None
    errors, passes = [], []
    for tolerance in (1e-10, 1e-4, 1e-2):
        counted = CountingDenoiser(oracle)
        mean = Posterior(counted, Matrix(matrix), y, 0.1, Jacobian(tolerance))(x_t, t).mean
        exact = mean if exact is None else exact
        errors.append((mean - exact).norm().item())
        passes.append(counted.backward)
    assert errors[1] < errors[2] and errors[1] < 1e-2 * exact.norm().item()  # type: ignore[union-attr]
    assert passes[0] > passes[1] > passes[2] > 2


@pytest.mark.parametrize(
    ("covariance", "passes"),
    [(Zero(), 1), (Isotropic(), 1), (Diagonal(), 2), (Jacobian(1e-6), 3)],
    ids=["zero", "isotropic", "diagonal", "jacobian"],
)
def test_backward_passes_are_made_for_y_and_for_what_the_covariance_asks(covariance: Covariance, passes: int) -> None:
    counted = CountingDenoiser(correlated(Cosine(), (3,)))
    t = torch.tensor(0.4, dtype=torch.float64)
    Posterior(counted, Matrix(MATRIX), Y, 0.1, covariance)(normal(1, 3), t)
    assert counted.nfe == 1 and counted.backward == passes, "the row sums; an iteration for each of two observations"


def test_an_operator_that_is_not_linear_is_linearized_at_the_mean() -> None:
    class Squares(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x.square()

    oracle, t = correlated(EDM(), (3,)), EDM().time(torch.tensor(6.0, dtype=torch.float64))
    x = oracle.sample(4, torch.Generator().manual_seed(0))
    x_t = x + EDM()(t)[1] * normal(4, 3)
    y, mean = x.square(), oracle(x_t, t).mean
    guided = Posterior(oracle, Squares(), y, 0.001, Jacobian())(x_t, t).mean
    assert (guided.square() - y).norm() < 0.1 * (mean.square() - y).norm()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: Posterior(o, Matrix(MATRIX), Y, -0.1), "noise: must be 0 or more, got -0.1"),
        (
            lambda o: Posterior(o, Matrix(MATRIX), Y, 0.0, Zero()),
            "noise: must be positive with the zero covariance, got 0",
        ),
    ],
)
def test_bad_arguments_are_named(make: Callable[[GaussianOracle], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(correlated(Cosine()))
