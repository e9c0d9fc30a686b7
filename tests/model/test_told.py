"""Models that are told an observation: what is restored by plain sampling, what is refused, and bounds on p(x|y)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import config
from diffusion.conditioning import Condition
from diffusion.data import DataSpec
from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.draw import Draw
from diffusion.errors import InputError
from diffusion.model import Model, load
from diffusion.model.posing import restoring
from diffusion.model.told import by_operator, middle
from diffusion.operators import parse
from diffusion.restoration import Problem
from diffusion.restoration.methods import Guided, Learned
from diffusion.schedules import EDM
from diffusion.training import train
from tests.conftest import tiny
from tests.oracles import GaussianOracle, correlated

MEAN, STD, SHAPE = 120.0, 25.0, (1, 4, 4)
MATRIX = parse("downsample:factor=2")(torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)).flatten(1).mT


@dataclass(frozen=True)
class Told:
    """The network that knows E[x|x_t, y] of Gaussian data, y being what the channels show: y = A x + N(0, noise²)."""

    oracle: GaussianOracle
    noise: float

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, *beside: Tensor | None) -> Tensor:
        t = self.oracle.schedule.time(log_snr.double())
        c_in, c_skip, c_out = (c.reshape(-1, 1, 1, 1) for c in EDMPrecond()(*self.oracle.schedule(t)))
        oracle, told = self.oracle, beside[1] if beside else None
        if told is not None and bool((told[:, -1] == 1).all()):
            assert told.shape[1:] == (2, 4, 4)
            oracle = oracle.posterior(MATRIX, (told[0, 0].double().flatten() @ MATRIX.mT), self.noise)
        x_t = x / c_in
        return (oracle(x_t, t).mean - c_skip * x_t) / c_out


@pytest.fixture(scope="module")
def exact() -> Model:
    """A model of Gaussian images of 4x4 that has learned to restore them from half the size in noise of 0.05."""
    tree = {
        "data": {"path": "images", "channels": 1, "size": 4},
        "condition": {"operator": "downsample:factor=2", "noise": 0.05},
        "sampling": {"precision": "fp32"},
    }
    oracle = correlated(EDM(), SHAPE)
    denoiser = Denoiser(Told(oracle, 0.05 * 255 / STD), EDM(), EDMPrecond())  # type: ignore[arg-type]
    return Model(denoiser, DataSpec(SHAPE, 256, mean=MEAN, std=STD), config.from_dict(tree))


def oracle_of(model: Model) -> GaussianOracle:
    network = model.denoiser.backbone
    assert isinstance(network, Told)
    return network.oracle


def observed(model: Model) -> tuple[Tensor, GaussianOracle]:
    """An observation of an image, in units, and the posterior in the units of the model."""
    generator = torch.Generator().manual_seed(0)
    x = oracle_of(model).sample(1, generator)
    y = (x.flatten(1) @ MATRIX.mT + 0.05 * 255 / STD * torch.randn(1, 4, generator=generator)).flatten()
    return (y.reshape(1, 2, 2) * STD + MEAN).float() / 255, oracle_of(model).posterior(MATRIX, y, 0.05 * 255 / STD)


def moments_match(drawn: Tensor, posterior: GaussianOracle) -> bool:
    x = (drawn.double() * 255 - MEAN) / STD
    exact = posterior.covariance.diagonal().reshape(SHAPE)
    off = (x.mean(0) - posterior.mean) / (exact / len(x)).sqrt()
    return bool(off.abs().max() < 5) and bool((x.var(0) / exact - 1).abs().max() < 0.2)


@pytest.mark.parametrize("method", ["auto", "learned", Learned()])
def test_what_was_learned_is_restored_by_sampling_the_exact_posterior(exact: Model, method: str | Learned) -> None:
    y, posterior = observed(exact)
    found = exact.restore(y, "downsample:factor=2", noise=0.05, n=1500, method=method, steps=24)
    assert found.diagnostics.method == Learned(told=True) and found.diagnostics.method.name == "learned"
    # Every step is one evaluation of the network, and nothing is differentiated.
    assert (found.diagnostics.nfe, found.diagnostics.backward, found.diagnostics.windows) == (24, 0, 1)
    assert moments_match(found.samples, posterior)
    assert found.diagnostics.residual == pytest.approx(1, abs=0.3)


def test_any_sampler_will_do(exact: Model) -> None:
    y, posterior = observed(exact)
    found = exact.restore(y, "downsample:factor=2", noise=0.05, n=1500, sampler="heun", steps=24)
    assert found.diagnostics.nfe == 47 and moments_match(found.samples, posterior)


def test_samples_given_an_observation_are_those_of_the_posterior(exact: Model) -> None:
    y, posterior = observed(exact)
    given = exact.given(y, "downsample:factor=2", noise=0.05)
    assert moments_match(given.sample(1500, steps=24), posterior)
    assert moments_match(exact.sample(1500, steps=24), oracle_of(exact))


def test_the_bound_given_an_observation_is_that_of_the_posterior(exact: Model) -> None:
    """As by the exact denoiser of p(x|y), whose bound is known to be tight; without the observation that of p(x)."""
    y, posterior = observed(exact)
    model = replace(exact, spec=DataSpec(SHAPE, None, mean=MEAN / 255, std=STD / 255))
    x = posterior.sample(200, torch.Generator().manual_seed(1))
    units = ((x * STD + MEAN) / 255).float()
    told = model.given(y, "downsample:factor=2", noise=0.05)
    nats = []
    for mine, oracle in ((told, posterior), (model, oracle_of(exact))):
        found = mine.bound(units, steps=400, draws=32).total
        expected = replace(model, denoiser=oracle).bound(units, steps=400, draws=32).total  # type: ignore[arg-type]
        assert (found - expected).abs().max() < 1e-3
        nats.append((float(found.mean()), float(oracle.nll(x).mean())))
    # What the observation tells of x: the bounds differ by as much as the exact densities do.
    told_nats, exact_nats = (nats[1][i] - nats[0][i] for i in (0, 1))
    assert told_nats == pytest.approx(exact_nats, abs=0.15) and exact_nats > 0.4


@pytest.mark.parametrize(
    ("operator", "noise", "rule"),
    [
        ("blur:sigma=0.5", 0.05, "operator: must be downsample:factor=2, which this network learned, got GaussianBlur"),
        ("downsample:factor=2", 0.1, "noise: must be 0.05, which this network learned, got 0.1; take mmps"),
        ("downsample:factor=2,filter=bicubic", 0.05, "operator: filter: must be area, which this network learned"),
    ],
)
def test_another_operator_is_left_to_mmps(exact: Model, operator: str, noise: float, rule: str) -> None:
    y = parse(operator)(torch.full((1, *SHAPE), 0.45))[0]
    with pytest.raises(InputError, match=re.escape(rule)):
        exact.restore(y, operator, noise=noise, method="learned")
    with pytest.raises(InputError, match=re.escape(rule.partition(";")[0]) + ".*; restore takes it by the method mmps"):
        exact.given(y, operator, noise=noise)
    assert isinstance(exact._setup.solver(problem_of(exact, y, operator, noise), Draw(1), "mmps").method, Guided)
    assert not isinstance(exact._setup.solver(problem_of(exact, y, operator, noise), Draw(1), "auto").method, Learned)


def problem_of(model: Model, y: Tensor, operator: str, noise: float) -> Problem:
    return restoring(model.border, y, operator, noise)


@dataclass(frozen=True)
class Shown:
    """The network whose x̂ is the observation that it is told; it keeps the channels of every evaluation."""

    seen: list[Tensor]

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, *beside: Tensor | None) -> Tensor:
        told = beside[1] if beside else None
        assert told is not None and told.shape == (len(x), 2, 4, 4)
        c_in, c_skip, c_out = (c.reshape(-1, 1, 1, 1) for c in EDMPrecond()(*EDM()(EDM().time(log_snr.double()))))
        self.seen.append(told)
        return ((told[:, :1] - c_skip * x / c_in) / c_out).float()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_window_of_a_large_image_is_told_its_part(exact: Model, guidance: float) -> None:
    """At the phase of the operator: the observation of a window is the window of the observation."""
    network = Shown([])
    spec = replace(exact.spec, classes=("a", "b"))
    denoiser = replace(exact.denoiser, backbone=network)  # type: ignore[arg-type]
    model = replace(exact, denoiser=denoiser, spec=spec)
    y = torch.rand(1, 5, 9, generator=torch.Generator().manual_seed(0)) / 4 + 0.4
    found = model.restore(
        y, "downsample:factor=2", noise=0.05, n=3, steps=2, label=0, guidance=guidance, batch=5, method="learned"
    )
    whole = y.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert found.diagnostics.windows == 4 * 8 and (found.samples - whole).abs().max() < 1e-5
    standardized = ((y * 255 - MEAN) / STD).unfold(1, 2, 1).unfold(2, 2, 1).reshape(-1, 2, 2)
    for channels in network.seen:
        assert bool((channels[:, 1] == 1).all())
        coarse = channels[:, 0, ::2, ::2]
        assert torch.allclose(channels[:, 0], coarse.repeat_interleave(2, 1).repeat_interleave(2, 2), atol=1e-5)
        assert all((coarse[i] - standardized).abs().flatten(1).amax(1).min() < 1e-5 for i in range(len(coarse)))


def test_smaller_images_are_left_to_other_methods(exact: Model) -> None:
    y = torch.full((1, 1, 2), 0.45)
    rule = r"size: must be at least \(4, 4\), which this network learned, got \(2, 4\); take mmps"
    with pytest.raises(InputError, match=rule):
        exact.restore(y, "downsample:factor=2", noise=0.05, method="learned")
    found = exact.restore(y, "downsample:factor=2", noise=0.05, n=1, steps=4)
    assert found.shape == (1, 2, 4) and found.diagnostics.method.name == "resampling"


def test_what_was_given_is_that_of_one_window(exact: Model) -> None:
    given = exact.given(torch.full((1, 2, 2), 0.45), "downsample:factor=2", noise=0.05)
    with pytest.raises(
        InputError, match=r"size: must be \(4, 4\), that of the observation that was given, got \(8, 8\)"
    ):
        given.restore(torch.full((1, 4, 4), 0.45), "downsample:factor=2", noise=0.05)
    with pytest.raises(InputError, match=r"size: must be \(4, 4\), that of the data, got \(8, 8\)"):
        exact.given(torch.full((1, 4, 4), 0.45), "downsample:factor=2", noise=0.05)
    with pytest.raises(InputError, match=r"size: must be \(4, 4\), that of the observation that was given, got"):
        given.sample(1, size=(8, 8), tiles="windows")


def test_masks_are_restored_given_an_observation(exact: Model) -> None:
    """A network that was told a small image restores what a mask hides, by any method: p(x | y, mask)."""
    y, posterior = observed(exact)
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[:, 0, :2] = True
    image = torch.full(SHAPE, 0.45)
    found = exact.given(y, "downsample:factor=2", noise=0.05).inpaint(image, known, n=400, steps=24, method="mmps")
    both = posterior.posterior(
        torch.eye(16, dtype=torch.float64)[known.flatten()], (image[known] * 255 - MEAN) / STD, 0.0
    )
    hidden, x = ~known, (found.samples.double() * 255 - MEAN) / STD
    off = (x.mean(0) - both.mean)[hidden] / both.covariance.diagonal().reshape(SHAPE)[hidden].sqrt()
    assert off.abs().max() < 0.3


def test_models_that_learned_nothing_are_told_nothing(model: Model) -> None:
    with pytest.raises(
        InputError, match=r"operator: must be one that the model was trained with \(condition.operator\)"
    ):
        model.given(torch.full((1, 8, 8), 0.5), "gray")
    with pytest.raises(InputError, match=r"operator: must be given, for a model that was not trained on pairs"):
        model.given(torch.full((1, 8, 8), 0.5))
    with pytest.raises(InputError, match=r"method: learned needs a model that learned to restore"):
        model.restore(torch.full((1, 8, 8), 0.5), "gray", noise=0.01, method="learned")


def quick(folder: Path, run: Path, **sections: dict[str, object]) -> Model:
    experiment = tiny(folder, report={"restored": 1, "pictures": 2, "checkpoint": 20}, **sections)
    assert train(experiment, run) == 0
    return load(run, device="cpu")


def test_a_run_learns_an_operator_and_restores_with_it(shapes: Path, tmp_path: Path) -> None:
    """From a configuration to restorations: training, samples without the operator, restorations with it."""
    section = {"operator": "gray+downsample:factor=2..4", "noise": (0.0, 0.1), "dropout": 0.2}
    model = quick(shapes, tmp_path / "run", condition=section)
    network = model.denoiser.backbone
    assert network.condition_channels == 3 + 3 and model.sample(2, steps=2).shape == (2, 3, 8, 8)  # type: ignore[attr-defined]
    x = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = parse("gray+downsample:factor=4")(x[None])[0]
    found = model.restore(y, "gray+downsample:factor=4", noise=0.05, n=3, steps=5, label=0)
    assert found.diagnostics.method == Learned(told=True) and found.diagnostics.nfe == 5
    assert found.samples.shape == (3, 3, 8, 8) and bool(found.samples.isfinite().all())
    again = model.restore(y, "gray+downsample:factor=4", noise=0.05, n=1, steps=5, label=0, batch=1, guidance=2.0)
    plain = model.restore(y, "gray+downsample:factor=4", noise=0.05, n=1, steps=5, label=0, batch=1)
    assert torch.allclose(plain.samples[0], found.samples[0], atol=1e-5)
    assert not torch.allclose(again.samples, plain.samples, atol=1e-5)
    other = model.restore(1 - y, "gray+downsample:factor=4", noise=0.05, n=1, steps=5, label=0)
    assert not torch.allclose(other.samples, plain.samples, atol=1e-5)


def test_a_run_learns_pairs_and_samples_given_one(shapes: Path, tmp_path: Path) -> None:
    for file in shapes.rglob("*.png"):
        pair = tmp_path / "gray" / file.relative_to(shapes)
        pair.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(pair)
    data = {"condition": str(tmp_path / "gray"), "condition_channels": 1, "flip": True}
    model = quick(shapes, tmp_path / "run", data=data)
    assert model.denoiser.backbone.condition_channels == 2  # type: ignore[attr-defined]
    file = tmp_path / "gray" / "disk" / "00.png"
    given = model.given(file)
    shown = torch.from_numpy(np.array(Image.open(file)))[None].float() / 255
    channels = given.denoiser.condition
    assert channels is not None and torch.equal(channels[0, 0], model.spec.standardize(shown)[0])
    assert bool((channels[0, 1] == 1).all()) and torch.equal(
        given.sample(2, steps=2), model.given(shown).sample(2, steps=2)
    )
    assert not torch.allclose(given.sample(2, steps=2), model.sample(2, steps=2))
    with pytest.raises(InputError, match=r"y: must be \(1, 8, 8\) as the data, got \(1, 4, 4\); resize it first"):
        model.given(torch.full((1, 4, 4), 0.5))
    with pytest.raises(InputError, match=r"noise: must be 0 without an operator"):
        model.given(shown, noise=0.1)


def test_the_middle_of_what_was_learned_belongs_to_it() -> None:
    condition = Condition("blur:sigma=1..2+jpeg:quality=20..91", noise=(0.0, 0.1))
    operator, noise = middle(condition)
    assert noise == 0.05 and condition.family.places(operator) == pytest.approx((0.5, 0.5), abs=0.01)
    assert middle(Condition("gray", noise=0.1)) == (parse("gray"), 0.1)


def test_channels_are_made_in_the_units_of_the_model(exact: Model) -> None:
    y, _ = observed(exact)
    channels = by_operator(exact.config, exact.spec, problem_of(exact, y, "downsample:factor=2", 0.05))
    expected = ((y * 255 - MEAN) / STD).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (channels[0, :1] - expected).abs().max() < 1e-5 and bool((channels[0, 1] == 1).all())
