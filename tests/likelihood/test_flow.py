"""The flow's log-likelihood against densities known in closed form, in float64."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.errors import InputError
from diffusion.guidance import ClassifierFree
from diffusion.likelihood.bound import Quantization
from diffusion.likelihood.flow import FlowLikelihood, Hutchinson, dequantize, diffuse, log_likelihood, transport
from diffusion.likelihood.ode import Adaptive, Fixed
from diffusion.schedules import EDM, Cosine, Flow, Schedule, VPLinear
from tests.oracles import GaussianOracle, MixtureOracle, correlated

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), VPLinear()], ids=["cosine", "edm", "linear"])
TIGHT = Adaptive(1e-6)


def mixture(schedule: Schedule) -> MixtureOracle:
    """Three modes in the plane, of zero mean and about unit variance."""
    means = torch.tensor([[-1.2, 0.3], [0.9, 0.8], [0.4, -1.1]], dtype=torch.float64)
    weights = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    return MixtureOracle(schedule, means - weights @ means, 0.06, weights)


@SCHEDULES
def test_mixtures_in_the_plane_within_a_thousandth_of_a_nat(schedule: Schedule) -> None:
    oracle = mixture(schedule)
    x = oracle.sample(12, torch.Generator().manual_seed(0))
    result = log_likelihood(oracle, x, solver=TIGHT)
    assert result.exact and result.nfe > 20
    assert (result.log_likelihood + oracle.nll(x)).abs().max().item() < 1e-3


def test_gaussian_images_of_64_numbers_within_a_thousandth_of_a_nat() -> None:
    oracle = replace(correlated(Cosine(), (1, 8, 8)), mean=torch.zeros(1, 8, 8, dtype=torch.float64))
    x = oracle.sample(3, torch.Generator().manual_seed(0))
    result = log_likelihood(oracle, x, solver=TIGHT)
    assert (result.log_likelihood + oracle.nll(x)).abs().max().item() < 1e-3
    assert float(result.variance.max()) == 0


def test_a_clean_end_of_much_noise_changes_the_density_by_its_units() -> None:
    """In units where α² + σ² = 1, x is α_0 = 1/√(1 + 0.5²) times smaller: d log α_0 is -0.33 nats for three numbers.

    The density is that of the data with the noise of the clean end added, N(0, Σ + 0.5² I).
    """
    # At sigma_max of 1e5 the noise end is N(0, I) to 1e-9; at the default of 160 the difference is 5e-5 nats.
    schedule = EDM(sigma_min=0.5, sigma_max=1e5)
    oracle = replace(correlated(schedule, (3,)), mean=torch.zeros(3, dtype=torch.float64))
    noisy = replace(oracle, covariance=oracle.covariance + 0.25 * torch.eye(3, dtype=torch.float64))
    x = noisy.sample(8, torch.Generator().manual_seed(0))
    result = log_likelihood(oracle, x, solver=Adaptive(1e-8))
    assert result.scale == pytest.approx(-3 / 2 * math.log(1.25), rel=1e-12)
    error = (result.log_likelihood + noisy.nll(x)).abs().max().item()
    assert error < 5e-8, "nats: 1.4e-8 measured at this tolerance, 1.2e-10 at a tolerance of 1e-10"


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("rk4", 4)])
def test_fixed_steps_converge_with_their_order(method: str, order: int) -> None:
    # Sharp modes would need more steps before the order shows.
    oracle = correlated(Cosine(6.0, -6.0), low=0.3)
    x = oracle.sample(4, torch.Generator().manual_seed(0))
    limit = log_likelihood(oracle, x, solver=Adaptive(1e-10)).log_likelihood
    errors = []
    for steps in (24, 48):
        result = log_likelihood(oracle, x, solver=Fixed(steps, method))
        errors.append((result.log_likelihood - limit).abs().mean().item())
        assert result.nfe == steps * (2 if method == "heun" else 4)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4)


def test_all_sign_vectors_together_are_the_exact_trace() -> None:
    oracle = mixture(Cosine())
    x = oracle.sample(5, torch.Generator().manual_seed(0))
    signs = iter(torch.tensor(list(product([-1.0, 1.0], repeat=2)), dtype=torch.float64))
    probes = Hutchinson(4, "rademacher")
    result = log_likelihood(oracle, x, probes=probes, solver=TIGHT, randn=lambda like: next(signs).expand_as(like))
    exact = log_likelihood(oracle, x, solver=TIGHT)
    assert torch.allclose(result.log_likelihood, exact.log_likelihood, atol=1e-4)
    assert result.trace.shape == (5, 4) and not result.exact


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
def test_probes_are_unbiased_and_know_their_variance(distribution: str) -> None:
    oracle = correlated(Cosine(), (1, 2, 2))
    x = oracle.sample(1, torch.Generator().manual_seed(0)).expand(400, 1, 2, 2)
    generator = torch.Generator().manual_seed(1)

    def randn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    probes = Hutchinson(4, distribution)  # type: ignore[arg-type]
    result = log_likelihood(oracle, x, probes=probes, solver=Fixed(60), randn=randn)
    exact = log_likelihood(oracle, x[:1], solver=Fixed(60)).log_likelihood.item()
    values = result.log_likelihood
    assert values.mean().item() == pytest.approx(exact, abs=3 * float(values.std()) / 20)
    assert result.variance.mean().item() == pytest.approx(values.var().item(), rel=0.25)


def test_signs_have_a_smaller_variance_than_normal_probes() -> None:
    """With the symmetric part S of J, vᵀ J v has the variance 2‖S‖² - 2 Σ S_ii² for signs, 2‖S‖² for normal probes."""
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    symmetric = (jacobian + jacobian.T) / 2
    normal = 2 * symmetric.square().sum().item()
    variances = {"rademacher": normal - 2 * symmetric.diagonal().square().sum().item(), "gaussian": normal}
    measured = {}
    for distribution in variances:
        (probes,) = Hutchinson(1, distribution)(  # type: ignore[arg-type]
            torch.zeros(40_000, 6, dtype=torch.float64),
            lambda like: torch.randn(like.shape, generator=generator, dtype=torch.float64),
        )
        measured[distribution] = torch.einsum("ni,ij,nj->n", probes, jacobian, probes).var().item()
    assert measured == pytest.approx(variances, rel=0.05)
    assert measured["rademacher"] < 0.9 * measured["gaussian"]


def test_signs_are_exact_where_coordinates_are_independent() -> None:
    oracle = GaussianOracle(Cosine(), torch.zeros(3).double(), torch.diag(torch.tensor([0.2, 0.7, 1.0]).double()))
    x = oracle.sample(4, torch.Generator().manual_seed(0))
    result = log_likelihood(oracle, x, probes=Hutchinson(2), solver=TIGHT)
    assert float(result.variance.max()) < 1e-10
    assert torch.allclose(result.log_likelihood, -oracle.nll(x), atol=1e-3)


def test_a_single_probe_has_no_known_variance() -> None:
    one = FlowLikelihood(torch.zeros(2), torch.ones(2, 1), 0.5, False, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert one.log_likelihood.tolist() == [1.5, 1.5] and bool(one.variance.isnan().all())


def test_a_label_chooses_its_component_and_guidance_of_1_changes_nothing() -> None:
    oracle = mixture(Cosine())
    label = torch.tensor([0, 1, 2, -1])
    x = oracle.means[label] + 0.2 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = log_likelihood(oracle, x, label=label, solver=TIGHT).log_likelihood
    for i in range(3):
        one = MixtureOracle(Cosine(), oracle.means[i : i + 1], oracle.variance, torch.ones(1, dtype=torch.float64))
        # A component has a mean, which the prior at the noise end leaves out: 0.001 of it for this schedule.
        assert plain[i].item() == pytest.approx(-one.nll(x)[i].item(), abs=0.01)
    assert plain[3].item() == pytest.approx(-oracle.nll(x)[3].item(), abs=2e-3)
    guided = log_likelihood(ClassifierFree(oracle, 1.0), x, label=label, solver=TIGHT).log_likelihood
    assert torch.equal(guided, plain)
    other = log_likelihood(ClassifierFree(oracle, 1.5), x, label=label, solver=TIGHT).log_likelihood
    assert bool(other.isfinite().all()) and not torch.allclose(other[:3], plain[:3], atol=0.01)


def test_the_density_is_that_of_the_clean_end_of_the_schedule() -> None:
    """A schedule that ends at noise of 0.1 has the density of data with that noise added."""
    schedule = Flow(sigma_min=0.1 / 1.1, alpha_min=0.001)
    oracle = mixture(schedule)
    noisy = MixtureOracle(schedule, oracle.means, oracle.variance + 0.01, oracle.weights)
    x = oracle.sample(6, torch.Generator().manual_seed(0))
    assert torch.allclose(log_likelihood(oracle, x, solver=TIGHT).log_likelihood, -noisy.nll(x), atol=1e-3)


def test_the_denoiser_runs_in_the_precision_of_x() -> None:
    oracle, seen = mixture(Cosine()), set()

    class Watched:
        schedule = oracle.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            seen.add(x_t.dtype)
            return oracle(x_t, t)

    x = oracle.sample(3, torch.Generator().manual_seed(0))
    single = log_likelihood(Watched(), x.float(), solver=Fixed(40)).log_likelihood
    assert seen == {torch.float32} and single.dtype == torch.float64
    assert torch.allclose(single, log_likelihood(oracle, x, solver=Fixed(40)).log_likelihood, atol=1e-3)


@pytest.mark.parametrize("spacing", [0.05, 0.8])
def test_a_dequantized_density_bounds_the_probability_of_a_gray_level(spacing: float) -> None:
    """A gray level of one coordinate of unit variance has the probability of an interval of a normal."""
    levels = Quantization(5, -2 * spacing, 2 * spacing)
    one = torch.ones(1, 1, dtype=torch.float64)
    oracle = GaussianOracle(Cosine(), torch.zeros(1, dtype=torch.float64), one)
    x = (levels.low + levels.spacing * torch.arange(5, dtype=torch.float64)).repeat_interleave(200)[:, None]
    places = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    u = dequantize(x, levels, lambda like: torch.special.ndtri(places).repeat(5)[:, None])
    assert torch.allclose((u - x).reshape(5, 200)[2], spacing * (places - 0.5), atol=1e-12)
    density = log_likelihood(oracle, u, solver=TIGHT).log_likelihood.reshape(5, 200).mean(1)
    below = density + math.log(levels.spacing)
    distribution = torch.distributions.Normal(0.0, 1.0)
    exact = (distribution.cdf(x + spacing / 2) - distribution.cdf(x - spacing / 2)).reshape(5, 200)[:, 0].log()
    gap = exact - below
    assert bool((gap > -1e-4).all()) and float(gap.max()) < spacing**2 / 4 + 1e-4
    assert spacing < 0.5 or float(gap.max()) > 1e-3


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_noise_of_the_clean_end_bounds_the_probability_of_a_gray_level(sigma: float) -> None:
    """With atoms on three of four gray levels and z ~ p, the bound is E log p(z)/Σ q(z|·), summed over all levels."""
    levels, schedule = Quantization(4, -1.5, 1.5), EDM(sigma, 80.0)
    weights = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)
    atoms = torch.tensor([-1.5, 0.5, 1.5], dtype=torch.float64)
    oracle = MixtureOracle(schedule, atoms[:, None], 0.0, weights)
    nodes = torch.special.ndtri((torch.arange(100, dtype=torch.float64) + 0.5) / 100).repeat(3)[:, None]
    x = atoms.repeat_interleave(100)[:, None]
    z, nats = diffuse(x, levels, schedule, lambda like: nodes)
    assert torch.allclose(z - x, sigma * nodes, atol=1e-12)
    found = log_likelihood(oracle, z, solver=TIGHT).log_likelihood + nats
    grid = torch.linspace(-1.5, 1.5, 4, dtype=torch.float64)
    distribution = [torch.distributions.Normal(at, sigma).log_prob(z).exp() for at in (atoms, grid)]
    expected = ((distribution[0] * weights).sum(1) / distribution[1].sum(1)).log()
    assert torch.allclose(found, expected, atol=2e-3)
    gap = weights.log() - found.reshape(3, 100).mean(1)
    if sigma < 0.1:
        assert float(gap.abs().max()) < 2e-3
    else:
        assert float((weights * gap).sum()) > 0.05


def test_what_cannot_be_measured_is_named() -> None:
    x = torch.zeros(2, 2, dtype=torch.float64)

    class Constant:
        schedule = Cosine()

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(torch.zeros_like(x_t))

    with pytest.raises(InputError, match="denoiser: has no gradient"):
        log_likelihood(Constant(), x)
    with pytest.raises(InputError, match=re.escape("x: must be finite, got nan in example 0")):
        log_likelihood(mixture(Cosine()), x * math.nan)
    with pytest.raises(InputError, match=re.escape("probes.count: must be at least 1, got 0")):
        Hutchinson(0)
    with pytest.raises(
        InputError, match=re.escape("probes.distribution: must be rademacher or gaussian, got 'uniform'")
    ):
        Hutchinson(1, "uniform")  # type: ignore[arg-type]

    class Broken:
        schedule = Cosine()

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            return Prediction(x_t * math.nan)

    for solver in (Adaptive(), Fixed(4)):
        with pytest.raises(FloatingPointError):
            log_likelihood(Broken(), x, solver=solver)


@pytest.mark.parametrize("schedule", [EDM(), Cosine()], ids=["edm", "cosine"])
def test_the_transport_of_gaussian_data_is_their_flow_in_both_directions(schedule: Schedule) -> None:
    oracle = correlated(schedule)
    x = oracle.sample(4, torch.Generator().manual_seed(0))
    clean, noisy = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    (alpha, _), (last_alpha, last_sigma) = schedule(clean), schedule(noisy)
    expected = oracle.flow(alpha * x, clean, noisy) / (last_alpha**2 + last_sigma**2).sqrt()
    z = transport(oracle, x, to_noise=True, solver=Adaptive(1e-9))
    assert torch.allclose(z, expected, atol=1e-7)
    # At the clean end x is taken for x_0/α_0, noise of the schedule included.
    assert torch.allclose(transport(oracle, z, to_noise=False, solver=Adaptive(1e-9)), x, atol=1e-6)
