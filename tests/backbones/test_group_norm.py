"""The block of ADM against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusion.backbones.group_norm import Block, Head, Join, norm
from diffusion.backbones.layers import attend
from tests.backbones.conftest import images


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (48, 16), (24, 8), (12, 4), (6, 2), (7, 1)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert norm(channels).num_groups == groups


@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("inputs", [8, 16])
def test_a_new_block_is_its_shortcut(inputs: int, heads: int) -> None:
    torch.manual_seed(0)
    block, x = Block(inputs, 16, 12, heads=heads), images(2, inputs, 4, 6)
    assert isinstance(block.shortcut, nn.Identity) == (inputs == 16)
    assert torch.equal(block(x, images(2, 12, seed=2)), block.shortcut(x))


def test_a_block_is_that_of_its_definition() -> None:
    torch.manual_seed(0)
    block = Block(8, 16, 12, heads=2).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, embedding = images(2, 8, 4, 6).double(), images(2, 12, seed=2).double()
    scale, shift = (z[:, :, None, None] for z in block.modulation(embedding).split(16, dim=1))
    y = F.group_norm(block.first(F.silu(block.norm_first(x))), 16, block.norm_second.weight, block.norm_second.bias)
    z = block.shortcut(x) + block.second(F.silu(y * (1 + scale) + shift))
    z = z + block.proj_out(attend(block.qkv(block.norm_attention(z)), 2, normalize=False))
    assert torch.allclose(block(x, embedding), z, rtol=1e-12, atol=1e-12)


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    block, x, embedding = Block(8, 8, 4, dropout=0.5), images(2, 8, 4, 4), images(2, 4)
    nn.init.normal_(block.second.weight)
    assert not torch.equal(block(x, embedding), block(x, embedding))
    block.eval()
    assert torch.equal(block(x, embedding), block(x, embedding))


def test_a_join_adds_the_upsampled_and_the_skip() -> None:
    torch.manual_seed(0)
    join, skip = Join(8, 4), images(2, 4, 4, 6)
    coarse, same = images(2, 8, 2, 3), images(2, 8, 4, 6)
    assert torch.allclose(join(coarse, skip)[..., 1, 3], skip[..., 1, 3] + join.up(coarse)[..., 0, 1], atol=1e-6)
    assert torch.allclose(join(same, skip), skip + join.up(same), atol=1e-6)


def test_a_new_head_is_zero() -> None:
    assert not Head(8, 3)(images(2, 8, 4, 4)).any()
