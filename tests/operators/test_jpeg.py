"""JPEG rounds the coefficients of blocks, and nothing else."""

from __future__ import annotations

import torch

from diffusion.operators import JPEG, Grayscale, compose
from diffusion.operators.jpeg import cosine_transform
from tests.operators.conftest import normal


def test_jpeg_rounds_coefficients_to_multiples_and_a_second_time_changes_nothing() -> None:
    x = 0.5 + 0.15 * normal(2, 3, 16, 24)
    for quality in (10, 50, 95):
        once = JPEG(quality)(x)
        assert torch.allclose(JPEG(quality)(once), once, rtol=0, atol=1e-6)
        assert not torch.allclose(once, x, rtol=0, atol=1e-3)
    errors = [float((JPEG(quality)(x) - x).square().mean()) for quality in (5, 25, 75, 100)]
    assert errors == sorted(errors, reverse=True)
    gray = JPEG(50)(x[:, :1])
    cosines = cosine_transform()
    coefficients = cosines @ (255 * gray[0, 0, :8, 8:16] - 128) @ cosines.mT
    assert torch.allclose(coefficients / JPEG(50).steps[0], (coefficients / JPEG(50).steps[0]).round(), atol=1e-9)
    assert torch.allclose(cosines @ cosines.mT, torch.eye(8, dtype=torch.float64), atol=1e-14)


def test_jpeg_of_other_sides_and_its_derivative() -> None:
    x = 0.5 + 0.15 * normal(1, 3, 11, 13)
    assert JPEG(20)(x).shape == x.shape
    assert torch.allclose(JPEG(20).vjp(x, x), x, rtol=0, atol=1e-12)
    chain = compose(JPEG(20), Grayscale())
    v = normal(1, 1, 11, 13, seed=1)
    assert torch.allclose(chain.vjp(x, v), Grayscale().adjoint(v, x), rtol=0, atol=1e-12), "rounding comes last"
