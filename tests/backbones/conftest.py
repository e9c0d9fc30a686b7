"""A small U-Net and inputs for the tests of backbones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion.backbones.unet import UNet, UNetConfig


def build(inputs: int = 3, classes: int = 0, **options: object) -> UNet:
    """A small U-Net whose zero-initialized layers are random, so that its output depends on everything."""
    torch.manual_seed(0)
    config = UNetConfig(**({"channels": (16, 32, 32), "blocks": 1, "attention": (2,)} | options))
    model = config.build(inputs, inputs, classes, spacing=0.02)
    for parameter in model.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.05)
    return model.eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def log_snrs(batch: int) -> Tensor:
    return torch.linspace(-8, 8, batch)


def rms(x: Tensor) -> float:
    return x.detach().double().square().mean().sqrt().item()


def parameter_gradients(model: UNet, precision: torch.dtype = torch.float32) -> list[Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = model(images(4, 3, 12, 12), log_snrs(4))
    (output.float() * images(4, 3, 12, 12, seed=5)).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]
