"""Maps of times: what the trajectory's time is, and E[x|x_t] with a noise level for every pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion import gaussian, levels
from diffusion.backbones import UNetConfig
from diffusion.denoiser import PARAMETERIZATIONS, AnyDenoiser, Denoiser, Parameterization, Rescaled
from diffusion.errors import InputError
from diffusion.levels import UNSEEN
from diffusion.schedules import EDM, Cosine, Flow, Schedule
from tests.oracles import GaussianOracle, MixtureOracle, OracleNetwork, correlated

SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM(), Flow()], ids=["vp", "ve", "flow"])
SHAPE = (1, 2, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(count: int = 4) -> Tensor:
    """Maps of times (B, 1, 2, 3) from the clean to the noisy end."""
    return torch.rand(count, 1, *SHAPE[1:], generator=generator(1), dtype=torch.float64)


def mixture(schedule: Schedule) -> MixtureOracle:
    means = torch.randn(3, *SHAPE, generator=generator(2), dtype=torch.float64)
    return MixtureOracle(schedule, means, 0.3, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


def test_the_time_of_the_trajectory_is_the_latest_of_the_pixels_that_were_seen() -> None:
    x = torch.zeros(4, *SHAPE)
    t = torch.full((4, 1, 2, 3), 0.4)
    t[0, 0, 0] = 0.0
    t[1, 0, 0] = UNSEEN
    t[2] = UNSEEN
    t[3, 0, 0, 0] = 1.0
    assert levels.of_trajectory(t, x).tolist() == pytest.approx([0.4, 0.4, 1.0, 1.0])
    assert levels.of_trajectory(torch.tensor([0.1, 0.2]), x).tolist() == pytest.approx([0.1, 0.2])


def test_a_map_is_told_from_the_times_of_examples_by_its_rank() -> None:
    assert levels.is_map(torch.zeros(1, 1, 2, 3), torch.zeros(2, *SHAPE))
    assert levels.is_map(torch.zeros(2, 5), torch.zeros(2, 5))
    assert not levels.is_map(torch.zeros(2), torch.zeros(2, 5)) and not levels.is_map(torch.zeros(()), torch.zeros(2))


def test_relative_levels_are_shares_of_the_time_of_the_trajectory() -> None:
    shares = torch.tensor([[[[0.0, 0.5, 1.0]]], [[[1.0, UNSEEN, 0.25]]]])
    times = levels.relative(shares, torch.tensor([0.8, 0.2], dtype=torch.float64))
    expected = torch.tensor([[[[0.0, 0.4, 0.8]]], [[[0.2, UNSEEN, 0.05]]]], dtype=torch.float64)
    assert torch.allclose(times, expected, rtol=1e-12)


@SCHEDULES
def test_a_uniform_map_gives_the_estimate_of_one_time(schedule: Schedule) -> None:
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    x_t = torch.randn(2, *SHAPE, generator=generator(), dtype=torch.float64)
    for oracle in (correlated(schedule, SHAPE), mixture(schedule)):
        whole, by_pixel = oracle(x_t, t).mean, oracle(x_t, t.reshape(2, 1, 1, 1).expand(2, 1, 2, 3)).mean
        assert (whole - by_pixel).abs().max() < 1e-10


@SCHEDULES
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_the_estimate_is_orthogonal_to_its_error(schedule: Schedule, kind: str) -> None:
    """E[(x - x̂) f(x_t)] = 0 for every f, by which a conditional expectation is defined; measured in standard errors."""
    oracle: AnyDenoiser = correlated(schedule, SHAPE) if kind == "gaussian" else mixture(schedule)
    assert isinstance(oracle, GaussianOracle | MixtureOracle)
    count, t = 20_000, maps(1).expand(20_000, 1, 2, 3)
    x = oracle.sample(count, generator(3))
    x_t = gaussian.marginal(schedule, x, t).sample(torch.randn(x.shape, generator=generator(4), dtype=torch.float64))
    error = (x - oracle(x_t, t).mean).flatten(1)
    for f in (torch.ones_like(error), x_t.flatten(1).tanh(), x_t.flatten(1).flip(1).sin()):
        product = error * f
        assert (product.mean(0) / (product.std(0) / count**0.5)).abs().max() < 4.5


@SCHEDULES
@pytest.mark.parametrize("parameterization", [cls() for cls in PARAMETERIZATIONS.values()], ids=list(PARAMETERIZATIONS))
def test_a_denoiser_with_a_map_equals_its_oracle(schedule: Schedule, parameterization: Parameterization) -> None:
    """The coefficients of a parameterization are those of each pixel."""
    oracle, t = correlated(schedule, SHAPE), maps()
    x_t = torch.randn(4, *SHAPE, generator=generator(5), dtype=torch.float64)
    x_t = x_t * (schedule(t)[0].square() + schedule(t)[1].square()).sqrt()
    denoiser = Denoiser(OracleNetwork(oracle, parameterization), schedule, parameterization)
    scale = (schedule(t)[1] / schedule(t)[0]).clamp_min(1)
    assert ((denoiser(x_t, t).mean - oracle(x_t, t).mean) / scale).abs().max() < 1e-10


@SCHEDULES
def test_units_do_not_change_an_estimate_by_pixel(schedule: Schedule) -> None:
    oracle, t = correlated(schedule, SHAPE), maps()
    x_t = torch.randn(4, *SHAPE, generator=generator(6), dtype=torch.float64)
    alpha, sigma = schedule(t)
    scaled = x_t / (alpha.square() + sigma.square()).sqrt()
    assert (Rescaled(oracle)(scaled, t).mean - oracle(x_t, t).mean).abs().max() < 1e-10


@SCHEDULES
def test_what_nobody_saw_hardly_matters(schedule: Schedule) -> None:
    """The state of an unseen pixel is that of the noisy end, whose signal is below e^(λ/2) of its noise."""
    oracle, t = correlated(schedule, SHAPE), torch.full((1, 1, 2, 3), 0.1, dtype=torch.float64)
    t[..., 0] = UNSEEN
    x_t = torch.randn(2, *SHAPE, generator=generator(7), dtype=torch.float64)
    x_t[1, ..., 1:] = x_t[0, ..., 1:]
    x_t[..., 0] *= schedule(torch.ones((), dtype=torch.float64))[1]
    found = oracle(x_t, t.expand(2, 1, 2, 3)).mean
    assert 0 < (found[0] - found[1]).abs().max() < 5 * torch.tensor(schedule.log_snr_min / 2).exp()


def test_a_network_is_shown_nothing_where_nobody_saw_anything() -> None:
    """Its estimate of the other pixels does not depend on what is there, not even by rounding."""
    t, x_t = maps(), torch.randn(4, *SHAPE, generator=generator())
    assert levels.shown(x_t, t) is x_t and levels.shown(x_t, t[:, 0, 0, 0]) is x_t
    t[1:, :, 0, 1], unseen = UNSEEN, torch.zeros(4, *SHAPE, dtype=torch.bool)
    unseen[1:, :, 0, 1] = True
    assert torch.equal(levels.shown(x_t, t), x_t * ~unseen)
    torch.manual_seed(0)
    network = UNetConfig(channels=(4, 8), attention=()).build(1, 1, mapped=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    denoiser = Denoiser(network, EDM(), PARAMETERIZATIONS["edm"]())
    found, other = (denoiser(x, t).mean for x in (x_t, torch.where(unseen, 100.0, x_t)))
    assert torch.equal(found[~unseen], other[~unseen]) and not torch.equal(found[0], found[1])
    # One map for all examples, and points, whose coordinates are pixels of their own.
    assert torch.equal(levels.shown(x_t, t[1:2]), x_t * ~unseen[1:2])
    points = torch.randn(3, 2, generator=generator())
    assert torch.equal(levels.shown(points, torch.tensor([[0.5, UNSEEN]])), points * torch.tensor([1.0, 0.0]))


def test_a_network_without_a_map_refuses_one() -> None:
    network = UNetConfig(channels=(4, 8), blocks=1, attention=()).build(1, 1)
    denoiser = Denoiser(network, EDM(), PARAMETERIZATIONS["edm"]())
    with pytest.raises(InputError, match=r"t: must be one time for all pixels, as this network takes no map"):
        denoiser(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
