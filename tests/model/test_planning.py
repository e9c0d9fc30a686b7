"""What restorations will take is counted as it is then taken, for every method, and timed where that costs little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.draw import Draw
from diffusion.model import Model, planning
from diffusion.model.planning import Plan, passes
from diffusion.operators import GaussianBlur, Mask
from diffusion.restoration import Problem
from diffusion.restoration.methods import METHODS
from diffusion.schedules import Schedule


def problem(noise: float = 0.0) -> Problem:
    """A problem of 24x40 pixels with a hole of 12 pixels and one of a single pixel."""
    known = torch.ones(1, 24, 40, dtype=torch.bool)
    known[:, 10:13, 5:9] = known[:, 12, 30] = False
    return Problem(Mask(known), torch.rand(1, 3, 24, 40) * known, noise, (3, 24, 40))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_evaluations_are_counted_as_they_are_made(model: Model, mapped_model: Model, name: str) -> None:
    """For methods with weights by particle, whose number is that of the batch until they are resampled."""
    given, draw, steps = problem(0.1 if name == "zero" else 0.0), Draw(2, steps=5), 5
    chosen = mapped_model if name == "learned" else model
    plan = chosen.plan(given, draw, method=name)
    found = chosen.solve(given, draw, method=name).diagnostics
    assert (plan.windows, plan.parts) == (found.windows, found.parts)
    particles = getattr(METHODS[name](), "particles", 1)
    each = plan.evaluations / (2 * plan.windows)
    if name == "resampling":
        assert steps < each <= particles * found.nfe
    else:
        assert each == particles * found.nfe
    assert plan.values == (3 * 24 * 40 if given.noise else 3 * 13)


def test_backward_passes_on_white_data(model: Model) -> None:
    times = torch.linspace(0.9, 0, 6, dtype=torch.float64)
    schedule, given = model.denoiser.schedule, problem()
    found = {name: passes(METHODS[name](), schedule, times, given) for name in ("replacement", "pigdm", "tmpd", "dps")}
    assert {name: each.backward for name, each in found.items()} == {
        "replacement": 0,
        "pigdm": 5,
        "tmpd": 10,
        "dps": 5,
    }
    few = Problem(Mask(torch.arange(192).reshape(3, 8, 8) < 4), torch.zeros(1, 3, 8, 8), shape=(3, 8, 8))
    dense = passes(METHODS["particles"](), schedule, times, few)
    assert dense.backward == 4 * 5 * (4 + 1), "4 particles, a pass for each observation and one for the estimate"


class Slow:
    """A denoiser that takes a millisecond of a clock for each example, and three for its gradient."""

    def __init__(self, schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
        self.schedule, self.now, self.calls = schedule, 0.0, 0
        monkeypatch.setattr(planning, "_now", lambda device: self.now)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        self.now, self.calls = self.now + 1e-3 * len(x_t), self.calls + 1
        mean = 0.5 * x_t
        if mean.requires_grad:
            mean.register_hook(self._passed)  # type: ignore[no-untyped-call]
        return Prediction(mean, None)

    def _passed(self, gradient: Tensor) -> None:
        self.now += 3e-3 * len(gradient)


def test_the_time_is_that_of_all_evaluations_and_backward_passes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(model.denoiser.schedule, monkeypatch)
    slowed = replace(model, denoiser=slow)  # type: ignore[arg-type]
    draw = Draw(8, steps=100)
    first = slowed.plan(problem(), draw, method="replacement")
    assert first.windows == 12 + 9 and first.seconds == pytest.approx(1e-3 * 8 * 21 * 100)
    second = slowed.plan(problem(), draw, method="pigdm")
    assert second.seconds == pytest.approx((1e-3 + 3e-3) * 8 * 21 * 100)
    assert second.evaluations == first.evaluations == 8 * 21 * 100
    whole = Problem(GaussianBlur(1.0), torch.zeros(1, 3, 24, 40), 0.1, (3, 24, 40))
    assert slowed.plan(whole, draw, method="pigdm").seconds == pytest.approx(4e-3 * 8 * 45 * 100)
    slow.calls = 0
    assert slowed.plan(problem(), Draw(8, steps=10), method="replacement").seconds is None and slow.calls == 0, (
        "timing would take a fifth of the work"
    )


def test_nothing_to_restore_takes_nothing(model: Model) -> None:
    given = Problem(Mask(torch.ones(1, 20, 20).bool()), torch.rand(1, 3, 20, 20), shape=(3, 20, 20))
    assert model.plan(given, Draw(4)) == Plan(0, 0, 0, 0)
