"""A seam fades over as many pixels as it is told to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffusion.commands.photographs.feather import blended, ramp
from diffusion.model.restoration import Diagnostics, Restoration
from diffusion.restoration import METHODS

NUMBERS = Diagnostics(METHODS["replacement"], 1, 0, 0.0, 0.0)


def test_the_ramp_is_a_cosine_of_the_distance_to_the_hole() -> None:
    hidden = np.zeros((1, 11, 1), dtype=bool)
    hidden[0, 5] = True
    shares = ramp(hidden, 3)
    assert shares is not None
    expected = [(1 - math.cos(math.pi * (4 - abs(i - 5)) / 4)) / 2 if abs(i - 5) < 4 else 0 for i in range(11)]
    assert shares[0, :, 0].tolist() == pytest.approx(expected, abs=1e-7) and shares[0, 5, 0] == 1
    assert ramp(hidden, 0) is None


@pytest.mark.parametrize("partly", [True, False])
def test_a_share_of_a_restoration_is_shown_and_of_the_image_the_rest(partly: bool) -> None:
    image, samples = torch.rand(3, 4, 5), torch.rand(2, 3, 4, 5)
    blend = torch.zeros(1, 4, 5)
    blend[0, 1:3, 1:4] = torch.tensor([[0.25, 1.0, 0.25]] * 2)
    restored = blend > 0
    if partly:
        part = torch.stack([sample[restored.expand(3, -1, -1)] for sample in samples])
        found = Restoration(part, NUMBERS, image, restored)
    else:
        found = Restoration(samples, NUMBERS)
    expected = samples * blend + image * (1 - blend)
    assert torch.allclose(blended(found, image, blend).samples, expected, atol=1e-6)
    assert torch.allclose(blended(found, image, blend).mean, expected.mean(0), atol=1e-6)
    assert blended(found, image, None) is found
