"""What networks are told: the channels by hand, and the algebra of restoring on exact conditional denoisers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion import grids
from diffusion.backbones import MLPConfig
from diffusion.conditioning import ROUNDING, Condition
from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.errors import InputError
from diffusion.guidance import ClassifierFree, informed
from diffusion.noise_levels import LogNormal
from diffusion.objectives import Batch, EDMError, Objective
from diffusion.operators import JPEG, Downsample, GaussianBlur, Grayscale, Mask, Standardized, parse
from diffusion.restoration import Problem, restore
from diffusion.restoration.methods import Guided, Learned
from diffusion.samplers import DDIM, Heun, Sampler, SDESolver, prior, sample
from diffusion.schedules import EDM, Cosine, Schedule
from tests.oracles import GaussianOracle, affine, correlated

MEAN, STD = 0.4, 0.25


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(count: int, condition: Condition, seed: int = 0) -> Tensor:
    return torch.rand(count, condition.draws, generator=generator(seed), dtype=torch.float64)


def images(count: int = 6, shape: tuple[int, ...] = (3, 16, 16), seed: int = 1) -> Tensor:
    return torch.randn(count, *shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("text", ["gray", "downsample:factor=4"])
def test_the_channels_are_the_pseudo_inverse_of_what_was_seen(text: str) -> None:
    """A⁺ (A x + noise) in the units of the model, and where the example is told nothing zeros."""
    condition, operator, x = Condition(text, noise=0.1, dropout=0.5), parse(text), images(40)
    assert isinstance(operator, (Grayscale, Downsample))
    u, z = uniform(40, condition), torch.randn(40, condition.values((3, 16, 16)), generator=generator(2)).double()
    assert z.shape[1] == operator(x)[0].numel()
    found = condition(x, u, z, MEAN, STD)
    told = u[:, 0] >= 0.5
    assert 10 < told.sum() < 30 and found.shape == (40, condition.channels(3), 16, 16) == (40, 4, 16, 16)
    expected = operator.pinv(operator(x) + 0.1 / STD * z.reshape(operator(x).shape), x)
    assert (found[told, :3] - expected[told]).abs().max() < 1e-12
    assert torch.equal(found[:, 3], told.double()[:, None, None].expand(40, 16, 16)) and not found[~told].any()


def test_options_and_noise_are_told_in_maps_of_their_own() -> None:
    condition = Condition("blur:sigma=0.5..1.5+jpeg:quality=20..90", noise=(0.02, 0.1), dropout=1e-9)
    x, u = images(), uniform(6, condition)
    z = torch.randn(6, condition.values((3, 16, 16)), generator=generator(2), dtype=torch.float64)
    found = condition(x, u, z, MEAN, STD)
    assert condition.draws == 4 and found.shape == (6, condition.channels(3), 16, 16) == (6, 7, 16, 16)
    assert found[:, 3:].flatten(2).std(2).max() == 0
    sigma, quality, noise, told = found[:, 3:, 0, 0].unbind(1)
    assert bool((told == 1).all()) and float(found[:, 3:6].abs().max()) <= 1 and len({*sigma.tolist()}) > 3
    for i in range(6):
        # Each example by hand, from what the network is told of it.
        blur, jpeg = GaussianBlur(0.5 + float(sigma[i] + 1) / 2), JPEG(round(20 + 70 * float(quality[i] + 1) / 2))
        level = 0.02 + 0.08 * float(noise[i] + 1) / 2
        units = MEAN + STD * x[i : i + 1]
        y = jpeg(blur(units)) + level * z[i].reshape(1, 3, 16, 16)
        middle = jpeg(blur(torch.full_like(units, MEAN)))
        assert (found[i : i + 1, :3] - (y - middle) / STD).abs().max() < 1e-10


def test_options_lie_evenly_over_their_ranges() -> None:
    condition = Condition("jpeg:quality=20..90", dropout=0.25)
    u = uniform(4000, condition)
    found = condition(torch.zeros(4000, 1, 1, 1), u, None, MEAN, STD)[:, :, 0, 0]
    told = found[:, 2] == 1
    assert float(told.double().mean()) == pytest.approx(0.75, abs=0.03)
    places = found[told, 1].sort().values
    assert len(places.unique()) == 33 and float(places[0]) == -1 and float(places[-1]) == 1
    assert float((places - torch.linspace(-1, 1, len(places))).abs().max()) < 0.1


@pytest.mark.parametrize("text", ["downsample:factor=2..4", "blur:sigma=0.5..1.5+jpeg:quality=20..90", "gray"])
def test_an_example_is_told_the_same_in_any_company(text: str) -> None:
    """To the last bit, whatever batch it is part of."""
    condition, x = Condition(text, noise=(0.0, 0.1)), images(8).float()
    u, z = uniform(8, condition), torch.randn(8, condition.values((3, 16, 16)), generator=generator(3))
    together = condition(x, u, z, MEAN, STD)
    for size in (1, 2, 4):
        some = zip(x.split(size), u.split(size), z.split(size), strict=True)
        assert torch.equal(torch.cat([condition(*each, MEAN, STD) for each in some]), together)


@pytest.mark.parametrize("text", ["gray", "downsample:factor=4", "blur:sigma=0.5..1.5", "jpeg:quality=30"])
def test_a_problem_is_told_as_examples_are(text: str) -> None:
    """What is made of an observation to restore is what was made of it in training."""
    condition, x = Condition(text, noise=(0.02, 0.1), dropout=1e-9), images(1)
    u, z = uniform(1, condition), torch.randn(1, condition.values((3, 16, 16)), generator=generator(2)).double()
    expected = condition(x, u, z, MEAN, STD)
    places, noise = expected[0, 3:-2, 0, 0], 0.02 + 0.08 * float(expected[0, -2, 0, 0] + 1) / 2
    operator = condition.family.at(((places + 1) / 2).tolist())[0]
    made = operator(MEAN + STD * x)
    y = (made + noise * z[:, : made[0].numel()].reshape(made.shape)).float()
    problem = Problem(operator, y, noise, (3, 16, 16)).in_model_units(MEAN, STD, torch.zeros(1, 3, 16, 16))
    assert isinstance(problem.operator, Standardized) == (text.startswith("jpeg"))
    assert (condition.of(problem, STD) - expected).abs().max() < 1e-5


def problem_of(operator: str, noise: float) -> Problem:
    made = parse(operator)(torch.zeros(1, 3, 16, 16))
    return Problem(parse(operator), made, noise / STD, (3, 16, 16))


@pytest.mark.parametrize(
    ("operator", "noise", "rule"),
    [
        (
            "blur:sigma=2",
            0.05,
            "operator: must be downsample:factor=2..4, which this network learned, got GaussianBlur",
        ),
        ("downsample:factor=8", 0.05, "operator: factor: must be in [2, 4], which this network learned, got 8.0"),
        ("downsample:factor=2", 0.2, "noise: must be in [0.02, 0.1], which this network learned, got 0.2"),
        ("downsample:factor=2", 0.0, "noise: must be in [0.02, 0.1], which this network learned, got 0"),
    ],
)
def test_what_was_not_learned_is_refused(operator: str, noise: float, rule: str) -> None:
    with pytest.raises(InputError, match=re.escape(rule)):
        Condition("downsample:factor=2..4", noise=(0.02, 0.1)).of(problem_of(operator, noise), STD)


def test_the_rounding_of_files_is_no_other_noise() -> None:
    exact = Condition("gray")
    assert torch.equal(exact.of(problem_of("gray", 0.0011), STD), exact.of(problem_of("gray", 0.0), STD))
    with pytest.raises(InputError, match=r"noise: must be 0, which this network learned, got 0.0025"):
        exact.of(problem_of("gray", ROUNDING + 0.0005), STD)


def test_pairs_are_told_as_they_are() -> None:
    condition, observed = Condition(dropout=0.5), images(40, (1, 4, 4))
    u = uniform(40, condition)
    found = condition.paired(observed, u)
    told = u[:, 0] >= 0.5
    assert found.shape == (40, condition.channels(1), 4, 4) == (40, 2, 4, 4) and 10 < told.sum() < 30
    assert (
        torch.equal(found[told], torch.cat([observed, torch.ones_like(observed)], 1)[told]) and not found[~told].any()
    )


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"dropout": 0.0}, "dropout: must be between 0 and 1, got 0.0"),
        ({"dropout": 1.0}, "dropout: must be between 0 and 1, got 1.0"),
        ({"noise": 0.1}, "noise: must be 0 without condition.operator, got 0.1"),
        ({"operator": "gray", "noise": -0.1}, "noise: must be a number from 0, or an increasing pair, got -0.1"),
        ({"operator": "gray", "noise": (0.1, 0.1)}, "noise: must be a number from 0, or an increasing pair"),
        ({"operator": "colorize"}, "operator: must name what damaged the image, as in gray"),
        ({"operator": "blur:sigma=-1..2"}, "operator: blur.sigma: must be a positive number, got -1.0"),
        ({"operator": "blur:sigma=3..1"}, "operator: must be a range of numbers that increases"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(rule)}"):
        Condition(**options)


@dataclass(frozen=True)
class ToldOracle:
    """The network that knows the exact posterior of Gaussian data given y = A x + N(0, noise²), for the y that the
    channels show; without channels, or with zeros, that of the data.
    """

    oracle: GaussianOracle
    condition: Condition
    noise: float

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, *beside: Tensor | None) -> Tensor:
        t = self.oracle.schedule.time(log_snr)
        c_in, c_skip, c_out = (c.reshape(-1, 1, 1, 1) for c in EDMPrecond()(*self.oracle.schedule(t)))
        oracle, told = self.oracle, beside[1] if beside else None
        if told is not None and bool(told[0, -1].all()):
            (operator,) = self.condition.family.parts
            dim = self.oracle.mean.numel()
            matrix = operator(torch.eye(dim, dtype=torch.float64).reshape(dim, *self.oracle.mean.shape)).flatten(1).mT
            y = operator(told[:1, : len(self.oracle.mean)].double()).flatten()  # A A⁺ y = y.
            oracle = self.oracle.posterior(matrix, y, self.noise)
        x_t = x / c_in
        return (oracle(x_t, t).mean - c_skip * x_t) / c_out


@dataclass(frozen=True)
class Case:
    """A network that was told, the posterior, and the problem."""

    oracle: GaussianOracle
    posterior: GaussianOracle
    denoiser: Denoiser
    condition: Condition
    problem: Problem

    @classmethod
    def of(cls, text: str, noise: float, schedule: Schedule) -> Case:
        shape = (3, 2, 2)
        oracle, operator, condition = correlated(schedule, shape), parse(text), Condition(text, noise=noise)
        x = oracle.sample(1, generator(1))
        y = operator(x)
        y = y + noise * torch.randn(y.shape, generator=generator(2), dtype=torch.float64)
        matrix = operator(torch.eye(12, dtype=torch.float64).reshape(12, *shape)).flatten(1).mT
        posterior = oracle.posterior(matrix, y.flatten(), noise)
        network = ToldOracle(oracle, condition, noise)
        denoiser = Denoiser(network, schedule, EDMPrecond())  # type: ignore[arg-type]
        return cls(oracle, posterior, denoiser, condition, Problem(operator, y, noise, shape))

    @property
    def told(self) -> Denoiser:
        found = informed(self.denoiser, self.condition.of(self.problem, 1.0))
        assert isinstance(found, Denoiser)
        return found


CASES = pytest.mark.parametrize("text", ["gray", "downsample:factor=2"])
SCHEDULES = pytest.mark.parametrize("schedule", [Cosine(), EDM()], ids=["vp", "ve"])


@CASES
@SCHEDULES
def test_a_told_denoiser_is_the_exact_posterior_mean(text: str, schedule: Schedule) -> None:
    case, x_t = Case.of(text, 0.1, schedule), images(3, (3, 2, 2), seed=4)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert (case.told(x_t, t).mean - case.posterior(x_t, t).mean).abs().max() < 1e-10
    assert (case.denoiser(x_t, t).mean - case.oracle(x_t, t).mean).abs().max() < 1e-10
    assert (case.told(x_t, t).mean - case.oracle(x_t, t).mean).abs().max() > 0.01


@CASES
@pytest.mark.parametrize("sampler", [SDESolver(), Heun()], ids=["sde", "heun"])
def test_sampling_it_has_the_exact_moments_of_the_posterior(text: str, sampler: Sampler) -> None:
    """Restoring is plain sampling: mean and covariance to the error of the sampler, at its order."""
    case = Case.of(text, 0.1, Cosine())
    told, dim = case.told, 12

    def error(steps: int) -> float:
        times = grids.UniformLogSNR()(Cosine(), steps)

        def run(start: Tensor, randn: Any) -> Tensor:  # noqa: ANN401
            return sample(told, sampler, prior(told, start, times[0]), times, randn=randn)

        zero, one = torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
        mean, covariance = affine(run, (3, 2, 2)).moments(zero, one)
        exact = case.posterior.moments(torch.zeros((), dtype=torch.float64))
        return max(float((mean - exact[0]).abs().max()), float((covariance - exact[1]).abs().max()))

    coarse, fine = error(20), error(40)
    assert fine < 0.03 and coarse / fine > 2.7


def test_the_method_samples_a_denoiser_that_was_told() -> None:
    case, count = Case.of("gray", 0.1, Cosine()), 3000
    times = grids.UniformLogSNR()(Cosine(), 40)
    noise = torch.randn(count, 3, 2, 2, generator=generator(5), dtype=torch.float64)
    drawn = restore(case.told, case.problem, noise, times, method=Learned(told=True)).x
    exact = case.posterior.covariance.diagonal().reshape(3, 2, 2)
    assert ((drawn.mean(0) - case.posterior.mean) / (exact / count).sqrt()).abs().max() < 5
    assert (drawn.var(0) / exact - 1).abs().max() < 0.15
    one = restore(case.told, case.problem, noise[:1], times, method=Learned(DDIM(), told=True)).x
    assert one.shape == (1, 3, 2, 2)


def test_a_network_learns_the_posterior_of_the_operator() -> None:
    """Its error comes near the least one that y and x_t leave, far below the least without y."""
    torch.manual_seed(0)
    oracle, condition, count = correlated(EDM(), (3,), low=0.05, high=3.0), Condition("gray", 0.1, 0.2), 256
    network = MLPConfig(width=64, blocks=2, octaves=0).build(3, 3, condition_channels=condition.channels(3))
    denoiser, objective = Denoiser(network, EDM(), EDMPrecond()), Objective(LogNormal(), EDMError())
    optimizer, source = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=0.0), generator()

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        x = oracle.sample(n, source).float()
        u = torch.rand(n, 1, generator=source, dtype=torch.float64)
        return x, condition(x, u, torch.randn(n, 1, generator=source), 0.0, 1.0)

    for step in range(160):
        optimizer.param_groups[0]["lr"] = 0.03 * min(1.0, step / 20) * (1 - step / 160)
        x, channels = drawn(count)
        u, noise = torch.rand(count, generator=source, dtype=torch.float64), torch.randn(x.shape, generator=source)
        objective.loss(replace(denoiser, condition=channels), Batch(x, u, noise)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        network.project_()
    x, channels = drawn(4000)
    told, t = channels[:, -1] == 1, EDM().time(torch.zeros((), dtype=torch.float64))
    with torch.no_grad():
        x_t = x + torch.randn(x.shape, generator=source)
        error = (replace(denoiser, condition=channels)(x_t, t).mean - x).square().flatten(1).sum(1)
    posterior = oracle.posterior(
        torch.tensor([[0.299, 0.587, 0.114]], dtype=torch.float64), torch.zeros(1).double(), 0.1
    )
    least, without = float(posterior.error(t)), float(oracle.error(t))
    assert without / least > 2.5
    assert 0.95 < float(error[told].mean()) / least < 1.12 and 0.9 < float(error[~told].mean()) / without < 1.12


def test_guidance_and_its_doubled_batch_are_told_too() -> None:
    case, x_t = Case.of("gray", 0.1, Cosine()), images(2, (3, 2, 2))
    channels, t = case.condition.of(case.problem, 1.0), torch.tensor(0.5, dtype=torch.float64)
    label = torch.zeros(2, dtype=torch.int64)
    guided = informed(ClassifierFree(case.denoiser, 3.0), channels)
    assert (guided(x_t, t, label).mean - case.posterior(x_t, t).mean).abs().max() < 1e-10
    with pytest.raises(InputError, match="denoiser: must be that of a network, got GaussianOracle"):
        informed(case.oracle, channels)


def test_masks_join_what_is_told() -> None:
    """A mask of a network that was told something else: E[x | x_t, y, mask] by MMPS of the told denoiser."""
    case = Case.of("gray", 0.1, Cosine())
    known = torch.zeros(3, 2, 2, dtype=torch.bool)
    known[:, 0, 0] = True
    x, noise = case.oracle.sample(1, generator(1)), torch.randn(2000, 3, 2, 2, generator=generator(7)).double()
    problem = replace(case.problem, operator=Mask(known), y=torch.where(known, x, 0.0), noise=0.1)

    drawn = restore(case.told, problem, noise, grids.UniformLogSNR()(Cosine(), 40), method=Guided()).x
    both = case.posterior.posterior(torch.eye(12, dtype=torch.float64)[known.flatten()], x[0][known], 0.1)
    exact = both.covariance.diagonal().reshape(3, 2, 2)
    assert ((drawn.mean(0) - both.mean) / exact.sqrt()).abs().max() < 0.15
