"""Tiny models of this package with random weights."""

from __future__ import annotations

from typing import Any

import torch

from diffusion import config
from diffusion.data import DataSpec
from diffusion.model.loading import assemble, build
from diffusion.model.model import Model

SIDE = 16
# Images of diffusers' units, and of those that are measured on data.
CENTERED = DataSpec((3, SIDE, SIDE), 256, (), 127.5, 127.5)
MEASURED = DataSpec((3, SIDE, SIDE), 256, (), 120.0, 60.0)
UNET2D: dict[str, Any] = {
    "name": "unet2d",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
UNET: dict[str, Any] = {"name": "unet", "channels": [8, 16], "blocks": 1, "attention": [1]}


def made(spec: DataSpec, backbone: dict[str, Any], **sections: dict[str, Any]) -> Model:
    """Returns a model in float32 on the CPU. All of its weights are random, and so its output."""
    experiment = config.from_dict({"sampling": {"precision": "fp32"}, "backbone": backbone, **sections})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(experiment, spec).eval().requires_grad_(False)
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return Model(assemble(experiment, network), spec, experiment)


def discrete(spec: DataSpec = CENTERED, backbone: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Model:
    """Returns a model of the network of diffusers and of its usual process, which predicts the noise."""
    usual: dict[str, dict[str, Any]] = {"schedule": {"name": "discrete"}, "parameterization": {"name": "eps"}}
    return made(spec, {**UNET2D, **(backbone or {})}, **{**usual, **sections})
