"""The blocks compute what they replace, in fewer products, and levels have the layers that they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.backbones import UNet2DConfig, unet2d_blocks
from diffusion.backbones.unet2d_blocks import FEW, Attention, Downsample, Resnet, attention, upsampled
from tests.backbones.conftest import images

LAYERS = replace(UNet2DConfig().layers, embedding=16, norm_num_groups=4, attention_head_dim=8)


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64 with random weights."""
    for number, parameter in enumerate(module.parameters()):
        parameter.data = 0.3 * images(*parameter.shape, seed=number)
    return module.double()


@pytest.mark.parametrize("size", [(8, 8), (9, 11), (3, 5)], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_an_upsampling_convolution_is_one_with_fewer_products(size: tuple[int, int], with_bias: bool) -> None:
    x = images(2, 6, *size).double().requires_grad_()
    weight = images(4, 6, 3, 3, seed=2).double().requires_grad_()
    bias = images(4, seed=3).double() if with_bias else None
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    found = upsampled(x, weight, bias)
    assert (found - expected).abs().max() < 1e-13
    gradient = images(*found.shape, seed=4).double()
    pairs = zip(*(torch.autograd.grad(y, (x, weight), gradient) for y in (found, expected)), strict=True)
    assert all((a - b).abs().max() < 1e-11 for a, b in pairs)


def test_only_large_images_are_upsampled_by_a_transposed_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    real = F.conv_transpose2d

    def noting(x: Tensor, *arguments: object, **options: object) -> Tensor:
        seen.append(tuple(x.shape[2:]))
        return real(x, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "conv_transpose2d", noting)
    for size in ((8, 8), (7, 9)):
        assert (size[0] * size[1] >= FEW) == (size == (8, 8))
        upsampled(images(1, 2, *size), images(2, 2, 3, 3), None)
    assert seen == [(8, 8)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_attention_is_the_mean_of_values_by_the_softmax_of_products(dtype: torch.dtype) -> None:
    q, k, v = (images(2, 3, 7, 5, seed=seed).to(dtype) for seed in (1, 2, 3))
    exact = torch.softmax(q.double() @ k.double().mT / 5**0.5, dim=-1) @ v.double()
    assert (attention(q, k, v) - exact).abs().max() < (1e-14 if dtype == torch.float64 else 0.02)


@pytest.mark.parametrize(("head", "heads"), [(None, 1), (8, 2), (6, 3), (20, 1)])
def test_heads_are_as_wide_as_asked_and_the_rest_of_the_width_has_none(head: int | None, heads: int) -> None:
    """Measured against a loop over the heads; of 20 channels 3 heads of 6 see 18, which are projected onto all."""
    layers = replace(LAYERS, attention_head_dim=head)
    block = drawn(Attention(20, layers, groups=2, scale=1.5))
    assert isinstance(block, Attention) and block.heads == heads and block.group_norm is not None
    x = images(2, 20, 3, 4).double()
    rows = F.group_norm(x, 2, block.group_norm.weight, block.group_norm.bias, 1e-5).flatten(2).mT
    q, k, v = (layer(rows) for layer in (block.to_q, block.to_k, block.to_v))
    width = head or 20
    parts = []
    for start in range(0, heads * width, width):
        a, b, c = (each[..., start : start + width] for each in (q, k, v))
        parts.append((a @ b.mT / width**0.5).softmax(-1) @ c)
    expected = (x + block.to_out[0](torch.cat(parts, dim=-1)).mT.unflatten(2, (3, 4))) / 1.5
    assert (block(x, torch.zeros(2, 16)) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("shift", ["default", "scale_shift"])
@pytest.mark.parametrize("resample", ["", "down", "up"])
def test_a_residual_block_is_the_sum_of_its_branches(shift: str, resample: str) -> None:
    layers = replace(LAYERS, act_fn="gelu", resnet_time_scale_shift=shift)
    block = drawn(Resnet(8, 12, layers, resample=resample, scale=2.0))
    assert isinstance(block, Resnet) and block.conv_shortcut is not None
    x, embedding = images(2, 8, 10, 8).double(), images(2, 16, seed=3).double()
    change = {
        "": lambda y: y,
        "down": lambda y: F.avg_pool2d(y, 2),
        "up": lambda y: F.interpolate(y, scale_factor=2.0, mode="nearest"),
    }[resample]
    y = block.conv1(change(F.gelu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias))))
    told = block.time_emb_proj(embedding)[..., None, None]
    if shift == "default":
        y = F.group_norm(y + told, 4, block.norm2.weight, block.norm2.bias)
    else:
        scale, moved = told.chunk(2, dim=1)
        y = F.group_norm(y, 4, block.norm2.weight, block.norm2.bias) * (1 + scale) + moved
    expected = (block.conv_shortcut(change(x)) + block.conv2(F.gelu(y))) / 2
    last = x.contiguous(memory_format=torch.channels_last)
    for given in (x, last):
        assert (block(given, embedding) - expected).abs().max() < 1e-12
    assert block(last, embedding).is_contiguous(memory_format=torch.channels_last)


def test_dropout_is_between_the_convolutions_and_in_training_only() -> None:
    block = drawn(Resnet(8, 8, replace(LAYERS, dropout=0.5)))
    x, embedding = images(2, 8, 4, 4).double(), torch.zeros(2, 16).double()
    assert torch.equal(block.eval()(x, embedding), block(x, embedding))
    torch.manual_seed(1)
    outputs = torch.stack([block.train()(x, embedding) for _ in range(400)])
    spread = outputs.std(0)
    assert spread.min() > 0.01 and (outputs.mean(0) - block.eval()(x, embedding)).abs().max() < 5 * spread.max() / 20


def test_padding_of_none_is_a_row_and_a_column_of_zeros_at_the_far_ends() -> None:
    layer = drawn(Downsample(3, 0))
    x = images(1, 3, 6, 8).double()
    assert isinstance(layer, Downsample)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.conv.weight, layer.conv.bias, stride=2)
    assert torch.equal(layer(x), expected) and expected.shape == (1, 3, 3, 4)


def test_levels_receive_what_they_should_and_no_more() -> None:
    """The widths of the inputs by hand, of three levels of two blocks, widths 4, 8 and 12."""
    kinds = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
    down = unet2d_blocks.encoder(kinds, (4, 8, 12), LAYERS, 2, residual=True, padding=1)
    up = unet2d_blocks.decoder([k.replace("Down", "Up") for k in kinds], (4, 8, 12), LAYERS, 2, residual=False)
    found = [[block.conv1.in_channels for block in level.resnets] for level in (*down, *up)]
    assert found == [[4, 4], [4, 8], [8, 12], [24, 24, 20], [20, 16, 12], [12, 8, 8]]
    assert [[type(each).__name__ for each in level.downsamplers] for level in down] == [["Downsample"], ["Resnet"], []]
    assert [[type(each).__name__ for each in level.upsamplers] for level in up] == [["Upsample"], ["Upsample"], []]
    assert [len(level.attentions) for level in (*down, *up)] == [0, 2, 0, 0, 3, 0]


def test_the_middle_normalizes_before_attention_as_diffusers_does() -> None:
    scaled = replace(LAYERS, resnet_time_scale_shift="scale_shift")
    for layers, groups, expected in ((LAYERS, None, 4), (LAYERS, 2, 2), (scaled, None, None), (scaled, 2, 2)):
        (block,) = unet2d_blocks.middle(8, layers, attends=True, groups=groups, scale=1.0).attentions
        assert (block.group_norm.num_groups if block.group_norm else None) == expected
    assert not unet2d_blocks.middle(8, LAYERS, attends=False, groups=None, scale=1.0).attentions
