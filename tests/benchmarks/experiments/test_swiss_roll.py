"""The ceiling of K is what an exact network reaches, and more steps bring it to the entropy."""

from __future__ import annotations

import torch

from benchmarks.swiss_roll import ceiling, even
from diffusion.data import SwissRoll


def test_the_table_is_even_between_its_ends() -> None:
    table = even(5, (-3.0, 13.0)).table
    assert torch.allclose(table, torch.tensor([13.0, 9.0, 5.0, 1.0, -3.0], dtype=torch.float64), atol=1e-9)


def test_the_ceiling_rises_to_the_entropy_with_the_steps_and_never_passes_it() -> None:
    roll = SwissRoll(noise=0.3)
    x = roll.sample(600, torch.Generator().manual_seed(0))
    entropy = float(-roll.log_density(x).mean())
    found = [float(ceiling(roll, even(n + 1, (-8.0, 12.0)), n, x).mean()) for n in (10, 40, 160)]
    assert found[0] > found[1] + 0.2 > found[2] + 0.2
    assert entropy - 0.05 < found[2] < entropy + 0.15
