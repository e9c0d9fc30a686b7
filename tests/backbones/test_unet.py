"""The U-Net keeps the scale of signals through depth, keeps content in place, and accepts any image."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones.unet import DESIGNS, UNetConfig
from tests.backbones.conftest import build, images, log_snrs, parameter_gradients, rms

BOTH = pytest.mark.parametrize("design", DESIGNS)


@dataclass
class Trace:
    """Root mean squares of the output of each block, and of the gradient there when a random one enters at the head."""

    signals: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    channels_last: bool = True


def trace(design: str, blocks: int) -> Trace:
    torch.manual_seed(0)
    model = UNetConfig(channels=(32, 64), blocks=blocks, attention=(1,), design=design).build(3, 3)
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    for block in model.modules():
        if isinstance(block, DESIGNS[design].Block):
            block.register_forward_hook(keep)
    features: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    model(images(2, 3, 16, 16), log_snrs(2))
    features[0].backward(images(*features[0].shape, seed=2))
    return Trace(
        [rms(z) for z in outputs],
        [rms(z.grad) for z in outputs],
        all(z.is_contiguous(memory_format=torch.channels_last) for z in outputs),
    )


@pytest.mark.parametrize("blocks", [2, 20])
def test_depth_keeps_the_scale_of_signals(blocks: int) -> None:
    found = trace("magnitude", blocks)
    # Measured: 0.90 to 1.02 over 9 blocks, 0.87 to 1.09 over 81.
    assert min(found.signals) > 0.8 and max(found.signals) < 1.25
    assert found.signals[-1] / found.signals[0] == pytest.approx(1, abs=0.1)
    assert found.channels_last


@pytest.mark.parametrize(("blocks", "least"), [(2, 0.7), (20, 0.5)])
def test_depth_keeps_the_scale_of_gradients(blocks: int, least: float) -> None:
    found = trace("magnitude", blocks)
    # Measured: 0.75 to 1.04 over 9 blocks; 0.54 to 1.03 over 81, least in the middle, where two paths share it.
    assert min(found.gradients) > least and max(found.gradients) < 1.2
    assert found.gradients[0] / found.gradients[-1] == pytest.approx(1, abs=0.4)


def test_group_norm_starts_as_its_shortcuts_and_stays_channels_last() -> None:
    found = trace("group_norm", 2)
    assert min(found.signals) > 0.05 and max(found.signals) < 1
    assert found.channels_last


@BOTH
def test_a_new_network_predicts_zero(design: str) -> None:
    model = UNetConfig(channels=(16, 32), attention=(), design=design).build(3, 6)
    output = model(images(2, 3, 8, 8), log_snrs(2))
    assert output.shape == (2, 6, 8, 8) and not output.any()


@BOTH
@pytest.mark.parametrize("size", [(7, 5), (28, 28), (12, 20), (1, 1)], ids=str)
@pytest.mark.parametrize(("patch", "fourier"), [(1, 0), (2, 0), (2, 2)])
def test_any_size_is_as_if_its_border_were_repeated(
    design: str, size: tuple[int, int], patch: int, fourier: int
) -> None:
    model, x = build(design=design, patch=patch, fourier=fourier), images(2, 3, *size)
    unit = 4 * patch
    height, width = (-(-n // unit) * unit for n in size)
    padded = F.pad(x, (0, width - size[1], 0, height - size[0]), mode="replicate")
    with torch.no_grad():
        output, whole = model(x, log_snrs(2)), model(padded, log_snrs(2))
    assert output.shape == x.shape
    assert torch.allclose(output, whole[..., : size[0], : size[1]], rtol=1e-5, atol=1e-6)
    assert output.std() > 1e-3


@BOTH
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("patch", [1, 2])
def test_content_stays_in_place(design: str, channels: int, patch: int) -> None:
    """A change of one pixel of a non-square image changes the output most around it: no axis is swapped or shuffled."""
    model, x = build(channels, design=design, patch=patch, attention=()), images(1, channels, 24, 40)
    for row, column in [(3, 30), (19, 8)]:
        moved = x.clone()
        moved[..., row, column] += 3
        with torch.no_grad():
            change = (model(moved, log_snrs(1)) - model(x, log_snrs(1))).square().sum((0, 1))
        peak = divmod(int(change.argmax()), 40)
        assert abs(peak[0] - row) <= 5 and abs(peak[1] - column) <= 5


@BOTH
def test_examples_do_not_mix(design: str) -> None:
    model, x = build(design=design, classes=3), images(4, 3, 8, 12)
    label = torch.tensor([0, 1, 2, -1])
    with torch.no_grad():
        whole = model(x, log_snrs(4), label)
        for i in range(4):
            alone = model(x[i : i + 1], log_snrs(4)[i : i + 1], label[i : i + 1])
            assert torch.allclose(alone[0], whole[i], rtol=1e-4, atol=1e-5)


@BOTH
def test_labels_and_noise_levels_change_the_output_and_minus_one_is_no_label(design: str) -> None:
    model, x = build(design=design, classes=3), images(1, 3, 8, 8).expand(4, -1, -1, -1)
    same = torch.zeros(4)
    with torch.no_grad():
        labeled = model(x, same, torch.tensor([0, 1, 2, -1]))
        plain = model(x, same)
        other = model(x, same + 1)
    assert torch.allclose(labeled[3], plain[3], rtol=1e-5, atol=1e-6)
    distances = torch.cdist(labeled.flatten(1), labeled.flatten(1)) / labeled.flatten(1).norm(dim=1).mean()
    assert (distances + torch.eye(4)).min() > 1e-2, "four different outputs"
    assert (other - plain).norm() > 1e-2 * plain.norm()


@BOTH
def test_gradients_are_those_of_finite_differences(design: str) -> None:
    model = build(1, design=design, channels=(4, 6), attention=(1,)).double()
    x, log_snr = (
        images(1, 1, 4, 4).double().requires_grad_(),
        torch.tensor([0.7], dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda *inputs: model(*inputs), (x, log_snr), eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": (3,)}, "attention: must be stages from 0 to 2, got (3,)"),
        ({"design": "plain"}, "design: must be one of magnitude, group_norm, got 'plain'"),
        ({"channels": (32, 64, 224)}, "channels: must be divided by the number of heads"),
        ({"channels": ()}, "channels: must be one to 12 widths of 2 to 16384, got ()"),
        ({"blocks": 0}, "blocks: must be 1 to 64, got 0"),
        ({"patch": 0}, "patch: must be 1 to 64, got 0"),
        ({"fourier": -1}, "fourier: must be 0 to 12, got -1"),
        ({"fourier": 13}, "fourier: must be 0 to 12, got 13"),
        ({"dropout": 1.0}, "dropout: must be in [0, 1), got 1.0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        UNetConfig(**options)


@pytest.mark.parametrize(("design", "error"), [("magnitude", 0.015), ("group_norm", 0.12)])
def test_bf16_keeps_outputs_and_gradients(design: str, error: float) -> None:
    """bf16 has 8 bits: a relative rounding error of 2^-9 per operation, which adds up over some tens of layers.

    Measured, of outputs and of gradients: 0.012 and 0.011 for magnitude, 0.019 and 0.079 for group_norm.
    """
    model = build(design=design, blocks=2)
    x, log_snr = images(8, 3, 16, 16), log_snrs(8)
    with torch.no_grad():
        exact = model(x, log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(x, log_snr).float()
    output_error = (rounded - exact).norm() / exact.norm()
    both = [torch.cat([g.flatten() for g in parameter_gradients(model, p)]) for p in (torch.float32, torch.bfloat16)]
    gradient_error = (both[1] - both[0]).norm() / both[0].norm()
    assert 1e-4 < output_error < error and 1e-4 < gradient_error < error


def mapped(design: str, patch: int = 1) -> nn.Module:
    """A network with random weights in all layers, those that begin at zero too."""
    torch.manual_seed(2)
    config = UNetConfig(channels=(8, 16), blocks=1, attention=(1,), design=design, patch=patch)
    network = config.build(3, 3, mapped=True)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    return network.double()


@BOTH
@pytest.mark.parametrize("patch", [1, 2])
def test_a_map_of_one_log_snr_is_that_log_snr(design: str, patch: int) -> None:
    network, x, log_snr = mapped(design, patch), images(2, 3, 6, 9).double(), log_snrs(2).double()
    uniform = log_snr.reshape(2, 1, 1, 1).expand(2, 1, 6, 9)
    assert (network(x, log_snr) - network(x, log_snr, None, uniform)).abs().max() < 1e-12


@BOTH
def test_pixels_far_away_do_not_depend_on_the_level_of_one(design: str) -> None:
    """The levels of pixels act where they are: without attention and normalization over the image, nowhere else."""
    torch.manual_seed(2)
    network = UNetConfig(channels=(8,), blocks=1, attention=(), design=design).build(1, 1, mapped=True).double()
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn_like(value))
    x, log_snr = images(1, 1, 32, 32).double(), torch.zeros(1, dtype=torch.float64)
    level = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    level[..., -1, -1] = 8.0  # The cleanest pixel, in both maps.
    other = level.clone()
    other[..., 0, 0] = 8.0
    changed = (network(x, log_snr, None, level) - network(x, log_snr, None, other)).abs()[0, 0]
    assert changed[0, 0] > 1e-3
    if design == "magnitude":  # Group normalization goes over the whole image.
        assert changed[16:, 16:].max() < 1e-12


def test_the_share_of_a_pixel_is_how_far_its_log_snr_is_from_the_trajectory_to_the_cleanest() -> None:
    network = UNetConfig(channels=(8,), blocks=1, attention=()).build(1, 1, mapped=True)
    level = torch.tensor([[[[-2.0, 4.0], [1.0, -9.0]]], [[[3.0, 3.0], [3.0, 3.0]]]])
    log_snr = torch.tensor([-2.0, 3.0])
    embedding, share = network.embedded(log_snr, network.one_hot(None, 2, log_snr), level)
    assert share is not None and share.flatten(1).tolist() == [[0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]
    plain, _ = network.embedded(torch.tensor([-2.0, 3.0, 4.0, 3.0]), network.one_hot(None, 4, log_snr), None)
    assert torch.equal(embedding, plain)
