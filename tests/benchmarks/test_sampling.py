"""The arithmetic of the sampling benchmark, and its search for the fewest steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import quality, sampling
from benchmarks.common import Spread, Timing
from benchmarks.judge import Images, Judge
from benchmarks.quality import Referee
from diffusion.model import Model, load


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained, device="cpu")


class Ruler(Referee):
    """A distance that the samples state themselves."""

    def distance(self, x: Tensor) -> float:
        return float(x)


def test_the_fewest_steps_are_the_first_that_reach_the_target(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr(quality, "draw", lambda model, n, steps: torch.tensor(100.0 / steps))
    none = torch.zeros(0)
    ruler = Ruler(Judge(), none, Images(none, none))
    assert sampling.fewest_steps(model, ruler, 10, 26.0) == (4, 25.0)
    with pytest.raises(ValueError, match="no number of steps up to 50"):
        sampling.fewest_steps(model, ruler, 10, 1.0)


def test_seconds_per_thousand_images() -> None:
    assert sampling.per_thousand(Timing((1.0, 2.0, 3.0), work=50)) == Spread(40.0, 30.0, 50.0)


def test_our_samples_take_turns_through_the_classes(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(Model, "sample", lambda self, n, **options: given.append(options["label"]))
    quality.draw(model, 5)
    assert given == [[0, 1, 0, 1, 0]]
