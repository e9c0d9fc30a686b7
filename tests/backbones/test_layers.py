"""Layers of the U-Nets against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffusion.backbones.layers import attend, downsample, modulated, pixel_norm, unit_norm, upsample, zero
from tests.backbones.conftest import images


def attention_by_definition(qkv: Tensor, heads: int, *, normalize: bool) -> Tensor:
    batch, width, rows, columns = qkv.shape
    whole = qkv.reshape(batch, 3, heads, width // 3 // heads, rows * columns)
    if normalize:
        whole = (whole - whole.mean(3, keepdim=True)) / (whole.var(3, correction=0, keepdim=True) + 1e-5).sqrt()
    q, k, v = whole.unbind(1)
    weight = (torch.einsum("bhci,bhcj->bhij", q, k) / q.shape[2] ** 0.5).softmax(-1)
    return torch.einsum("bhij,bhcj->bhci", weight, v).reshape(batch, width // 3, rows, columns)


@pytest.mark.parametrize("normalize", [False, True])
def test_attention_is_that_of_its_definition(normalize: bool) -> None:
    qkv = images(2, 3 * 8, 3, 5).double().contiguous(memory_format=torch.channels_last)
    expected = attention_by_definition(qkv, 2, normalize=normalize)
    found = attend(qkv, 2, normalize=normalize)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_downsampling_takes_means_and_upsampling_repeats() -> None:
    x = torch.arange(8.0).reshape(1, 1, 2, 4)
    assert downsample(x).flatten().tolist() == [2.5, 4.5]
    assert upsample(torch.tensor([[[[1.0, 2.0]]]])).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]
    y = images(2, 3, 4, 6)
    assert torch.equal(downsample(upsample(y)), y)


def test_norms_give_mean_zero_and_unit_mean_square() -> None:
    x = 3 + 5 * images(2, 64, 3, 5).double().contiguous(memory_format=torch.channels_last)
    last, channels = unit_norm(x.movedim(1, -1)), pixel_norm(x)
    assert torch.equal(last.movedim(-1, 1), channels) and channels.shape == x.shape
    assert channels.mean(1).abs().max() < 1e-12
    assert torch.allclose(channels.square().mean(1), torch.ones(2, 3, 5, dtype=torch.float64), rtol=1e-5)
    expected = (x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)
    assert torch.allclose(channels, expected, rtol=0, atol=1e-5)
    assert channels.is_contiguous(memory_format=torch.channels_last)


def test_norms_keep_the_precision_of_their_input_within_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for precision in (torch.bfloat16, torch.float32):
            assert unit_norm(images(2, 8).to(precision)).dtype == precision


def test_zero_sets_weights_and_biases_to_zero() -> None:
    layer = nn.Linear(3, 2)
    assert zero(layer) is layer and not layer.weight.any() and not layer.bias.any()


def test_a_modulation_by_pixel_lies_between_two() -> None:
    y, scale, shift = images(2, 3, 4, 4).double(), images(4, 3, seed=1).double(), images(4, 3, seed=2).double()
    share = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for i in range(2):
        for row in range(4):
            first, second = (scale[i + part] for part in (0, 2))
            at = share[i, 0, row, 1]
            expected = y[i, :, row, 1] * (first + at * (second - first))
            assert (modulated(y, scale, share)[i, :, row, 1] - expected).abs().max() < 1e-14
            moved = expected + shift[i] + at * (shift[i + 2] - shift[i])
            assert (modulated(y, scale, share, shift)[i, :, row, 1] - moved).abs().max() < 1e-14
    whole = y * scale[:2, :, None, None]
    assert torch.equal(modulated(y, scale[:2], None), whole)
    assert torch.equal(modulated(y, scale, torch.zeros(2, 1, 4, 4, dtype=torch.float64)), whole)


def test_a_modulation_by_pixel_keeps_the_layout_of_activations() -> None:
    y = torch.randn(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    scale, shift, share = torch.randn(4, 8), torch.randn(4, 8), torch.rand(2, 1, 4, 6)
    assert modulated(y, scale, share, shift).is_contiguous(memory_format=torch.channels_last)
    # A product with a number for each example takes the layout of its other factor, and so shows that of the scales.
    assert modulated(y[:, :1, :1, :1], scale, share).is_contiguous(memory_format=torch.channels_last)
