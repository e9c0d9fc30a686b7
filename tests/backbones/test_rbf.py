"""The radial basis network shares its hidden layer over the steps of a discrete diffusion, and nothing else."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from diffusion.backbones.rbf import RBF, RBFConfig
from diffusion.schedules import DiscreteBetas

STEPS = 40


def build(units: int = 16) -> RBF:
    torch.manual_seed(0)
    model = RBFConfig(units=units, steps=STEPS).build(2, 4)
    nn.init.normal_(model.weights)
    return model


def points(n: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("first", [1e-2, 1e-3, 1e-6])
def test_every_step_that_erases_an_equal_share_has_an_output_layer_of_its_own(first: float) -> None:
    betas = (first, *(1 / (STEPS - i + 1) for i in range(2, STEPS)), 1 - 1e-5)
    log_snr = DiscreteBetas(betas=betas).table
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(build().step(log_snr.to(dtype)), torch.arange(STEPS))


def test_with_a_span_the_output_layers_are_even_in_log_snr() -> None:
    model = RBFConfig(steps=5, span=(-3.0, 13.0)).build(2, 4)
    assert model.step(torch.tensor([20.0, 13.0, 9.0, 6.9, -3.0, -9.0])).tolist() == [0, 0, 1, 2, 4, 4]


def test_a_step_trains_the_hidden_layer_and_its_own_output_layer() -> None:
    model, log_snr = build(), DiscreteBetas(betas=tuple(1 / (STEPS - i + 2) for i in range(1, STEPS + 1))).table
    model(points(8), log_snr[[7]].expand(8).float()).square().sum().backward()
    moved = model.weights.grad.flatten(1).norm(dim=1)
    assert moved.nonzero().flatten().tolist() == model.step(log_snr[[7]]).tolist()
    assert model.centers.grad.abs().min() > 0 and model.log_precisions.grad.abs().min() > 0


def test_the_units_are_normalized() -> None:
    """Equal weights give a constant wherever the point is, and far away the nearest center decides."""
    model = build()
    with torch.no_grad():
        model.weights[:] = torch.arange(4.0)[:, None]
        everywhere = model(100 * points(6), torch.zeros(6))
        assert torch.allclose(everywhere, torch.arange(4.0).expand(6, 4), atol=1e-5)
        nn.init.normal_(model.weights)
        model.log_precisions[:] = 12.0
        near = model(model.centers + 1e-4, torch.zeros(16))
        assert torch.allclose(near, model.weights[model.step(torch.zeros(1))][0].mT, atol=1e-3)


def test_a_new_network_predicts_zero() -> None:
    assert not RBFConfig().build(2, 4)(points(3), torch.zeros(3)).any()


def test_what_it_cannot_be_is_named() -> None:
    for options, message in (
        ({"units": 0}, "units: must be 1 to 1,048,576, got 0"),
        ({"steps": 1}, "steps: must be 2 to 1,048,576, got 1"),
        ({"span": (2.0, 2.0)}, "span: must be an increasing pair of log-SNRs, got (2.0, 2.0)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            RBFConfig(**options)
    with pytest.raises(ValueError, match=re.escape("data.labels = false")):
        RBFConfig().build(2, 4, classes=3)
