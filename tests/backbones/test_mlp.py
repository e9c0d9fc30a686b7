"""The perceptron keeps the scale of signals and gradients through depth, and its parts do what they say."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from diffusion.backbones.magnitude import UnitConv
from diffusion.backbones.mlp import MLP, MLPConfig


def build(classes: int = 0, blocks: int = 3) -> MLP:
    """A small perceptron whose zero-initialized layers are random."""
    torch.manual_seed(0)
    model = MLPConfig(width=32, blocks=blocks).build(2, 2, classes)
    for parameter in model.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.1)
    return model


def points(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def rms(x: Tensor) -> float:
    return x.detach().square().mean().sqrt().item()


@pytest.mark.parametrize("blocks", [4, 40])
def test_depth_keeps_the_scale_of_signals_and_gradients(blocks: int) -> None:
    torch.manual_seed(0)
    model, outputs = MLPConfig(width=128, blocks=blocks).build(2, 2), []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    for block in model.blocks:
        block.register_forward_hook(keep)
    model(points(256), torch.linspace(-8, 8, 256))
    outputs[-1].backward(torch.randn(outputs[-1].shape, generator=torch.Generator().manual_seed(2)))
    signals, gradients = [rms(z) for z in outputs], [rms(z.grad) for z in outputs]
    assert min(signals) > 0.85 and max(signals) < 1.15
    assert 0.7 < gradients[0] / gradients[-1] < 2.0


def test_features_have_unit_scale_and_fade_to_what_noise_leaves_of_them_on_average() -> None:
    model, x = MLPConfig(width=8, octaves=3).build(1, 1), torch.tensor([[0.7]])
    half, clean = torch.zeros(1), torch.full((1,), 40.0)
    faded = model.features(x, half)
    assert rms(faded) == pytest.approx(1, abs=1e-5)
    noisy = x + 0.5**0.5 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    # In multiples of the first feature, the constant, they are as they were before they were scaled.
    many = model.features(noisy, clean.expand(len(noisy)))
    assert torch.allclose((many / many[:, :1]).mean(0), (faded / faded[:, :1])[0], atol=0.015)
    assert not torch.allclose(model.features(x, clean), faded, atol=0.1)


def test_a_new_network_predicts_zero() -> None:
    assert not MLPConfig(width=32).build(2, 4)(points(3), torch.zeros(3)).any()


def test_labels_and_noise_levels_change_the_output_and_minus_one_is_no_label() -> None:
    model, x, same = build(classes=3), points(1).expand(4, 2), torch.zeros(4)
    labeled = model(x, same, torch.tensor([0, 1, 2, -1]))
    assert torch.allclose(labeled[3], model(x, same)[3], rtol=1e-5, atol=1e-6)
    assert (torch.cdist(labeled, labeled) + torch.eye(4)).min() > 1e-3
    assert (model(x, same + 1) - model(x, same)).norm() > 1e-3


def test_projection_takes_back_what_the_optimizer_did_to_the_scale() -> None:
    model, x, log_snr = build(classes=2), points(5), torch.linspace(-5, 5, 5)
    layers = [m for m in model.modules() if isinstance(m, UnitConv)]
    with torch.no_grad():
        before = model(x, log_snr)
        for i, layer in enumerate(layers):
            layer.weight.mul_(0.5 + 0.2 * (i % 9))
        assert (model(x, log_snr) - before).norm() > 0.01 * before.norm()
        model.project_()
        assert (model(x, log_snr) - before).norm() < 1e-5 * before.norm()
    for layer in layers:
        assert torch.allclose(layer.weight.square().mean(1), torch.ones(len(layer.weight)), rtol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    model = build(classes=1).double()
    inputs = (
        points(3).double().requires_grad_(),
        torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda *z: model(*z), inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 7}, "width: must be an even number from 2 to 16384, got 7"),
        ({"blocks": 0}, "blocks: must be 1 to 1024, got 0"),
        ({"octaves": -1}, "octaves: must be 0 to 64, got -1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MLPConfig(**options)
