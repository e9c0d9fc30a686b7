"""The estimate of noise is right where the noise is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffusion.errors import InputError
from diffusion.restoration import noise
from diffusion.restoration.noise import estimate_noise, patches


def scene(channels: int, height: int, width: int) -> Tensor:
    """A scene of slopes, waves and edges in [0.15, 0.85]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = torch.sin(9 * x + 4 * y) + torch.sin(13 * x * y)
    edges = ((x - 0.4).square() + (y - 0.6).square() < 0.05).float() + (x + 2 * y < 0.7).float()
    one = 0.5 + 0.08 * waves + 0.08 * edges
    return torch.stack([one * (1 - 0.1 * c) for c in range(channels)])


def noisy(image: Tensor, sigma: float, seed: int = 0) -> Tensor:
    return image + sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
@pytest.mark.parametrize(
    ("channels", "height", "width", "error"),
    [(1, 64, 64, 0.22), (3, 64, 64, 0.12), (3, 120, 90, 0.06), (5, 90, 120, 0.06)],
)
def test_known_noise_on_a_scene_is_found(channels: int, height: int, width: int, error: float, sigma: float) -> None:
    """The more patches and colors, the nearer."""
    found = estimate_noise(noisy(scene(channels, height, width), sigma))
    assert found == pytest.approx(sigma, rel=error)


@pytest.mark.parametrize("sigma", [1e-4, 0.03, 2.0])
def test_noise_alone_is_its_own_deviation_in_any_units(sigma: float) -> None:
    """Its measured deviation, whose error is that of 49,152 independent values."""
    image = noisy(torch.full((3, 128, 128), 0.5), sigma)
    assert estimate_noise(image) == pytest.approx(float((image - 0.5).std()), rel=0.03)


def test_a_smooth_image_has_no_noise() -> None:
    plane = torch.linspace(0.2, 0.8, 64).expand(1, 64, 64) + torch.linspace(0, 0.1, 64)[:, None]
    assert estimate_noise(plane) < 1e-5


def test_rounding_to_bytes_is_noise_of_a_known_deviation() -> None:
    """It is uniform within half a level: 1/255/√12, beside noise that hides the levels from each other."""
    sigma = 2 / 255
    rounded = (noisy(scene(3, 128, 128), sigma) * 255).round() / 255
    assert estimate_noise(rounded) == pytest.approx((sigma**2 + (1 / 255) ** 2 / 12) ** 0.5, rel=0.06)


def test_clipped_patches_are_left_out_where_others_remain() -> None:
    image = noisy(scene(3, 96, 96), 0.05)
    clipped = image.clone()
    clipped[:, :, :40] = (noisy(torch.ones(3, 96, 40), 0.05, 1)).clamp(0, 1)
    assert estimate_noise(clipped) == pytest.approx(0.05, rel=0.12)
    half = (noisy(torch.ones(3, 96, 96), 0.05)).clamp(0, 1)
    assert 0.02 < estimate_noise(half) < 0.04  # Nothing else is there: σ √(1/2 - 1/2π) = 0.029.


def test_a_small_image_has_smaller_patches_and_a_tiny_one_is_refused() -> None:
    assert estimate_noise(noisy(torch.full((1, 14, 14), 0.5), 0.1)) == pytest.approx(0.1, rel=0.25)
    with pytest.raises(InputError, match=r"noise: cannot be estimated from an image of 9x5 pixels; say with --noise"):
        estimate_noise(torch.rand(3, 5, 9))


def test_a_large_image_is_looked_at_in_evenly_spread_places(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.arange(60.0).reshape(1, 6, 10)
    assert torch.equal(
        patches(image, 2)[[0, 1, -1]], torch.tensor([[0.0, 1, 10, 11], [1, 2, 11, 12], [48, 49, 58, 59]])
    )
    monkeypatch.setattr(noise, "MOST_PATCHES", 16)
    assert torch.equal(patches(image, 2)[:, 0], torch.tensor([0.0, 2, 4, 6, 8, 20, 22, 24, 26, 28, 40, 42, 44, 46, 48]))
