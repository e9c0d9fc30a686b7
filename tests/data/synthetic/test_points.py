from __future__ import annotations

import math

import pytest
import torch

from diffusion.data import Dataset, Lattice, SwissRoll, lattice, mixture, swiss_roll
from diffusion.data.synthetic.points import ROLL_CENTER


def points(dataset: Dataset) -> torch.Tensor:
    values, _ = dataset.batch(range(len(dataset)))
    return values.double()


@pytest.mark.parametrize("make", [swiss_roll, mixture, lattice])
def test_mean_zero_and_variance_one(make: type[Dataset]) -> None:
    dataset = make(100_000, seed=0)
    x = points(dataset)
    assert x.mean(0).abs().max() < 0.015
    assert x.square().mean() == pytest.approx(1, abs=0.01)
    assert (dataset.spec.shape, dataset.spec.levels, dataset.labels) == ((2,), None, None)


@pytest.mark.parametrize("make", [swiss_roll, mixture, lattice])
def test_points_are_a_function_of_the_seed(make: type[Dataset]) -> None:
    assert torch.equal(points(make(50, seed=1)), points(make(50, seed=1)))
    assert not torch.equal(points(make(50, seed=1)), points(make(50, seed=2)))


def test_roll_without_noise_lies_on_the_spiral() -> None:
    roll = SwissRoll(noise=0)
    raw = points(swiss_roll(1000, seed=0, noise=0)) * roll.scale + torch.tensor(ROLL_CENTER)
    t = raw.norm(dim=1)
    assert 1.5 * math.pi - 1e-4 <= t.min() <= t.max() <= 4.5 * math.pi + 1e-4
    spiral = torch.stack([t * t.cos(), t * t.sin()], dim=1)
    assert (raw - spiral).abs().max() < 1e-4


def test_density_of_the_roll_is_normalized_and_has_its_entropy() -> None:
    """The oracle is the trapezoidal rule on a grid of the plane, which is exact for functions as smooth as this."""
    roll = SwissRoll(noise=0.5)
    axis = torch.linspace(-2.8, 2.8, 240, dtype=torch.float64)
    log_density = roll.log_density(torch.cartesian_prod(axis, axis))
    cell = (axis[1] - axis[0]) ** 2
    assert float(log_density.exp().sum() * cell) == pytest.approx(1, abs=1e-9)
    assert roll.entropy == pytest.approx(-float((log_density.exp() * log_density).sum() * cell), abs=1e-6)


def test_density_of_the_thin_roll_is_that_of_an_independent_quadrature() -> None:
    """The oracle is the midpoint rule with 200 nodes per standard deviation along the arc.

    Points lie at the ends of the spiral, on it and beside it.
    """
    roll = SwissRoll()
    n = 500_000
    t = math.pi * (1.5 + 3 * (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    spiral = (torch.stack([t * t.cos(), t * t.sin()], 1) - torch.tensor(ROLL_CENTER)) / roll.scale
    x = torch.cat([spiral[[0, n // 3, n - 1]], points(swiss_roll(5, seed=0)), spiral[[5, n // 2]] + 0.02])
    variance = (roll.noise / roll.scale) ** 2
    sums = torch.stack([(-(spiral - at).square().sum(1) / (2 * variance)).logsumexp(0) for at in x])
    assert roll.log_density(x) == pytest.approx(sums - math.log(n * 2 * math.pi * variance), abs=1e-5)


@pytest.mark.parametrize(("alpha", "sigma"), [(0.9, 0.02), (0.6, 0.8), (1.0, 0.1)])
def test_posterior_of_the_roll_is_that_of_tweedie(alpha: float, sigma: float) -> None:
    """x_t / α is a point of a noisier roll of the same spiral: with its score s and Hessian H, E[x|x_t] is
    x_t / α + (σ/α)² s and Var[x|x_t] is (σ/α)² (1 + (σ/α)² H) (Efron 2011).
    """
    roll, generator = SwissRoll(noise=0.2), torch.Generator().manual_seed(0)
    variance_t = (sigma / alpha) ** 2
    noisier = SwissRoll(noise=math.sqrt(0.2**2 + variance_t * roll.scale**2))
    ratio = roll.scale / noisier.scale
    x_t = alpha * roll.sample(6, generator) + sigma * torch.randn(6, 2, generator=generator, dtype=torch.float64)
    mean, variance = roll.posterior(x_t, torch.tensor(alpha).double(), torch.tensor(sigma).double())
    at, step = x_t / alpha, 3e-4 * torch.eye(2, dtype=torch.float64)
    here = noisier.log_density(ratio * at)
    ahead, behind = (
        torch.stack([noisier.log_density(ratio * (at + sign * move)) for move in step], 1) for sign in (1, -1)
    )
    score, hessian = (ahead - behind) / 6e-4, (ahead + behind - 2 * here[:, None]) / 9e-8
    assert torch.allclose(mean, at + variance_t * score, atol=1e-5)
    assert torch.allclose(variance, variance_t * (1 + variance_t * hessian), rtol=1e-3, atol=1e-6)


def test_entropy_of_the_roll_is_as_stated() -> None:
    """The entropy is stated in bits; the oracle is the mean over a sample."""
    roll = SwissRoll()
    assert -roll.entropy / math.log(2) == pytest.approx(2.45, abs=5e-4)
    bits = roll.log_density(points(swiss_roll(3000, seed=0))) / math.log(2)
    assert float(bits.mean()) == pytest.approx(2.45, abs=4 * float(bits.std()) / 3000**0.5)


def test_modes_of_the_mixture() -> None:
    dataset = mixture(20_000, seed=0, modes=5, std=0.05, labels=True)
    x = points(dataset)
    assert dataset.spec.classes == ("0", "1", "2", "3", "4")
    assert dataset.labels is not None
    scale = math.sqrt(0.5 + 0.05**2)
    for mode in range(5):
        mine = x[torch.from_numpy(dataset.labels == mode)]
        angle = 2 * math.pi * mode / 5
        center = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64) / scale
        assert len(mine) == pytest.approx(4000, abs=250)
        assert (mine.mean(0) - center).abs().max() < 0.006
        assert mine.std(0).numpy() == pytest.approx(0.05 / scale, rel=0.05)


def test_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"data\.count: .*got 0"):
        swiss_roll(0, seed=0)
    with pytest.raises(ValueError, match=r"data\.modes: .*got 1"):
        mixture(5, seed=0, modes=1)
    with pytest.raises(ValueError, match=r"noise: .*got -1"):
        SwissRoll(noise=-1)
    with pytest.raises(ValueError, match=r"noise: must be a positive number, got 0"):
        Lattice(noise=0)


EACH = pytest.mark.parametrize("even", [False, True], ids=["unequal", "even"])


@EACH
def test_modes_of_the_lattice_have_their_weights_and_width(even: bool) -> None:
    modes = Lattice(even=even)
    x = modes.sample(200_000, torch.Generator().manual_seed(0))
    assert float((modes.weights @ modes.centers).abs().max()) < 1e-12
    second = modes.weights @ modes.centers.square().mean(1) + modes.std**2
    assert float(second) == pytest.approx(1, abs=1e-12)
    mode = modes.mode(x)
    shares = torch.bincount(mode, minlength=25) / len(x)
    assert (shares - modes.weights).abs().max() < 4 * (0.08 / len(x)) ** 0.5
    assert float((x - modes.centers[mode]).square().mean().sqrt()) == pytest.approx(modes.std, rel=0.01)
    weights = modes.weights.sort().values
    assert weights.tolist() == pytest.approx([1 / 25] * 25 if even else [k / 325 for k in range(1, 26)])


@EACH
def test_density_and_score_of_the_lattice(even: bool) -> None:
    """The density integrates to one by the trapezoidal rule, and the score is its gradient."""
    modes = Lattice(noise=0.2, even=even)
    axis = torch.linspace(-3.5, 3.5, 300, dtype=torch.float64)
    density = modes.log_density(torch.cartesian_prod(axis, axis)).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-9)
    x = modes.sample(50, torch.Generator().manual_seed(1)).requires_grad_()
    (slope,) = torch.autograd.grad(modes.log_density(x).sum(), x)
    assert torch.allclose(modes.score(x.detach()), slope, rtol=1e-9, atol=1e-9)


def test_energy_between_two_modes_of_the_lattice_is_50_above_them() -> None:
    modes = Lattice(even=True)
    between = modes.centers[[0, 1]].mean(0, keepdim=True)
    barrier = modes.log_density(modes.centers[:1]) - modes.log_density(between)
    assert float(barrier) == pytest.approx(50 - math.log(2), abs=1e-9)
