"""Examples in every form that people hold them, and the range of their values, named alike wherever they enter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import DataSpec
from diffusion.errors import InputError
from diffusion.model.accept import Border

COLOR = Border(DataSpec((3, 5, 7), 256))
GRAY = Border(DataSpec((1, 5, 7), 256))
POINT = Border(DataSpec((2,), None))
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
UNITS = torch.from_numpy(PIXELS).permute(2, 0, 1) / 255


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_an_example_is_the_same_however_it_is_held(path: Path) -> None:
    chw = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    held = [PIXELS, chw, torch.from_numpy(PIXELS), torch.from_numpy(chw), Image.fromarray(PIXELS), path, str(path)]
    held += [UNITS, UNITS.double(), UNITS.numpy(), UNITS.permute(1, 2, 0).numpy(), PIXELS.astype(np.int64)]
    for each in held:
        found = COLOR.example(each, "image")
        assert found.shape == (3, 5, 7) and torch.allclose(found.float(), UNITS, atol=1e-7)
    gray = GRAY.example(PIXELS[:, :, 0], "image")
    assert torch.allclose(gray, UNITS[:1]) and torch.equal(
        GRAY.example(Image.fromarray(PIXELS[:, :, 0]), "image"), gray
    )
    assert torch.equal(POINT.example([0.5, -3.0], "a"), torch.tensor([0.5, -3.0]))


def test_a_batch_is_the_same_however_it_is_held(path: Path) -> None:
    held = [PIXELS[None], np.stack([PIXELS] * 1), torch.from_numpy(PIXELS)[None], Image.fromarray(PIXELS), path]
    held += [[PIXELS], [path], (Image.fromarray(PIXELS),), UNITS[None]]
    for each in held:
        assert torch.allclose(COLOR.units(COLOR.batch(each), "x"), UNITS[None], atol=1e-7)
    assert COLOR.batch(PIXELS[None]).dtype == torch.uint8, "gray levels stay gray levels"
    mixed = COLOR.batch([PIXELS, Image.fromarray(PIXELS), UNITS])
    assert mixed.shape == (3, 3, 5, 7) and torch.allclose(mixed, UNITS.expand(3, -1, -1, -1), atol=1e-7)
    assert GRAY.batch(PIXELS[None, :, :, 0]).shape == (1, 1, 5, 7)
    assert torch.equal(POINT.batch([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[0.0, 1.0], [2.0, 3.0]]))


def test_transparent_pixels_get_the_background_of_the_data() -> None:
    clear = Image.new("RGBA", (7, 5), (9, 9, 9, 0))
    for color in ((255, 0, 0), (0, 0, 255)):
        found = Border(COLOR.spec, color).example(clear, "image")
        assert torch.equal(found[:, 0, 0], torch.tensor(color) / 255)


def test_gray_levels_are_those_of_the_data() -> None:
    deep = Border(DataSpec((1, 1, 2), 4096, value_range=(0.0, 4095.0)))
    assert torch.allclose(deep.example(np.array([[[0, 4095]]], np.uint16), "x"), torch.tensor([[[0.0, 1.0]]]))
    with pytest.raises(InputError, match=r"^x: must lie in \[0, 1\], or be integers up to 4095, got 4096$"):
        deep.example(np.array([[[0, 4096]]], np.int32), "x")
    with pytest.raises(InputError, match=r"^x: must lie in \[0, 1\], or be integers up to 4095, got uint8$"):
        deep.batch(np.zeros((1, 1, 1, 2), np.uint8))
    continuous = Border(DataSpec((1, 1, 2), None, value_range=(-100.0, 100.0)))
    assert torch.equal(continuous.example(np.array([[-100, 300]]), "x"), torch.tensor([[[0.0, 2.0]]]))


@pytest.mark.parametrize(
    ("scale", "offset", "message"),
    [
        (255.0, 0.0, r"must lie in \[0, 1\], or be uint8, got 2\d\d.*; divide values of 0 to 255 by 255$"),
        (65535.0, 0.0, r"must lie in \[0, 1\], or be uint8, got 6.*; divide values of 0 to 65535 by 65535$"),
        (2.0, -1.0, r"must lie in \[0, 1\], or be uint8, got -.*; values in \[-1, 1\] become \(x \+ 1\) / 2$"),
        (1.0, -0.05, r"must lie in \[0, 1\], or be uint8, got -0.0\d+( in example 0)?$"),
        (float("nan"), 0.0, r"must be finite, got nan( in example 0)?$"),
    ],
)
def test_values_out_of_range_are_named_with_what_they_likely_are(scale: float, offset: float, message: str) -> None:
    wrong = scale * UNITS + offset
    with pytest.raises(InputError, match=f"^image: {message}"):
        COLOR.example(wrong, "image")
    with pytest.raises(InputError, match=f"^x: {message}"):
        COLOR.batch(wrong[None])
    assert POINT.bounds is None and torch.equal(
        POINT.batch(torch.tensor([[300.0, -4.0]])), torch.tensor([[300.0, -4.0]])
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (UNITS > 0.5, r"a: must lie in \[0, 1\], or be uint8, got bool"),
        (PIXELS.astype(np.int16) + 300, r"a: must lie in \[0, 1\], or be uint8, got 5\d\d"),
        (UNITS[:, :4], r"a: must be \(3, 5, 7\) as the data, got \(3, 4, 7\); resize it first"),
        (Image.new("RGB", (8, 8)), r"a: must be \(3, 5, 7\) as the data, got \(3, 8, 8\); resize it first"),
        (UNITS[:2], r"a: must be of 3 channels, \(C, H, W\), got \(2, 5, 7\)"),
        (None, "a: must be a tensor, a NumPy array, an image of Pillow or the path of a file, got NoneType"),
    ],
    ids=range(6),
)
def test_examples_that_cannot_be_taken_are_named(value: object, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        COLOR.example(value, "a")  # type: ignore[arg-type]


def test_batches_that_cannot_be_taken_are_named(path: Path) -> None:
    for value, message in (
        (UNITS, r"x: must be \(B, 3, 5, 7\) of the data, got \(3, 5, 7\); one example is x\[None\]"),
        (PIXELS, r"got \(5, 7, 3\); one example is x\[None\]"),
        ([], r"got \(0,\)"),
        ([UNITS, UNITS[:, :4]], r"x\[1\]: must be \(3, 5, 7\) as the data, got \(3, 4, 7\)"),
        ([path, None], r"x\[1\]: must be a tensor"),
        (Image.new("RGB", (8, 8)), r"got \(1, 3, 8, 8\)"),
    ):
        with pytest.raises(InputError, match=message):
            COLOR.batch(value)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a: must be a point, of the shape \(2,\), got an image"):
        POINT.example(path, "a")


def test_latents_are_floats_of_the_shape_of_the_data() -> None:
    z = np.zeros((2, 3, 5, 7))
    assert COLOR.latents(z, "z").dtype == torch.float32 and len(COLOR.latents(z, "z", 2)) == 2
    for value, message in (
        (z[0], r"z: must be \(2, 3, 5, 7\), got \(3, 5, 7\)"),
        (z[:1], r"z: must be \(2, 3, 5, 7\), got \(1, 3, 5, 7\)"),
        (z.astype(int), "z: must be floating point, like standard normal noise, got torch.int64"),
        (z + np.nan, "z: must be finite, got nan in example 0"),
    ):
        with pytest.raises(InputError, match=message):
            COLOR.latents(value, "z", 2)
