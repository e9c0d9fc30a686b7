"""Likelihoods on a pretended device: those of the CPU, with no wait for any evaluation of the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion.data import open_source
from diffusion.evaluation import BoundEstimator, evaluate
from diffusion.likelihood.flow import Hutchinson
from diffusion.likelihood.ode import Adaptive, Fixed
from diffusion.model import Model, load
from diffusion.model.likelihood import Likelihood
from tests.pretended import pretended

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
PROBES = Hutchinson(1)
# Each takes its number of evaluations of the network.
CALLS: dict[str, Callable[[Likelihood, int], Tensor]] = {
    "bound": lambda measure, n: measure.bound(X, steps=20, draws=n).total,
    "continuous": lambda measure, n: measure.bound(X, steps=20, draws=n, continuous=True).total,
    "bound_2015": lambda measure, n: measure.bound_2015(X, steps=20, draws=n).total,
    "paths": lambda measure, n: measure.path_weights(X, steps=n, paths=2).elbo,
    "flow": lambda measure, n: measure.flow(X, solver=Fixed(n), probes=PROBES).log_likelihood,
    "noise": lambda measure, n: measure.flow(X, solver=Fixed(n), probes=PROBES, dequantization="noise").log_likelihood,
}
KNOWN = torch.rand(8, 8, generator=torch.Generator().manual_seed(2)) > 0.4
# The same of a model that takes a noise level for every pixel.
PARTS: dict[str, Callable[[Likelihood, int], Tensor]] = {
    "known": lambda measure, n: measure.bound(X, steps=20, draws=n, known=KNOWN).total,
    "seen": lambda measure, n: measure.bound(X, steps=20, draws=n, seen=KNOWN).total,
    "both": lambda measure, n: (
        measure.bound(X, steps=20, draws=n, continuous=True, known=KNOWN, seen=~KNOWN.flip(0)).total
    ),
}
# The values, whether they are finite, and whether they are gray levels; then the result. With masks, these and whether
# they leave something too.
BUDGET, MASKED = 4, 7


@pytest.mark.parametrize("name", CALLS)
def test_a_likelihood_is_that_of_the_cpu_and_its_waits_do_not_grow(name: str, trained: Path, on_cpu: Model) -> None:
    expected, totals = CALLS[name](on_cpu.likelihood(), 6), []
    with pretended("cuda") as ledger:
        measure = load(trained, device="cuda").likelihood()
        for n in (3, 6):
            ledger.clear()
            found = CALLS[name](measure, n)
            totals.append(ledger.waits.total())
        found = found.cpu()
    assert totals[0] == totals[1] <= BUDGET, str(ledger)
    assert torch.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", PARTS)
def test_that_of_a_part_is_too(name: str, restorer: Path, restorer_on_cpu: Model) -> None:
    expected, totals = PARTS[name](restorer_on_cpu.likelihood(), 6), []
    with pretended("cuda") as ledger:
        measure = load(restorer, device="cuda").likelihood()
        for n in (3, 6):
            ledger.clear()
            found = PARTS[name](measure, n)
            totals.append(ledger.waits.total())
        found = found.cpu()
    assert totals[0] == totals[1] <= MASKED, str(ledger)
    assert torch.allclose(found, expected, rtol=1e-5)
    with pretended("mps"):
        assert torch.allclose(PARTS[name](load(restorer, device="mps").likelihood(), 6).cpu(), expected, rtol=1e-5)


def test_the_adaptive_solver_waits_for_the_error_of_each_step(trained: Path) -> None:
    with pretended("cuda") as ledger:
        measure = load(trained, device="cuda").likelihood()
        ledger.clear()
        nfe = measure.flow(X, solver=Adaptive(1e-2), probes=PROBES).nfe
    assert ledger.waits.total() <= BUDGET + nfe // 6, str(ledger)


def test_an_evaluation_of_examples_is_that_of_the_cpu(trained: Path, on_cpu: Model) -> None:
    examples = open_source(on_cpu.config.data, lambda text: None).evenly(4)
    expected = evaluate(on_cpu, examples, method=BoundEstimator(draws=2)).values
    with pretended("cuda"):
        found = evaluate(load(trained, device="cuda"), examples, method=BoundEstimator(draws=2)).values
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_a_likelihood_is_measured_on_apples_gpu(name: str, trained: Path, on_cpu: Model) -> None:
    expected = CALLS[name](on_cpu.likelihood(), 3)
    with pretended("mps"):
        assert torch.allclose(CALLS[name](load(trained, device="mps").likelihood(), 3).cpu(), expected, rtol=1e-5)
