"""An operator on standardized values agrees with the operator on the values themselves."""

from __future__ import annotations

import torch

from diffusion.operators import JPEG, GaussianBlur, Identity, Standardized, standardized
from tests.operators.conftest import normal


def test_units_of_the_data_are_those_of_the_operator() -> None:
    mean, std, x = 0.4, 0.25, 0.8 * normal(2, 3, 16, 16)
    assert standardized(GaussianBlur(1.0), mean, std) == GaussianBlur(1.0)
    operator = standardized(JPEG(30), mean, std)
    gray = JPEG(30)(torch.full((1, 3, 16, 16), mean).double())
    assert torch.allclose(gray + std * operator(x), JPEG(30)(mean + std * x), rtol=0, atol=1e-12)
    blurred = Standardized(GaussianBlur(1.0), mean, std)
    assert torch.allclose(blurred(x), GaussianBlur(1.0)(x), rtol=0, atol=1e-12), "exactly so for what is linear"
    assert torch.allclose(operator.vjp(x, x), x, rtol=0, atol=1e-12) and operator.linearized(x) == Identity()
