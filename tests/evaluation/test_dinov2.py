"""The transformer against that of torchvision, into whose weights the learned scales are multiplied."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from diffusion.errors import InputError
from diffusion.evaluation.dinov2 import MEAN, SIDE, STD, Dinov2

WIDTH, DEPTH, GRID = 128, 2, 16


def random_weights(seed: int, *, width: int = WIDTH, depth: int = DEPTH, grid: int = GRID) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {key: value.shape for key, value in Dinov2(width, depth, grid).state_dict().items()}
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def loaded(weights: dict[str, Tensor]) -> Dinov2:
    network = Dinov2.of(weights, "weights")
    network.load_state_dict(weights)
    return network.double().eval()


def torchvisions(weights: dict[str, Tensor]) -> VisionTransformer:
    """The transformer of torchvision with the same weights; it has no scales of channels after a layer."""
    names = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
        "attn.proj": "self_attention.out_proj",
    }
    found = {
        "class_token": weights["cls_token"],
        "encoder.pos_embedding": weights["pos_embed"],
        **{f"conv_proj.{part}": weights[f"patch_embed.proj.{part}"] for part in ("weight", "bias")},
        **{f"encoder.ln.{part}": weights[f"norm.{part}"] for part in ("weight", "bias")},
    }
    for block in range(DEPTH):
        for part in ("weight", "bias"):
            here, there = f"blocks.{block}", f"encoder.layers.encoder_layer_{block}"
            found[f"{there}.self_attention.in_proj_{part}"] = weights[f"{here}.attn.qkv.{part}"]
            for ours, theirs in names.items():
                scale = {"attn.proj": "ls1", "mlp.fc2": "ls2"}.get(ours)
                value = weights[f"{here}.{ours}.{part}"]
                if scale:
                    gamma = weights[f"{here}.{scale}.gamma"]
                    value = gamma[:, None] * value if part == "weight" else gamma * value
                found[f"{there}.{theirs}.{part}"] = value
    network = VisionTransformer(SIDE, 14, DEPTH, WIDTH // 64, WIDTH, 4 * WIDTH)
    network.heads = torch.nn.Identity()
    network.load_state_dict(found)
    return network.double().eval()


def test_features_are_those_of_a_transformer_of_torchvision() -> None:
    weights = random_weights(0)
    images = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        expected = torchvisions(weights)((images.double() / 255 - mean) / std)
        found = loaded(weights).float()(images).double()
    assert float(expected.std()) > 0.1
    assert float((found - expected).abs().max()) < 1e-4


def test_positions_are_interpolated_at_the_middles_of_patches() -> None:
    """Of a straight line, which cubic interpolation keeps to 1/20, patch i is at (i + 1/2) 37/16.1 - 1/2; the last
    would be off by 0.2 with 37/16.
    """
    weights = random_weights(0, grid=37)
    rows = torch.arange(37.0)[:, None].expand(37, 37)
    weights["pos_embed"][0, 1:, 0] = rows.flatten()
    weights["pos_embed"][0, 1:, 1] = rows.T.flatten()
    positions = loaded(weights).positions(16).detach()[0, 1:, :2].reshape(16, 16, 2)
    expected = (torch.arange(16, dtype=torch.float64) + 0.5) * 37 / 16.1 - 0.5
    inner = slice(1, 15)
    assert float((positions[inner, inner, 0] - expected[inner, None]).abs().max()) < 0.05
    assert float((positions[inner, inner, 1] - expected[None, inner]).abs().max()) < 0.05


def test_images_of_any_size_are_resized_with_a_filter() -> None:
    """A fine pattern that averages to gray has the features of gray when it is made smaller."""
    network = loaded(random_weights(0)).float()
    fine = (torch.arange(8 * SIDE) % 2 * 200).to(torch.uint8).expand(1, 3, 8 * SIDE, 8 * SIDE)
    gray = torch.full((1, 3, 30, 50), 100, dtype=torch.uint8)
    with torch.no_grad():
        difference = network(fine) - network(gray)
    assert float(difference.abs().max()) < 0.02 * float(network(gray).abs().max())


@pytest.mark.parametrize("lost", ["cls_token", "pos_embed", "blocks"])
def test_weights_of_another_network_are_refused(lost: str) -> None:
    weights = {key: value for key, value in random_weights(0).items() if not key.startswith(lost)}
    with pytest.raises(InputError, match="weights: must be weights of DINOv2 S, B or L without registers"):
        Dinov2.of(weights, "weights")


def test_a_position_of_no_square_is_refused() -> None:
    weights = random_weights(0)
    weights["pos_embed"] = F.pad(weights["pos_embed"], (0, 0, 0, 1))
    with pytest.raises(InputError, match="2 blocks of 128 channels and 257 positions"):
        Dinov2.of(weights, "weights")
