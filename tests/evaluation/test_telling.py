"""The likelihood of what a network is told of examples, against Gaussian images whose posterior is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import config
from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import Denoiser, EDMPrecond
from diffusion.evaluation import BoundEstimator, Setting
from diffusion.evaluation.estimators import FlowEstimator, ImportanceEstimator
from diffusion.evaluation.likelihood import Estimator
from diffusion.evaluation.telling import Telling
from diffusion.model import Model
from diffusion.operators import parse
from diffusion.schedules import EDM
from tests.oracles import GaussianOracle, correlated

Make = Callable[[GaussianOracle], Model]
SHAPE, NOISE = (1, 2, 2), 0.5
# So noisy at its end that nothing is left of what the posterior's mean is.
WIDE = EDM(2e-3, 1e4)
SPEC = DataSpec(SHAPE, None, mean=0.4, std=0.25)
DOWN = parse("downsample:factor=2")(torch.eye(4, dtype=torch.float64).reshape(4, *SHAPE)).flatten(1).mT


@dataclass(frozen=True)
class Told:
    """The network that knows E[x|x_t, y] of Gaussian images of mean 0 for the y = A x + N(0, NOISE²) that the channels
    of each example show, and E[x|x_t] for examples that are told nothing.
    """

    oracle: GaussianOracle
    matrix: Tensor

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, *beside: Tensor | None) -> Tensor:
        t = self.oracle.schedule.time(log_snr.double())
        c_in, c_skip, c_out = (c.reshape(-1, 1, 1, 1) for c in EDMPrecond()(*self.oracle.schedule(t)))
        oracle, told, shift = self.oracle, beside[1] if beside else None, torch.zeros(())
        if told is not None:
            assert told.shape == (len(x), 2, 2, 2) and bool((told[:, 1] == 1).all())
            y = told[:, 0].double().flatten(1) @ self.matrix.mT
            inner = self.matrix @ oracle.covariance @ self.matrix.mT + NOISE**2 * torch.eye(len(self.matrix))
            shift = (y @ torch.linalg.solve(inner, self.matrix @ oracle.covariance)).reshape(x.shape)
            oracle = oracle.posterior(self.matrix, torch.zeros(len(self.matrix), dtype=torch.float64), NOISE)
        x_t = x.double() / c_in
        alpha = self.oracle.schedule(t)[0].reshape(-1, 1, 1, 1)
        return ((oracle(x_t - alpha * shift, t).mean + shift - c_skip * x_t) / c_out).to(x.dtype)


def gaussian() -> GaussianOracle:
    return replace(correlated(WIDE, SHAPE), mean=torch.zeros(SHAPE, dtype=torch.float64))


def by_operator(oracle: GaussianOracle) -> Model:
    section = {"operator": "downsample:factor=2", "noise": NOISE * SPEC.std}
    return model_of(oracle, DOWN, {"condition": section})


def by_pair(oracle: GaussianOracle) -> Model:
    return model_of(oracle, torch.eye(4, dtype=torch.float64), {"data": {"condition": "pairs"}})


def model_of(oracle: GaussianOracle, matrix: Tensor, sections: dict[str, dict[str, object]]) -> Model:
    data = {"path": "images", "channels": 1, "size": 2, **sections.pop("data", {})}
    experiment = config.from_dict({"data": data, "sampling": {"precision": "fp32"}, **sections})
    return Model(Denoiser(Told(oracle, matrix), WIDE, EDMPrecond()), SPEC, experiment)  # type: ignore[arg-type]


def examples(oracle: GaussianOracle, count: int = 400) -> Dataset:
    """Images, and pairs that are the images in noise."""
    generator = torch.Generator().manual_seed(0)
    x = oracle.sample(count, generator)
    pairs = x + NOISE * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    values, condition = ((each * SPEC.std + SPEC.mean).float().numpy() for each in (x, pairs))
    return Dataset(values, SPEC, None, [str(i) for i in range(count)], condition=condition)


def exact(model: Model, oracle: GaussianOracle, matrix: Tensor, data: Dataset) -> Tensor:
    """-log p(x_i | y_i) of the examples in bits, y_i being what the network is told of each."""
    channels = Telling.of(model, data, Setting())(data, torch.from_numpy(data.values), range(len(data)), 0)
    assert channels is not None
    x = (torch.from_numpy(np.asarray(data.values)).double() - SPEC.mean) / SPEC.std
    each = [
        oracle.posterior(matrix, shown[0].double().flatten() @ matrix.mT, NOISE).nll(x[i : i + 1])
        for i, shown in enumerate(channels)
    ]
    return torch.cat(each) / math.log(2)


@pytest.mark.parametrize(("make", "matrix"), [(by_operator, DOWN), (by_pair, torch.eye(4, dtype=torch.float64))])
def test_the_likelihood_is_that_given_what_is_told(make: Make, matrix: Tensor) -> None:
    """By the flow, which is exact, of every example; and that of p(x) where nothing is told."""
    oracle = gaussian()
    model, data, flow = make(oracle), examples(oracle, 6), FlowEstimator(tolerance=1e-4)
    told = flow(model, data, Setting())
    assert torch.tensor(told.values).double().sub(exact(model, oracle, matrix, data)).abs().max() < 5e-3
    x = (torch.from_numpy(np.asarray(data.values)).double() - SPEC.mean) / SPEC.std
    nothing = torch.tensor(flow(model, data, Setting(condition=False)).values).double()
    assert (nothing - oracle.nll(x) / math.log(2)).abs().max() < 5e-3
    assert float(nothing.mean()) - told.mean["total"] > 0.2, "what is told says something of the images"


@pytest.mark.parametrize("make", [by_operator, by_pair])
def test_the_entropy_of_the_posterior_is_what_is_left_to_tell(make: Make) -> None:
    """Of many examples the exact likelihood is the entropy on average: what is told belongs to the examples."""
    oracle, count = gaussian(), 400
    model, data = make(oracle), examples(oracle, count)
    matrix = DOWN if make is by_operator else torch.eye(4, dtype=torch.float64)
    posterior = oracle.posterior(matrix, torch.zeros(len(matrix), dtype=torch.float64), NOISE)
    entropy = float(torch.logdet(2 * math.pi * math.e * posterior.covariance)) / 2 / math.log(2)
    bits = exact(model, oracle, matrix, data)
    assert abs(float(bits.mean()) - entropy) < 4 * 2**0.5 / math.log(2) / count**0.5


@pytest.mark.parametrize("estimator", [BoundEstimator(draws=4), ImportanceEstimator(steps=8, paths=2)])
def test_every_estimator_is_told(estimator: Estimator) -> None:
    """Each example as by the exact denoiser given what is told of it, with the same random numbers."""
    oracle = gaussian()
    model, data = by_pair(oracle), examples(oracle, 3)
    found = estimator(model, data, Setting()).values
    for i in range(3):
        z = (torch.from_numpy(data.condition[i]).double().flatten() - SPEC.mean) / SPEC.std  # type: ignore[index]
        denoiser = oracle.posterior(torch.eye(4, dtype=torch.float64), z, NOISE)
        alone = replace(by_pair(oracle), denoiser=denoiser)  # type: ignore[arg-type]
        assert estimator(alone, data, Setting(condition=False)).values[i] == pytest.approx(found[i], abs=1e-3)


def test_what_is_told_depends_on_the_number_of_an_example_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured at once, or in halves where memory runs out."""
    oracle = gaussian()
    model, data, bound = by_operator(oracle), examples(oracle, 10), BoundEstimator(draws=2)
    whole, measure = bound(model, data, Setting()).values, BoundEstimator.measure

    def small(self: BoundEstimator, likelihood: object, x: Tensor, *rest: object) -> object:
        if len(x) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return measure(self, likelihood, x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BoundEstimator, "measure", small)
    assert bound(model, data, Setting()).values == pytest.approx(whole, abs=1e-9)


def test_it_is_said_what_is_told() -> None:
    oracle = gaussian()
    data = examples(oracle, 3)
    operator, pair, plain = by_operator(oracle), by_pair(oracle), model_of(oracle, DOWN, {})
    noisy = replace(operator, config=config.override(operator.config, ["condition.noise=[0.0,0.1]"]))
    given = replace(operator, denoiser=replace(operator.denoiser, condition=torch.zeros(1, 2, 2, 2)))
    bare, without = replace(data, condition=None), Setting(condition=False)
    nothing = "told nothing: the bits are those of p(x)"
    for model, some, setting, tells, note in (
        (
            operator,
            data,
            Setting(),
            True,
            "downsample:factor=2, makes of it and noise of 0.125",
        ),
        (noisy, data, Setting(), True, "makes of it and noise from 0 to 0.1, given which the bits are"),
        (pair, data, Setting(), True, "told of each example: its pair (data.condition), given which the bits are"),
        (pair, bare, Setting(), False, f"{nothing}, as the examples have no pairs (data.condition)"),
        (operator, data, without, False, nothing),
        (plain, data, Setting(), False, ""),
        (given, data, Setting(), False, ""),
    ):
        telling = Telling.of(model, some, setting)
        assert telling.tells == tells and note in "".join(telling.notes) and bool(telling.notes) == bool(note)
    found = BoundEstimator(draws=2)(operator, data, Setting())
    assert any(note.startswith("told of each example: what condition.operator") for note in found.notes)
