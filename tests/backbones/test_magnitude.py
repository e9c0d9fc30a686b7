"""Layers keep the mean square of their input, and their weights have unit norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion.backbones.magnitude import (
    RESIDUAL_SCALE,
    RESIDUAL_WEIGHT,
    SHORTCUT_SCALE,
    SILU_SCALE,
    Block,
    Head,
    Join,
    UnitConv,
    ZeroConv,
)
from tests.backbones.conftest import images, rms


def test_scales_are_those_of_their_definitions() -> None:
    z = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    power = float((F.silu(z).square() * density).sum() * (z[1] - z[0]))
    assert SILU_SCALE**2 * power == pytest.approx(1, rel=1e-5)
    assert pytest.approx(1, rel=1e-12) == RESIDUAL_SCALE**2 + SHORTCUT_SCALE**2
    assert pytest.approx(RESIDUAL_WEIGHT / (1 - RESIDUAL_WEIGHT), rel=1e-12) == RESIDUAL_SCALE / SHORTCUT_SCALE


@pytest.mark.parametrize(("inputs", "kernel"), [(64, 0), (48, 1), (32, 3)])
def test_a_layer_of_unit_norm_keeps_the_mean_square_of_independent_inputs(inputs: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = UnitConv(inputs, 96, kernel)
    x = images(*(2000, inputs) if kernel == 0 else (4, inputs, 40, 40))
    y = layer(x)
    y = y if kernel == 0 else y[..., 1:-1, 1:-1]  # Zeros beyond the border have no mean square.
    assert rms(y) == pytest.approx(1, abs=0.03)
    norms = (layer.weight * layer.scale).flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(96), rtol=1e-5)
    assert UnitConv(inputs, 96, kernel, scale=0.3).scale == pytest.approx(0.3 * layer.scale, rel=1e-12)


def test_projection_keeps_the_direction_of_each_output_channel() -> None:
    torch.manual_seed(0)
    layer = UnitConv(5, 7, 3)
    drawn = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(torch.linspace(0.2, 4, 7)[:, None, None, None])
    layer.project_()
    assert torch.allclose(layer.weight, drawn, rtol=1e-5) and layer.weight.requires_grad


def test_a_zero_initialized_layer_is_zero_and_moves() -> None:
    layer, x = ZeroConv(4, 3, 3), images(2, 4, 5, 5)
    assert not layer(x).any()
    layer(x).sum().backward()
    assert layer.weight.grad.abs().min() > 0 and not hasattr(layer, "project_")


@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("inputs", [64, 32])
def test_a_block_keeps_the_mean_square(inputs: int, heads: int) -> None:
    torch.manual_seed(0)
    block = Block(inputs, 64, 16, heads=heads)
    assert isinstance(block.shortcut, nn.Identity) == (inputs == 64)
    y = block(5 * images(4, inputs, 24, 24), images(4, 16, seed=2))
    assert y.shape == (4, 64, 24, 24) and rms(y) == pytest.approx(1, abs=0.1)


def test_a_block_is_mostly_its_shortcut() -> None:
    torch.manual_seed(0)
    block, x = Block(64, 64, 16), images(4, 64, 24, 24)
    y = block(x, images(4, 16, seed=2))
    correlation = float((x * y).detach().mean() / (rms(x) * rms(y)))
    assert correlation == pytest.approx(SHORTCUT_SCALE, abs=0.05)


@pytest.mark.parametrize("coarser", [True, False])
def test_a_join_adds_both_at_half_the_power(coarser: bool) -> None:
    torch.manual_seed(0)
    join, skip = Join(48, 64), images(4, 64, 24, 24)
    x = images(4, 48, *((12, 12) if coarser else (24, 24)), seed=2)
    y = join(x, skip)
    assert y.shape == skip.shape and rms(y) == pytest.approx(1, abs=0.03)
    assert float((y * skip).detach().mean()) == pytest.approx(0.5**0.5, abs=0.03)
    assert rms(join(x, torch.zeros_like(skip))) == pytest.approx(0.5**0.5, abs=0.03)


def test_a_new_head_is_zero() -> None:
    assert not Head(8, 3)(images(2, 8, 4, 4)).any()
