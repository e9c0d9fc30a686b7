"""Restorations on a pretended device: those of the CPU, with the waits that their methods ask for and no other.

The budgets are waits for each step, beside those for the whole restoration. They may only fall.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
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
    **dict.fromkeys(("replacement", "repaint", "ddnm", "dps", "learned"), 0),
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
    if method == "learned":
        return operator == "denoise"
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
    return torch.allclose(found.samples, expected.samples, rtol=0, atol=1e-2)


def test_every_operator_and_method_is_tried() -> None:
    assert set(WORDS) == set(OPERATORS) and set(BUDGETS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_an_inpainting_is_that_of_the_cpu_and_waits_for_what_it_asks_alone(
    method: str, pair: tuple[Path, Model]
) -> None:
    run, on_cpu = pair
    expected = inpainted(on_cpu, method)
    with pretended("cuda") as ledger:
        model = load(run, device="cuda")
        ledger.clear()
        found = inpainted(model, method)
        waits = asked(ledger)
    assert same(found, expected)
    assert waits <= BUDGETS[method] * STEPS, str(ledger)


@pytest.mark.parametrize("operator", WORDS)
@pytest.mark.parametrize("method", [method for method in METHODS if not needs_mask(method)])
def test_a_restoration_waits_for_what_it_asks_alone(operator: str, method: str, pair: tuple[Path, Model]) -> None:
    if not suits(operator, method):
        return
    with pretended("cuda") as ledger:
        model = load(pair[0], device="cuda")
        ledger.clear()
        found = restored(model, operator, method, steps=1)
        waits = asked(ledger)
    assert found.samples.isfinite().all() and (waits == 0 or method not in ("ddnm", "dps", "learned")), str(ledger)


@pytest.mark.parametrize("operator", WORDS)
def test_a_restoration_by_the_default_method_is_that_of_the_cpu(operator: str, trained: Path, on_cpu: Model) -> None:
    expected = restored(on_cpu, operator, "auto")
    with pretended("cuda"):
        assert same(restored(load(trained, device="cuda"), operator, "auto"), expected)


@pytest.mark.parametrize("method", ["replacement", "mmps", "ddnm", "learned"])
def test_windows_wait_for_nothing_more(method: str, pair: tuple[Path, Model]) -> None:
    run, on_cpu = pair
    image, known = IMAGE.repeat(1, 2, 2)[:, :13, :11], KNOWN.repeat(2, 2)[:13, :11]
    expected = inpainted(on_cpu, method, image, known)
    with pretended("cuda") as ledger:
        model = load(run, device="cuda")
        ledger.clear()
        found = inpainted(model, method, image, known)
        waits = asked(ledger)
    assert same(found, expected) and (method == "mmps" or waits == 0), str(ledger)


@pytest.mark.parametrize("method", METHODS)
def test_restorations_on_apples_gpu_keep_float64_on_the_cpu(method: str, pair: tuple[Path, Model]) -> None:
    operator, (run, on_cpu) = "denoise" if method == "learned" else "blur", pair
    draw = (
        (lambda model: inpainted(model, method))
        if needs_mask(method)
        else lambda model: restored(model, operator, method)
    )
    expected = draw(on_cpu)
    with pretended("mps"):
        assert same(draw(load(run, device="mps")), expected)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("side", [8, 13, 5])
def test_maps_of_noise_guidance_and_windows_wait_for_nothing(
    side: int, kind: str, restorer: Path, restorer_on_cpu: Model
) -> None:
    """What is known exactly, in noise that differs, and not at all, towards a label, in one window and in several."""
    image, known = IMAGE.repeat(1, 2, 2)[:, :side, :side], KNOWN.repeat(2, 2)[:side, :side]
    noise = (torch.linspace(-0.1, 0.2, side).clamp(0) * torch.ones(side, 1)).contiguous()

    def draw(model: Model) -> Restoration:
        label = model.spec.classes[0]
        options = {"n": 2, "batch": 4, "steps": STEPS, "label": label, "guidance": 2.0}
        return model.inpaint(image, known, noise=noise, **options)  # type: ignore[arg-type]

    guided = replace(restorer_on_cpu.config, training=replace(restorer_on_cpu.config.training, label_dropout=0.1))
    expected = draw(replace(restorer_on_cpu, config=guided))
    assert expected.diagnostics.method.name == "learned"
    with pretended(kind) as ledger:
        model = replace(load(restorer, device=kind), config=guided)
        ledger.clear()
        found = draw(model)
        assert kind == "mps" or ledger.waits.total() <= ONCE, str(ledger)
    assert same(found, expected)
    exact = known & (noise == 0)
    assert torch.equal(found.samples[:, :, exact], image[:, exact].expand(2, -1, -1))
