"""What diffusers writes is read as it was meant, and what would change the network silently is refused."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
import torch

from diffusion.backbones import UNet2DConfig
from diffusion.backbones.unet2d_files import from_diffusers, renamed

# The file of google/ddpm-cifar10-32, which is older than half of the options.
OLD: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}


def test_what_a_file_does_not_name_is_the_default_of_diffusers() -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    with torch.device("meta"):
        expected = dict(UNet2DModel().config)
    found = from_diffusers({})
    names = {field.name for field in fields(UNet2DConfig)} & expected.keys()
    for name in names:
        value = expected[name]
        assert getattr(found.config, name) == (tuple(value) if isinstance(value, list) else value), name
    assert (found.in_channels, found.out_channels, found.size) == (3, 3, None)
    assert expected.keys() - names == {
        "sample_size",
        "in_channels",
        "out_channels",
        "_use_default_values",
    }, "diffusers has no option that is not read"


def test_an_old_file_is_read_and_names_what_it_says() -> None:
    found = from_diffusers(OLD)
    config = found.config
    assert (config.norm_eps, config.freq_shift, config.flip_sin_to_cos) == (1e-6, 1, False)
    assert (config.attention_head_dim, config.downsample_padding, config.mid_block_scale_factor) == (None, 0, 1.0)
    assert config.up_block_types[2] == "AttnUpBlock2D" and found.size == (32, 32)
    with torch.device("meta"):
        network = config.build(3, 3)
    # As published: 35.7 M parameters.
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


def test_types_are_made_and_old_spellings_known() -> None:
    more = {
        "sample_size": [16, 24],
        "mid_block_scale_factor": 2,
        "down_block_types": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "downsample_type": None,
        "an_option_of_later": None,
        "another": False,
        "_name_or_path": "somewhere",
    }
    found = from_diffusers(OLD | more, time="edm", steps=40)
    assert found.size == (16, 24) and found.config.down_block_types[:2] == ("DownBlock2D", "AttnDownBlock2D")
    assert isinstance(found.config.mid_block_scale_factor, float) and found.config.downsample_type == "conv"
    assert (found.config.time, found.config.steps) == ("edm", 40)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"_class_name": "UNetModel"}, "_class_name: must be UNet2DModel, the one network of diffusers that is taken"),
        ({"only_cross_attention": True}, "only_cross_attention: is not known, and may change what the network comput"),
        ({"time": "edm"}, "time: is not known"),
        ({"norm_num_groups": None}, "norm_num_groups: must be a whole number, got None"),
        ({"layers_per_block": True}, "layers_per_block: must be a whole number, got True"),
        ({"layers_per_block": 2.0}, "layers_per_block: must be a whole number, got 2.0"),
        ({"flip_sin_to_cos": 1}, "flip_sin_to_cos: must be true or false, got 1"),
        ({"act_fn": ["silu"]}, "act_fn: must be a word, got ['silu']"),
        ({"block_out_channels": 64}, "block_out_channels: must be a list, each a whole number, got 64"),
        ({"block_out_channels": [64, "64"]}, "block_out_channels: must be a whole number, got '64'"),
        ({"block_out_channels": [10**40] * 4}, "block_out_channels: must be 1 to 12 widths of 2 to 16384"),
        ({"mid_block_scale_factor": 10**400}, "mid_block_scale_factor: must be a number, got 1000"),
        ({"norm_eps": float("nan")}, "norm_eps: must be a number, got nan"),
        ({"attention_head_dim": "8"}, "attention_head_dim: must be a whole number or null, got '8'"),
        ({"sample_size": [1, 2, 3]}, "sample_size: must be one or two positive numbers, got (1, 2, 3)"),
        ({"sample_size": 0}, "sample_size: must be one or two positive numbers, got 0"),
        ({"sample_size": "32"}, "sample_size: must be a whole number or a list, each a whole number or null, got '32'"),
        ({"in_channels": 0}, "in_channels, out_channels: must be 1 to 16384, got [0, 3]"),
        ({"down_block_types": ["KDownBlock2D"] * 4}, "down_block_types: must be one of DownBlock2D"),
        ({"up_block_types": [3] * 4}, "up_block_types: must be a word, got 3"),
    ],
)
def test_what_is_not_taken_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        from_diffusers(OLD | more)


def test_tensors_of_old_files_get_their_names_of_today() -> None:
    value = torch.arange(12.0).reshape(4, 3)
    old = {
        "mid_block.attentions.0.query.weight": value[..., None, None],
        "mid_block.attentions.0.proj_attn.bias": value[0],
        "up_blocks.1.attentions.2.key.weight": value,
        "down_blocks.0.attentions.1.value.bias": value[1],
        "down_blocks.0.attentions.1.group_norm.weight": value[2],
        "up_blocks.0.resnets.1.conv_shortcut.weight": value[..., None, None],
        "conv_in.weight": value,
    }
    new = renamed(old)
    assert list(new) == [
        "mid_block.attentions.0.to_q.weight",
        "mid_block.attentions.0.to_out.0.bias",
        "up_blocks.1.attentions.2.to_k.weight",
        "down_blocks.0.attentions.1.to_v.bias",
        "down_blocks.0.attentions.1.group_norm.weight",
        "up_blocks.0.resnets.1.conv_shortcut.weight",
        "conv_in.weight",
    ]
    assert torch.equal(new["mid_block.attentions.0.to_q.weight"], value)
    assert new["up_blocks.0.resnets.1.conv_shortcut.weight"].shape == (4, 3, 1, 1), "a convolution stays one"
    assert {name: tensor.shape for name, tensor in renamed(new).items()} == {n: t.shape for n, t in new.items()}
