"""Restorations on a pretended device: those of the CPU, with the waits that their methods ask for and no other.

The budgets are waits for each step, beside those for the whole restoration. They may only fall.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion.model import Model, load
from diffusion.model.restoration import Restoration
from diffusion.operators import OPERATORS, registry
from diffusion.restoration import METHODS
from tests.pretended import Ledger, pretended

STEPS = 2
# The waits of a whole restoration: its observation, its result, and what its method looks at once.
ONCE = 8
# For a mask. Conjugate gradients whose products are cheap converge before their first look. Those with the Jacobian are
# looked at in every iteration, which takes a backward pass. Particles are asked for their weights.
BUDGETS = {
    **dict.fromkeys(("replacement", "repaint", "ddnm", "dps"), 0),
    **dict.fromkeys(("product", "zero", "pigdm"), 1),
    "tmpd": 4,
    "mmps": 8,
    "particles": 10,
    "resampling": 4,
}
# Where a step may wait: for the convergence of conjugate gradients, what their Jacobian did not solve, and the weights.
ASKING = ("operators/operator.py", "restoration/posterior.py", "restoration/particles.py")
WORDS = {
    "blur": "blur:sigma=1",
    "box": "box:size=3",
    "kernel": "blur:sigma=1,border=circular",
    "motion": "motion:length=3",
    "downsample": "downsample:factor=2,filter=bicubic",
    "jpeg": "jpeg:quality=20",
    "gray": "gray",
    "denoise": "denoise",
}
IMAGE = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
KNOWN = torch.rand(8, 8, generator=torch.Generator().manual_seed(2)) > 0.4


def needs_mask(method: str) -> bool:
    return method in ("replacement", "repaint")


def suits(operator: str, method: str) -> bool:
    return not needs_mask(method) and (operator != "jpeg" or method not in ("product", "ddnm"))


def inpainted(model: Model, method: str, image: Tensor = IMAGE, known: Tensor = KNOWN) -> Restoration:
    noise = 0.05 if method in ("dps", "zero") else 0.0
    return model.inpaint(image, known, n=1, batch=4, method=method, steps=STEPS, noise=noise)


def restored(model: Model, operator: str, method: str, steps: int = STEPS) -> Restoration:
    y = registry.parse(WORDS[operator])(IMAGE[None])[0]
    return model.restore(y, WORDS[operator], noise=0.1, n=1, batch=4, method=method, steps=steps)


def asked(ledger: Ledger) -> int:
    """How often a step waited for what it asks, which must be all that it waits for."""
    places: Counter[str] = Counter()
    for (_, where), count in ledger.waits.items():
        places[where.partition(":")[0]] += count
    waits = sum(places[place] for place in ASKING)
    assert ledger.waits.total() - waits <= ONCE, str(ledger)
    return waits


def same(found: Restoration, expected: Restoration) -> bool:
    # The Jacobian of a network of 40 steps is next to singular, which makes differences of rounding larger.
    return torch.allclose(found.samples, expected.samples, rtol=0, atol=5e-3)


def test_every_operator_and_method_is_tried() -> None:
    assert set(WORDS) == set(OPERATORS) and set(BUDGETS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_an_inpainting_is_that_of_the_cpu_and_waits_for_what_it_asks_alone(
    method: str, trained: Path, on_cpu: Model
) -> None:
    expected = inpainted(on_cpu, method)
    with pretended("cuda") as ledger:
        model = load(trained, device="cuda")
        ledger.clear()
        found = inpainted(model, method)
        waits = asked(ledger)
    assert same(found, expected)
    assert waits <= BUDGETS[method] * STEPS, str(ledger)


@pytest.mark.parametrize("operator", WORDS)
@pytest.mark.parametrize("method", [method for method in METHODS if not needs_mask(method)])
def test_a_restoration_waits_for_what_it_asks_alone(operator: str, method: str, trained: Path, on_cpu: Model) -> None:
    if not suits(operator, method):
        return
    with pretended("cuda") as ledger:
        model = load(trained, device="cuda")
        ledger.clear()
        found = restored(model, operator, method, steps=1)
        waits = asked(ledger)
    assert found.samples.isfinite().all() and (waits == 0 or method not in ("ddnm", "dps")), str(ledger)


@pytest.mark.parametrize("operator", WORDS)
def test_a_restoration_by_the_default_method_is_that_of_the_cpu(operator: str, trained: Path, on_cpu: Model) -> None:
    expected = restored(on_cpu, operator, "auto")
    with pretended("cuda"):
        assert same(restored(load(trained, device="cuda"), operator, "auto"), expected)


@pytest.mark.parametrize("method", ["replacement", "mmps", "ddnm"])
def test_windows_wait_for_nothing_more(method: str, trained: Path, on_cpu: Model) -> None:
    image, known = IMAGE.repeat(1, 2, 2)[:, :13, :11], KNOWN.repeat(2, 2)[:13, :11]
    expected = inpainted(on_cpu, method, image, known)
    with pretended("cuda") as ledger:
        model = load(trained, device="cuda")
        ledger.clear()
        found = inpainted(model, method, image, known)
        waits = asked(ledger)
    assert same(found, expected) and (method == "mmps" or waits == 0), str(ledger)


@pytest.mark.parametrize("method", METHODS)
def test_restorations_on_apples_gpu_keep_float64_on_the_cpu(method: str, trained: Path, on_cpu: Model) -> None:
    operator = "blur"
    run = (
        (lambda model: inpainted(model, method))
        if needs_mask(method)
        else lambda model: restored(model, operator, method)
    )
    expected = run(on_cpu)
    with pretended("mps"):
        assert same(run(load(trained, device="mps")), expected)
