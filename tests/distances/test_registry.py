"""All distances by name: frozen with defaults, told apart, and on the side that they say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from diffusion.distances import FEATURE_DISTANCES, IMAGE_DISTANCES

ALL = {**IMAGE_DISTANCES, **FEATURE_DISTANCES}


@pytest.mark.parametrize("name", ALL)
def test_every_distance_is_a_frozen_dataclass_with_defaults(name: str) -> None:
    cls: Any = ALL[name]
    assert dataclasses.is_dataclass(cls)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALL[name]().seed = 1  # type: ignore[attr-defined]
    assert ALL[name]() == ALL[name]() and hash(ALL[name]()) == hash(ALL[name]())


def test_names_are_told_apart() -> None:
    assert len({cls.name for cls in ALL.values()}) == len(ALL)


@pytest.mark.parametrize("name", ALL)
def test_sets_of_another_distribution_are_on_the_side_that_is_not_better(name: str) -> None:
    """Other samples: images half as bright; points far away."""
    generator = torch.Generator().manual_seed(0)
    distance = ALL[name]()
    if name in IMAGE_DISTANCES:
        real, more = torch.rand(2, 40, 1, 8, 8, generator=generator)
        other = more / 2
    else:
        real, more = torch.randn(2, 40, 3, generator=generator)
        other = more + 3
    rows = [distance.describe(x) for x in (real, more, other)]
    alike, unlike = distance(rows[1], rows[0]), distance(rows[2], rows[0])
    assert alike < unlike / 3 if distance.better == "smaller" else alike > 3 * unlike
