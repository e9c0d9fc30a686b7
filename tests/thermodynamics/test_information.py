"""Information against entropies that are known: Gaussians in closed form, a mixture by quadrature of its density."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion import gaussian
from diffusion.errors import InputError
from diffusion.likelihood.kl import predict
from diffusion.schedules import Cosine
from diffusion.thermodynamics.information import (
    cumulative,
    differential_entropy,
    dissipation_of_steps,
    information,
    least,
)
from tests.oracles import GaussianOracle, correlated
from tests.thermodynamics.mixtures import Marginal

SCHEDULE = Cosine(18.0, -18.0)
LOG_SNR = torch.linspace(-18, 18, 721, dtype=torch.float64)
TIMES = SCHEDULE.time(LOG_SNR)


@pytest.mark.parametrize("shape", [(1,), (2,), (5,)], ids=str)
def test_a_gaussian_closes_to_its_differential_entropy(shape: tuple[int, ...]) -> None:
    oracle = correlated(SCHEDULE, shape)
    found = differential_entropy(oracle.error(TIMES), LOG_SNR, shape[0]).item()
    assert found == pytest.approx(oracle.entropy, abs=1e-4)


def test_a_mixture_closes_to_its_differential_entropy() -> None:
    mmse = torch.tensor([Marginal(SCHEDULE, t).mmse for t in TIMES], dtype=torch.float64)
    # At log-SNR 18 the noise that is left changes the variance of the components by a millionth.
    exact = Marginal(SCHEDULE, torch.zeros((), dtype=torch.float64)).entropy
    assert differential_entropy(mmse, LOG_SNR, 1).item() == pytest.approx(exact, abs=1e-4)


def test_information_by_noise_level_is_that_of_a_gaussian() -> None:
    """I = 1/2 sum log(1 + SNR c), at every level; the error of the trapezoids falls with the square of their width."""
    oracle = correlated(SCHEDULE, (3,))
    exact = (LOG_SNR.exp()[:, None] * oracle.eigen[0]).log1p().sum(1) / 2
    errors = []
    for stride in (4, 2):
        error, log_snr = oracle.error(TIMES)[::stride], LOG_SNR[::stride]
        found = least(error, log_snr) + information(error, log_snr)
        errors.append(float((found - exact[::stride]).abs().max()))
    assert errors[1] < 1e-3 and math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_a_level_of_a_mixture_has_the_entropy_of_its_marginal() -> None:
    levels = [0, 240, 360, 480, 600]
    mmse = torch.tensor([Marginal(SCHEDULE, t).mmse for t in TIMES], dtype=torch.float64)
    known = least(mmse, LOG_SNR) + information(mmse, LOG_SNR)
    for i in levels:
        noise = math.log(2 * math.pi * math.e * SCHEDULE(TIMES[i])[1].item() ** 2) / 2
        assert known[i].item() + noise == pytest.approx(Marginal(SCHEDULE, TIMES[i]).entropy, abs=1e-4)


def test_the_dissipation_of_steps_is_the_excess_of_their_kl_over_continuous_time() -> None:
    """The KL of a step is the one that the bound sums: it is quadratic in x and x_t, so two moments integrate it."""
    oracle = GaussianOracle(SCHEDULE, torch.zeros(1, dtype=torch.float64), torch.full((1, 1), 0.4, dtype=torch.float64))
    nodes = torch.tensor([-4.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    times = SCHEDULE.time(nodes)
    exact = (nodes.exp() * 0.4).log1p() / 2
    found = dissipation_of_steps(oracle.error(times), exact, nodes)
    root = math.sqrt(2) * torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    x = math.sqrt(0.4) * root[:, :1]
    for i in range(3):
        t, s = times[i], times[i + 1]
        x_t = gaussian.marginal(SCHEDULE, x, t).sample(root[:, 1:])
        mean, interp = predict(oracle, x_t, t, None, torch.float64, 0.0)
        kl = gaussian.step_kl(SCHEDULE, x, mean, x_t, t, s, variance_interp=interp).mean()
        assert found[i].item() == pytest.approx((kl - exact[i + 1] + exact[i]).item(), rel=1e-9)
    assert bool((found > 0).all())


def test_the_dissipation_falls_as_one_over_the_steps() -> None:
    oracle = correlated(SCHEDULE)
    totals = []
    for steps in (90, 360):
        nodes = torch.linspace(-18, 18, steps + 1, dtype=torch.float64)
        exact = (nodes.exp()[:, None] * oracle.eigen[0]).log1p().sum(1) / 2
        totals.append(float(dissipation_of_steps(oracle.error(SCHEDULE.time(nodes)), exact, nodes).sum()))
    assert math.log(totals[0] / totals[1]) / math.log(4) == pytest.approx(1, abs=0.1)


def test_a_cumulative_integral_is_exact_for_lines_at_uneven_points_of_any_batch() -> None:
    at = torch.tensor([0.0, 0.5, 2.0, 2.1], dtype=torch.float64)
    found = cumulative(torch.stack([2 * at, torch.ones_like(at)]), at)
    torch.testing.assert_close(found, torch.stack([at**2, at]), rtol=1e-12, atol=1e-12)


def test_a_single_level_is_no_step() -> None:
    one = torch.zeros(1)
    with pytest.raises(InputError, match="log_snr: must be at least two"):
        dissipation_of_steps(one, one, one)
