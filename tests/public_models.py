"""Tiny models of diffusers with random weights, saved as it saves them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, SchedulerMixin, UNet2DModel

SIDE = 8


def network(seed: int = 0, **options: object) -> UNet2DModel:
    """Returns a network of two levels, the second with attention. All of its weights are random, and so its output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = UNet2DModel(
            **{
                "sample_size": SIDE,
                "block_out_channels": (8, 16),
                "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "attention_head_dim": 4,
                **options,
            }
        )
    return made.eval()


def pipeline(folder: Path, scheduler: SchedulerMixin | None = None, seed: int = 0, **options: object) -> Path:
    """Saves a pipeline, its network in a folder of its own, and returns the folder."""
    DDPMPipeline(network(seed, **options), scheduler or DDPMScheduler()).save_pretrained(folder)
    return folder


def flat(folder: Path, made: Path) -> Path:
    """Copies a pipeline into one folder without others, as those of google/ddpm-* are, and returns the folder."""
    folder.mkdir()
    for path in (made / "model_index.json", *(made / "unet").iterdir(), *(made / "scheduler").iterdir()):
        shutil.copy(path, folder / path.name)
    return folder


def change(path: Path, **values: object) -> None:
    """Writes values into a JSON file; those that are ... are taken out."""
    found = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))
