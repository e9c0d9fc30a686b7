"""What the comments of the shipped configurations say of their networks is what their shapes come to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks import shapes
from diffusion import config, shipped
from diffusion.backbones import Backbone, UNetConfig
from diffusion.backbones.unet import heads

CONFIGS = {
    name: path for name, path in shipped.configurations().items() if isinstance(config.load(path).backbone, UNetConfig)
}
# Head dimensions that the fused attention of GPUs takes without padding.
HEADS = (32, 64, 96, 128)
ON_GPU = ("cifar10", "folder64", "folder128", "folder256", "dead_leaves", "texture")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_comment_of_a_configuration_has_the_work_of_its_network(name: str) -> None:
    experiment = config.load(CONFIGS[name])
    said = " ".join(line.removeprefix("# ") for line in CONFIGS[name].read_text().splitlines() if line.startswith("# "))
    forward = shapes.forward(experiment)
    counted = shapes.Cost(0, forward, 0)
    assert f"{shapes.quantity(forward / 1e9)} GFLOP per image forward, " in said
    assert f" {shapes.quantity(counted.training / 1e9)} in training, which keeps " in said


def test_the_whole_comment_is_what_the_command_prints() -> None:
    path = CONFIGS["cifar10_likelihood"]
    assert f"{shapes.comment(shapes.cost(config.load(path)))}\n[backbone]\n" in path.read_text()


@pytest.mark.parametrize("name", ON_GPU)
def test_widths_and_heads_fill_the_tiles_of_a_gpu(name: str) -> None:
    network = config.load(CONFIGS[name]).backbone
    assert isinstance(network, UNetConfig)
    assert all(width % 32 == 0 for width in network.channels) and network.channels[0] % 64 == 0
    for stage in network.attention:
        assert network.channels[stage] / heads(network.channels[stage]) in HEADS


class Layer(Backbone):
    """A convolution of 3 to 5 channels, whose backward pass keeps its input."""

    def __init__(self) -> None:
        super().__init__(3, 5, 0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y


def test_a_convolution_keeps_its_input_in_bf16_and_counts_two_for_a_multiply_add(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "_built", lambda experiment: (Layer(), torch.empty(1, 3, 8, 8)))
    found = shapes.cost(config.Config())
    assert found == shapes.Cost(3 * 5 * 9, 2 * 64 * 3 * 5 * 9, 2 * 3 * 64)
    assert found.training == 3 * found.forward and found.state_bytes == 20 * 135


def test_numbers_have_two_digits_and_three_from_a_hundred_on() -> None:
    assert [shapes.quantity(value) for value in (0.0723, 2.04, 9.96, 44.6, 312.4)] == [
        "0.072",
        "2.0",
        "10",
        "45",
        "312",
    ]
