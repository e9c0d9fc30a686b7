"""LPIPS is the distance that its definition gives; with the weights of its package it gives that package's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffusion.errors import InputError
from diffusion.evaluation import lpips
from diffusion.evaluation.lpips import LAYERS, LPIPS


def random_weights(seed: int) -> dict[str, Tensor]:
    """Weights of the right shapes, drawn at random; those of the layers are not negative."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for number, (name, inputs, outputs, kernel, *_) in enumerate(LAYERS):
        scale = (inputs * kernel * kernel) ** -0.5
        weights[f"{name}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        weights[f"lin{number}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    return weights


def images(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_is_zero_for_equal_images_symmetric_and_by_example() -> None:
    distance = LPIPS(random_weights(0))
    a, b = images(2, 3, 40, 48, seed=1), images(2, 3, 40, 48, seed=2)
    assert distance(a, a).tolist() == [0, 0]
    assert torch.allclose(distance(a, b), distance(b, a)) and (distance(a, b) > 0).all()
    assert torch.allclose(distance(a[1:], b[1:])[0], distance(a, b)[1], rtol=1e-5)
    gray = images(1, 1, 40, 48, seed=3)
    assert torch.allclose(
        distance(gray, a[:1, :1]), distance(gray.expand(-1, 3, -1, -1), a[:1, :1].expand(-1, 3, -1, -1))
    )


def test_of_features_that_are_constants_it_is_known_in_closed_form() -> None:
    """Without weights of convolutions the features are the biases, which do not depend on the image. With weights of
    the first layer alone, and constant images, the first features are max(0, w·c + b) away from the border: the layer
    is made so that channel 0 sees red and channel 1 is 1, both at every position."""
    weights = {key: torch.zeros_like(value) for key, value in random_weights(0).items()}
    for number in range(5):
        weights[f"lin{number}.model.1.weight"].fill_(1.0)
    weights["net.slice1.0.weight"][0, 0, 5, 5] = 1.0  # The middle of a kernel, which no border reaches.
    weights["net.slice1.0.bias"][1] = 1.0
    red = [(2 * v - 1 + 0.030) / 0.458 for v in (0.9, 0.7)]
    first, second = (torch.full((1, 3, 64, 64), v) for v in (0.9, 0.7))
    unit = [torch.tensor([r, 1.0]).double() / (r * r + 1) ** 0.5 for r in red]
    expected = float((unit[0] - unit[1]).square().sum())
    assert float(LPIPS(weights)(first, second)) == pytest.approx(expected, rel=1e-5)


def test_weights_are_read_and_wrong_ones_are_named(tmp_path: Path) -> None:
    weights = random_weights(0)
    save_file(weights, tmp_path / "lpips.safetensors")
    a, b = images(1, 3, 32, 32, seed=1), images(1, 3, 32, 32, seed=2)
    assert torch.equal(lpips.load(tmp_path / "lpips.safetensors")(a, b), LPIPS(weights)(a, b))
    del weights["lin3.model.1.weight"]
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match=r"lin3\.model\.1\.weight: must be of the shape .* got None"):
        lpips.load(tmp_path / "less.safetensors")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match=r"--lpips: .*text is not a safetensors file"):
        lpips.load(tmp_path / "text")
    with pytest.raises(InputError, match="LPIPS: must be of images of at least 32x32 pixels"):
        LPIPS(random_weights(0))(a[..., :20], b[..., :20])
