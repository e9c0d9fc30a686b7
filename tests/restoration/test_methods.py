"""Every method restores through one signature; corrections do what they say; the default suits the observations."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.grids import UniformLogSNR
from diffusion.guidance import ClassifierFree, LastEstimate
from diffusion.operators import JPEG, Downsample, Mask, Matrix, Operator
from diffusion.randomness import ExampleNoise
from diffusion.restoration.corrections import DPSStep, RangeNull
from diffusion.restoration.counting import CountingDenoiser
from diffusion.restoration.fitting import fit
from diffusion.restoration.methods import (
    METHODS,
    Direct,
    Guided,
    Method,
    RePaint,
    Resampling,
    Twisted,
    default,
    restore,
)
from diffusion.restoration.problem import Problem
from diffusion.samplers import DDIM, Heun, prior, sample
from diffusion.schedules import Cosine
from tests.oracles import MixtureOracle, correlated

KNOWN = torch.tensor([[[True, False, True], [False, False, True]]])
ORACLE = correlated(Cosine(), (1, 2, 3))
TIMES = UniformLogSNR(-8.0, 6.0)(Cosine(), 40)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# What is not a posterior of the stated noise: a step of fixed length, and no covariance, which diverges below noise 1.
ROUGH = {"dps": (0.05, 0.5), "zero": (1.0, 1.5)}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_agrees_with_what_is_known(name: str) -> None:
    y = ORACLE.sample(1, torch.Generator().manual_seed(0)) * KNOWN
    noise, limit = ROUGH.get(name, (0.05, 0.25))
    seen = Problem(Mask(KNOWN), y, noise)
    found = restore(ORACLE, seen, normal(8, 1, 2, 3), TIMES, method=METHODS[name](), randn=ExampleNoise(range(8)))
    assert found.x.shape == (8, 1, 2, 3) and torch.isfinite(found.x).all()
    assert (found.x - y)[:, KNOWN].square().mean().sqrt() < limit
    again = restore(ORACLE, seen, normal(8, 1, 2, 3), TIMES, method=METHODS[name](), randn=ExampleNoise(range(8)))
    assert torch.equal(found.x, again.x)


def test_the_default_follows_the_number_of_observations() -> None:
    assert isinstance(default(Problem(Matrix(normal(4, 6)), normal(1, 4))), Resampling)
    assert isinstance(default(Problem(Downsample(2), normal(1, 3, 8, 8))), Guided)
    pixels = torch.arange(64).reshape(1, 8, 8)
    shown = {count: Problem(Mask(pixels < count), torch.zeros(1, 1, 8, 8)) for count in (0, 16, 17)}
    assert isinstance(default(shown[16]), Resampling), "what counts is what a mask shows"
    assert isinstance(default(shown[17]), Guided) and isinstance(default(shown[0]), Guided)


# Particles that are steered need to be fewer.
@pytest.mark.parametrize(("method", "n"), [(Twisted(8), 200), (Resampling(8), 1000)], ids=["twisted", "resampling"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_evidence_is_that_of_what_a_mask_shows(method: Method, n: int, noise: float) -> None:
    y = ORACLE.sample(1, torch.Generator().manual_seed(1)) * KNOWN
    rows = torch.eye(6, dtype=torch.float64)[KNOWN.flatten()]
    found = []
    for seen in (Problem(Mask(KNOWN), y, noise), Problem(Matrix(rows), y[:, KNOWN], noise)):
        options = {"method": method, "randn": ExampleNoise(range(n))}
        found.append(restore(ORACLE, seen, normal(n, 1, 2, 3), TIMES, **options))  # type: ignore[arg-type]
    assert torch.allclose(found[0].x, found[1].x, rtol=0, atol=1e-9)
    law = torch.distributions.MultivariateNormal(
        rows @ ORACLE.mean.flatten(), rows @ ORACLE.covariance @ rows.mT + noise**2 * torch.eye(3).double()
    )
    error = 3 / float(found[0].relative_ess.min() * 8 * n) ** 0.5
    assert float(found[0].log_evidence) == pytest.approx(float(law.log_prob(y[0, KNOWN])), abs=error) and error < 0.5


def test_without_the_determinant_there_is_no_evidence() -> None:
    seen = Problem(Downsample(1), normal(1, 1, 4, 5), 0.5)
    oracle = correlated(Cosine(), (1, 4, 5))
    for method in (Twisted(2), Resampling(2)):
        found = restore(oracle, seen, normal(4, 1, 4, 5), TIMES[::4], method=method, randn=ExampleNoise(range(4)))
        assert torch.isnan(found.log_evidence) and torch.isfinite(found.x).all()


def test_a_method_takes_another_sampler_if_it_has_one() -> None:
    assert METHODS["mmps"]().with_sampler(DDIM(0.5)) == Guided(sampler=DDIM(0.5))
    with pytest.raises(ValueError, match="sampler: must not be given, as product is one by itself, got DDIM"):
        METHODS["product"]().with_sampler(DDIM())
    assert {name: kind().name for name, kind in METHODS.items()} == {name: name for name in METHODS}


def test_evaluations_and_backward_passes_are_counted() -> None:
    counted, seen = CountingDenoiser(ORACLE), Problem(Mask(KNOWN), normal(1, 1, 2, 3) * KNOWN, 0.1)
    restore(counted, seen, normal(2, 1, 2, 3), TIMES, method=METHODS["tmpd"](), randn=ExampleNoise(range(2)))
    assert counted.nfe == len(TIMES) - 1 and counted.backward == 2 * counted.nfe, "row sums, and y"
    at: list[float] = []
    counted = CountingDenoiser(ORACLE, lambda t: at.append(float(t)))
    restore(counted, seen, normal(2, 1, 2, 3), TIMES, method=RePaint(3), randn=ExampleNoise(range(2)))
    assert counted.backward == 0 and at == [float(t) for t in TIMES[:-1] for _ in range(3)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_whether_it_differentiates_the_denoiser_and_looks_at_other_restorations(name: str) -> None:
    counted, seen = CountingDenoiser(ORACLE), Problem(Mask(KNOWN), normal(1, 1, 2, 3) * KNOWN, 1.0)
    method, noise = METHODS[name](), normal(6, 1, 2, 3)
    together = restore(counted, seen, noise, TIMES[::8], method=method, randn=ExampleNoise(range(6))).x
    assert method.differentiates == (counted.backward > 0)
    alone = [
        restore(ORACLE, seen, noise[i : i + 1], TIMES[::8], method=method, randn=ExampleNoise([i])).x for i in range(6)
    ]
    assert method.independent == torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if issubclass(kind, Direct)])
def test_a_denoiser_that_knows_y_ends_at_its_estimate_on_the_clean_end(name: str) -> None:
    seen, noise, method = Problem(Mask(KNOWN), normal(1, 1, 2, 3) * KNOWN, 1.0), normal(2, 1, 2, 3), METHODS[name]()
    assert isinstance(method, Direct)
    for times in (TIMES[::8], TIMES[:-1:8]):
        chosen, sampler = method.parts(ORACLE, seen)
        last = LastEstimate(chosen)
        x = sample(last, sampler, prior(last, noise, times[0]), times, randn=ExampleNoise(range(2)))
        assert not torch.equal(x, last.mean)
        knows = chosen is not ORACLE and times[-1] == 0
        found = restore(ORACLE, seen, noise, times, method=method, randn=ExampleNoise(range(2))).x
        assert torch.equal(found, last.mean if knows else x)


@pytest.mark.parametrize("method", [Twisted(), Resampling()], ids=["twisted", "resampling"])
def test_four_particles_are_weighed_for_each_restoration(method: Method) -> None:
    sizes: list[int] = []

    class Watched:
        schedule = ORACLE.schedule

        def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            sizes.append(len(x_t))
            return ORACLE(x_t, t)

    seen = Problem(Mask(KNOWN), normal(1, 1, 2, 3) * KNOWN, 1.0)
    restore(Watched(), seen, normal(3, 1, 2, 3), TIMES[::8], method=method, randn=ExampleNoise(range(3)))
    assert sizes[0] == 4 * 3


def test_a_label_and_guidance_reach_the_denoiser() -> None:
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    mixture = MixtureOracle(Cosine(), means, 0.05, torch.tensor([0.5, 0.5], dtype=torch.float64))
    seen = Problem(Matrix(torch.tensor([[0.0, 1.0]], dtype=torch.float64)), torch.tensor([[0.1]]).double(), 0.1)
    for method in (Guided(), Twisted(), Resampling()):
        guided = ClassifierFree(mixture, 1.5)
        options = {"method": method, "label": torch.tensor([1]), "randn": ExampleNoise(range(6))}
        x = restore(guided, seen, normal(6, 2), TIMES, **options).x  # type: ignore[arg-type]
        assert (x[:, 0] > 1).all() and ((x[:, 1] - 0.1).abs() < 0.4).all()


def test_the_range_comes_from_y_and_the_null_space_from_the_denoiser() -> None:
    matrix, y, x_t = normal(2, 3), normal(1, 2, seed=1), normal(4, 3, seed=2)
    oracle, t = correlated(Cosine(), (3,)), torch.tensor(0.3, dtype=torch.float64)
    mean = RangeNull(oracle, Matrix(matrix), y)(x_t, t).mean
    assert torch.allclose(mean @ matrix.mT, y.expand(4, 2), rtol=0, atol=1e-8)
    null = torch.eye(3, dtype=torch.float64) - torch.linalg.pinv(matrix) @ matrix
    assert torch.allclose(mean @ null, oracle(x_t, t).mean @ null, rtol=0, atol=1e-8)
    alpha, sigma = Cosine()(t)
    noisy = RangeNull(oracle, Matrix(matrix), y, noise=2 * float(sigma / alpha))(x_t, t).mean
    assert torch.allclose(noisy, (mean + oracle(x_t, t).mean) / 2, rtol=0, atol=1e-8)


def test_dps_steps_down_the_misfit_by_a_length_of_its_own() -> None:
    oracle, operator = correlated(Cosine(), (3,)), Matrix(normal(2, 3))
    y, x_t = normal(1, 2, seed=1), normal(4, 3, seed=2)
    t, s = (torch.tensor(v, dtype=torch.float64) for v in (0.5, 0.4))
    free = DDIM().step(oracle, x_t, t, s, None, torch.zeros_like)[0]
    moved = DPSStep(DDIM(), operator, y, 0.5).step(oracle, x_t, t, s, None, torch.zeros_like)[0] - free
    small = 1e-6 * moved
    misfit = [(y - operator(oracle(x, t).mean)).norm(dim=1) for x in (x_t, x_t + small)]
    slope = (misfit[1] - misfit[0]) / small.norm(dim=1)
    assert torch.allclose(slope, -moved.norm(dim=1) / 0.5, rtol=1e-4), "along the gradient, and scale times its length"
    assert DPSStep(Heun(), operator, y).nfe_per_step == 3


def test_jpeg_is_restored_by_methods_that_linearize() -> None:
    oracle = correlated(Cosine(), (1, 8, 8), low=1e-3, high=0.3)
    x = oracle.sample(1, torch.Generator().manual_seed(1))
    seen = Problem(JPEG(30), JPEG(30)(x), 0.05)
    for name in ("pigdm", "mmps", "dps"):
        found = restore(oracle, seen, normal(4, 1, 8, 8), TIMES, method=METHODS[name](), randn=ExampleNoise(range(4)))
        assert torch.isfinite(found.x).all()
        free = restore(
            oracle,
            Problem(JPEG(30), JPEG(30)(x), 1e3),
            normal(4, 1, 8, 8),
            TIMES,
            method=METHODS["mmps"](),
            randn=ExampleNoise(range(4)),
        )
        assert (JPEG(30)(found.x) - seen.y).square().mean() < 0.5 * (JPEG(30)(free.x) - seen.y).square().mean()


@pytest.mark.parametrize(
    ("name", "operator", "rule"),
    [
        ("ddnm", JPEG(20), "linear"),
        ("product", JPEG(20), "linear"),
        ("replacement", JPEG(20), "a mask"),
        ("repaint", JPEG(20), "a mask"),
        ("repaint", Downsample(1), "a mask"),
    ],
)
@pytest.mark.parametrize("side", [8, 16])
def test_operators_that_a_method_does_not_take_are_named_as_they_were_given(
    name: str, operator: Operator, rule: str, side: int
) -> None:
    seen = Problem(operator, operator(normal(1, 1, 8, 8))).in_model_units(0.47, 0.3, normal(1, 1, 8, 8))
    seen = fit(ORACLE, (side, side), seen).problem
    message = f"operator: must be {rule} for {name}, got {operator}; take mmps or pigdm"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        restore(correlated(Cosine(), seen.shape), seen, normal(2, *seen.shape), TIMES, method=METHODS[name]())


def test_what_cannot_be_restored_is_named() -> None:
    with pytest.raises(ValueError, match=r"noise: must be 0 or more, got -0\.1"):
        Problem(Mask(KNOWN), normal(1, 1, 2, 3), -0.1)
    for kind in (Twisted, Resampling):
        assert kind(1).particles == 1
        with pytest.raises(ValueError, match=r"^particles: must be at least 1, got 0$"):
            kind(0)
    with pytest.raises(ValueError, match=r"y: must be that of one example, \(1, \*\), got \(2, 3\)"):
        Problem(Mask(KNOWN), normal(2, 3))


def test_the_memory_probe_differentiates_where_the_method_does() -> None:
    x_t, t = normal(2, 1, 2, 3), torch.tensor(0.5, dtype=torch.float64)
    for name, kind in METHODS.items():
        counted = CountingDenoiser(ORACLE)
        kind().memory_probe(counted)(x_t, t)
        assert counted.nfe == 1 and (counted.backward > 0) == kind.differentiates, name
