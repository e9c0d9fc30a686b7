"""The problems of restoration, posed from arrays, pictures and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.model.accept import Border
from diffusion.model.posing import inpainting, restoring
from diffusion.operators import Downsample, GaussianBlur, Grayscale, Matrix, Operator

BORDER = Border(DataSpec((3, 8, 8), 256))
RNG = np.random.default_rng(0)


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("operator", "seen", "shape"),
    [
        ("blur:sigma=1", (12, 20, 3), (3, 12, 20)),
        (GaussianBlur(1.0), (8, 8, 3), (3, 8, 8)),
        ("downsample:factor=2", (4, 4, 3), (3, 8, 8)),
        ("downsample:factor=2", (5, 9, 3), (3, 10, 18)),
        ("downsample:size=30x20", (10, 15, 3), (3, 20, 30)),
        (Grayscale(), (8, 8, 1), (3, 8, 8)),
        ("gray+downsample:factor=2", (6, 4, 1), (3, 12, 8)),
        ("jpeg:quality=50", (16, 24, 3), (3, 16, 24)),
    ],
)
def test_an_observation_tells_the_size_of_its_example_in_every_form(
    operator: str | Operator, seen: tuple[int, int, int], shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = pixels(*seen)
    Image.fromarray(array.squeeze()).save(path := tmp_path / "y.png")
    chw = torch.from_numpy(array).permute(2, 0, 1)
    held = [array, chw, chw / 255, (chw / 255).permute(1, 2, 0).numpy(), Image.fromarray(array.squeeze()), path]
    held += [array[:, :, 0], (chw / 255)[0]] if seen[2] == 1 else []
    for y in held:
        problem = restoring(BORDER, y, operator, 0.05)
        assert problem.shape == shape and problem.noise == 0.05
        assert torch.allclose(problem.y[0], chw / 255, atol=1e-6)


def test_the_size_that_is_given_is_taken_and_must_fit() -> None:
    y = pixels(4, 4)
    assert restoring(BORDER, y, Downsample(2), 0.1, (8, 8)).shape == (3, 8, 8)
    for held in (y, Image.fromarray(y), torch.from_numpy(y)):
        with pytest.raises(InputError, match=r"y: must be of the shape \(3, 8, 4\) .* of \(3, 16, 8\), got"):
            restoring(BORDER, held, Downsample(2), 0.1, (16, 8))


def test_values_of_points_are_what_they_are() -> None:
    points = Border(DataSpec((2,), None))
    problem = restoring(points, [300.0], Matrix(torch.tensor([[1.0, 0.0]])), 5.0)  # type: ignore[arg-type]
    assert problem.y.tolist() == [[300.0]] and problem.shape == (2,)


@pytest.mark.parametrize(
    ("y", "operator", "message"),
    [
        (255.0 * torch.rand(3, 8, 8), "blur:sigma=1", r"y: must be .* in \[0, 1\], got 2.*; divide values of 0 to 255"),
        (2 * torch.rand(3, 8, 8) - 1, "blur:sigma=1", r"y: must be .* got -.*; values in \[-1, 1\] become"),
        (torch.rand(3, 8, 8), "blurr:sigma=1", "operator"),
        (torch.rand(3, 8, 8), "blur", "operator blur: must say how strong the damage was"),
        (torch.rand(3, 8, 8), 3, 'operator: must be a text such as "blur:sigma=2", or an operator .*, got int'),
        (None, "blur:sigma=1", "y: must be a tensor"),
        (
            Image.new("RGB", (8, 8)),
            Matrix(torch.ones(2, 192)),
            r"y: must be of the shape \(2,\) .* got an image of 8 x 8",
        ),
    ],
    ids=range(7),
)
def test_observations_and_operators_that_cannot_be_used_are_named(y: object, operator: object, message: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(InputError, match=message):
        restoring(BORDER, y, operator, 0.05)  # type: ignore[arg-type]


def test_an_image_and_its_mask_may_be_held_in_every_form(tmp_path: Path) -> None:
    image, known = pixels(12, 20), np.arange(240).reshape(12, 20) % 7 > 2
    Image.fromarray(image).save(path := tmp_path / "photo.png")
    Image.fromarray(known.astype(np.uint8) * 255).save(masked := tmp_path / "mask.png")
    expected = torch.from_numpy(image).permute(2, 0, 1) / 255 * torch.from_numpy(known)
    for x, mask in (
        (image, known),
        (path, masked),
        (str(path), str(masked)),
        (Image.open(path), Image.open(masked)),
        (torch.from_numpy(image).permute(2, 0, 1) / 255, torch.from_numpy(known)[None]),
    ):
        problem = inpainting(BORDER, x, mask, 0.0)
        assert problem.shape == (3, 12, 20) and torch.allclose(problem.y[0], expected, atol=1e-7)


def test_what_cannot_be_filled_is_named() -> None:
    image, known = torch.rand(3, 8, 8), torch.ones(8, 8).bool().tril()
    for given, mask, noise, message in (
        (255 * image, known, 0.0, r"image, or y: must be in \[0, 1\] where known, got 2.*; divide values of 0 to 255"),
        (2 * image - 1, known, 0.0, r"image, or y: must be in \[0, 1\] where known, got -.*; values in \[-1, 1\]"),
        (2 * image - 1, known, 0.05, r"image, or y: must be in \[0, 1\] where known, got -"),
        (image, known, 25, r"noise: must be at most 1 for values in \[0, 1\]; divide that of bytes by 255, got 25"),
        (image, known | True, 0.0, "known: must be False where something is to be restored, got True everywhere"),
        (image, known & False, 0.0, "known: must be True where something is known, got False everywhere"),
        (image, known & False, 0.1, "known: must be True where something is known, got False everywhere"),
    ):
        with pytest.raises(InputError, match=message):
            inpainting(BORDER, given, mask, noise)
    assert inpainting(BORDER, image, known | True, 0.1).noise == 0.1, "denoising"
    hidden = torch.where(known, image, 255.0)
    assert torch.equal(inpainting(BORDER, hidden, known, 0.0).y[0], image * known), "hidden values may be anything"


def test_the_noise_is_a_number_or_a_map_in_every_form(tmp_path: Path) -> None:
    x, known = pixels(12, 20), np.ones((12, 20), bool)
    known[3:5, 4:9] = False
    values = RNG.random((12, 20)).astype(np.float32) / 4
    np.save(tmp_path / "map.npy", values)
    Image.fromarray(values).save(tmp_path / "map.tiff")
    gray = (values * 255).round().astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "map.png")
    colors = np.repeat(values[:, :, None], 3, 2)
    exact: list[object] = [values, torch.from_numpy(values), str(tmp_path / "map.npy"), tmp_path / "map.tiff"]
    exact += [colors, torch.from_numpy(colors).permute(2, 0, 1)]
    for held in exact:
        problem = inpainting(BORDER, x, known, held)  # type: ignore[arg-type]
        assert isinstance(problem.noise, torch.Tensor) and problem.noise.shape == (1, 1, 12, 20)
        assert np.array_equal(problem.noise[0, 0].numpy(), values * known)
    for held in (tmp_path / "map.png", Image.fromarray(gray)):
        problem = restoring(BORDER, x, "denoise", held)
        assert isinstance(problem.noise, torch.Tensor)
        assert np.allclose(problem.noise[0, 0].numpy(), gray / 255, rtol=0, atol=1e-7)
    for held in (0.25, np.float32(0.25), torch.tensor(0.25), np.full((12, 20), 0.25)):
        assert inpainting(BORDER, x, known, held).noise == 0.25
    with pytest.raises(
        InputError, match=r"noise: must be a number, or a map that broadcasts against \(3, 12, 20\), got"
    ):
        inpainting(BORDER, x, known, values[:5])
    with pytest.raises(InputError, match=r"noise: must be a number, got \[0.1\]"):
        inpainting(BORDER, x, known, [0.1])  # type: ignore[arg-type]
