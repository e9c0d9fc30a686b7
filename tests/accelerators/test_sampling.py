"""Samples on a pretended device: those of the CPU, without a wait in any step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import samplers
from diffusion.model import Model, load
from tests.pretended import pretended

STEPS = 5
CALLS: dict[str, Callable[[Model], Tensor]] = {
    **{
        name: lambda model, name=name: model.sample(3, steps=STEPS, batch=3, sampler=name) for name in samplers.SAMPLERS
    },
    "churn": lambda model: model.sample(2, steps=STEPS, batch=2, sampler=samplers.Heun(churn=0.3)),
    "guided": lambda model: model.sample(2, steps=STEPS, batch=2, guidance=2.0, label=["disk", "square"]),
    "vary": lambda model: model.vary(torch.full((3, 8, 8), 0.3), n=2, steps=STEPS, batch=2),
}


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether they are equal up to the order in which float32 is rounded."""
    return found.device.type == "cpu" and torch.allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_samples_are_those_of_the_cpu_and_the_host_waits_for_them_alone(
    name: str, trained: Path, on_cpu: Model
) -> None:
    expected = CALLS[name](on_cpu)
    with pretended("cuda") as ledger:
        model = load(trained, device="cuda")
        ledger.clear()
        found = CALLS[name](model)
        # Of what is given and of the samples.
        assert ledger.waits.total() == 1 + (name == "vary"), str(ledger)
    assert close(found, expected)


@pytest.mark.parametrize("name", CALLS)
def test_samples_need_no_float64_on_apples_gpu(name: str, trained: Path, on_cpu: Model) -> None:
    expected = CALLS[name](on_cpu)
    with pretended("mps"):
        assert close(CALLS[name](load(trained, device="mps")), expected)


def test_a_film_waits_for_its_frames_alone(trained: Path, on_cpu: Model) -> None:
    expected = torch.stack(on_cpu.film(2, steps=STEPS, batch=2))
    with pretended("cuda") as ledger:
        model = load(trained, device="cuda")
        ledger.clear()
        found = torch.stack(model.film(2, steps=STEPS, batch=2))
        assert ledger.waits.total() == STEPS + 1, str(ledger)
    assert close(found, expected)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_measured_grid_and_latents_are_those_of_the_cpu(kind: str, trained: Path, on_cpu: Model) -> None:
    def measured(model: Model) -> tuple[Tensor, Tensor, Tensor]:
        tuned = model.tuned(n=1)
        grid = tuned.config.grid(tuned.denoiser.schedule, 4)
        z = model.encode(torch.full((1, 3, 8, 8), 0.3), tolerance=1e-2)
        return grid, z, model.decode(z, tolerance=1e-2)

    expected = measured(on_cpu)
    with pretended(kind):
        found = measured(load(trained, device=kind))
    # Adaptive solvers choose their steps by errors that rounding changes.
    assert all(torch.allclose(a, b, rtol=0, atol=1e-2) for a, b in zip(found, expected, strict=True))


def test_the_batch_is_measured_once_without_touching_the_statistics_of_memory(trained: Path) -> None:
    with pretended("cuda"):
        model = load(trained, device="cuda")
        evaluations = []
        model.denoiser.backbone.register_forward_hook(lambda *given: evaluations.append(len(given[1][0])))  # type: ignore[attr-defined]
        for _ in range(2):
            model.sample(2, steps=2)
    assert evaluations.count(2) == 4 and len(evaluations) <= 6
