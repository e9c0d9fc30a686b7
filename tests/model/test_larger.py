"""Samples larger than the images of a model: their sizes and tiles, and that they are functions of seed and number."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.data import DataSpec
from diffusion.data.observing import Observing
from diffusion.draw import SampleDraw
from diffusion.errors import InputError
from diffusion.model import Model
from diffusion.model.larger import Larger
from diffusion.samplers import SAMPLERS
from diffusion.schedules import EDM
from tests.oracles import short_correlations

SPEC = DataSpec((3, 8, 6), 256)


def of(**options: Any) -> Larger | None:  # noqa: ANN401, the fields of a draw
    return Larger.of(SPEC, SampleDraw(1, **options), mapped=True)


def test_sizes_are_two_numbers_or_one_and_those_of_the_model_are_plain() -> None:
    assert of(size=20) == Larger((20, 20), (8, 6), 3, sequential=True) == of(size=[20, 20], tiles="sequential")
    assert of(size=(8, 12), tiles="windows", overlap=2) == Larger((8, 12), (8, 6), 2, sequential=False)
    assert of() is None and of(size=(8, 6)) is None


def test_images_at_a_time_fill_the_batch_with_tiles_that_can_be_drawn_at_once() -> None:
    sequential, windows = of(size=(16, 15)), of(size=(16, 15), tiles="windows")
    assert sequential is not None and windows is not None
    assert len(sequential.tiles.waves) == 3 + 4 - 1 and windows.tiling.count == 3 * 4
    assert [sequential.together(batch) for batch in (1, 8, 9)] == [1, 2, 3]
    assert [windows.together(batch) for batch in (1, 23, 24)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (7, 20)}, "size: must be at least 8x6, that of the model's images, of which you may .*, got 7x20"),
        ({"size": 7}, "size: must be at least 8x6"),
        ({"size": (8,)}, r"size: must be \(height, width\) in pixels, got \(8,\)"),
        ({"size": "16"}, r"size: must be \(height, width\) in pixels, got 16"),
        ({"size": 16, "overlap": 6}, "overlap: must be between 1 and 5 pixels, less than a tile, got 6"),
        ({"size": 16, "tiles": "window"}, "tiles: must be one of sequential, windows, got 'window'; did you mean"),
        (
            {"overlap": 2},
            "tiles, overlap, around, place: must be given with a size, larger than that of the .* no size",
        ),
        ({"tiles": "windows"}, "tiles, overlap, around, place: must be given with a size"),
        ({"size": 16, "place": (0, 0)}, r"place: must be given with an image to draw around, got \(0, 0\)"),
    ],
)
def test_what_cannot_be_drawn_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        of(**options)


def test_a_network_without_maps_takes_windows_and_points_have_no_size(model: Model) -> None:
    with pytest.raises(
        InputError, match=r"tiles: must be windows for this model, .* got sequential; or train one that"
    ):
        model.sample(1, size=16)
    assert model.sample(1, size=(16, 11), tiles="windows", steps=2).shape == (1, 3, 16, 11)
    with pytest.raises(InputError, match="size: must be left out for points"):
        Larger.of(DataSpec((2,), None), SampleDraw(1, size=3), mapped=True)
    with pytest.raises(InputError, match="size: must be left out with noise, which has one, got 16"):
        model.sample(noise=torch.zeros(1, 3, 8, 8), size=16)


@pytest.mark.parametrize("tiles", ["sequential", "windows"])
@pytest.mark.parametrize("sampler", [None, *SAMPLERS])
def test_a_sample_is_a_function_of_its_seed_and_number(mapped_model: Model, tiles: str, sampler: str | None) -> None:
    options: dict[str, Any] = {"size": (11, 14), "tiles": tiles, "seed": 4, "steps": 2, "sampler": sampler}
    whole = mapped_model.sample(3, label=[1, 0, 1], guidance=1.5, **options)
    assert whole.shape == (3, 3, 11, 14) and bool(((whole >= 0) & (whole <= 1)).all())
    close = {"rtol": 0.0, "atol": 1e-4}
    again = mapped_model.sample(3, label=[1, 0, 1], guidance=1.5, batch=5, **options)
    torch.testing.assert_close(again, whole, **close)
    last = mapped_model.sample(1, first=2, label=1, guidance=1.5, **options)
    torch.testing.assert_close(last, whole[2:], **close)
    parts = list(mapped_model.samples(3, label=[1, 0, 1], guidance=1.5, batch=3, **options))
    torch.testing.assert_close(torch.cat([x for _, x in parts]), whole, **close)


def test_the_first_tile_is_a_plain_sample_in_values_of_the_data(mapped_model: Model) -> None:
    """All later ones see values that an image may have, and are such values."""
    large = mapped_model.sample(2, size=16, seed=1, steps=4)
    plain = mapped_model.sample(2, size=8, seed=1, steps=4)
    assert torch.equal(plain, mapped_model.sample(2, seed=1, steps=4))
    assert float((large[..., :8, :8] - plain).abs().max()) < 0.5 / 255 + 0.01, "its network runs in float32"
    torch.testing.assert_close(large * 255, (large * 255).round(), rtol=0, atol=1e-4)


def correlation(x: Tensor, column: int) -> float:
    """The correlation of the pixels of a column with those to the right of them."""
    left, right = (x[..., column + shift].flatten() for shift in (0, 1))
    return float(torch.corrcoef(torch.stack([left, right]).double())[0, 1])


def test_gaussian_images_keep_their_moments_across_tiles(exact_images: Model) -> None:
    """Tiles of 8 columns begin at 0, 4, 8 and 12; the border between 7 and 8 is as any other place."""
    experiment = replace(exact_images.config, observed=Observing(share=0.5))
    model = replace(exact_images, config=experiment)
    x = model.sample(300, size=(8, 20), steps=24, sampler="dpmpp_2m", batch=300) * 255
    assert float(x.mean()) == pytest.approx(120, abs=1) and float(x.std()) == pytest.approx(25, rel=0.03)
    exact = math.exp(-1 / 1.5)
    for column in (3, 7, 9, 11, 15, 18):
        assert correlation(x, column) == pytest.approx(exact, abs=0.05), column


def test_around_an_image_it_stays_and_all_else_is_drawn(mapped_model: Model) -> None:
    """The image is smaller than a tile in one direction and larger in the other."""
    image = (torch.rand(3, 12, 5, generator=torch.Generator().manual_seed(0)) * 255).byte()
    options: dict[str, Any] = {"size": (16, 14), "steps": 3, "around": image, "seed": 2, "sampler": "ddim"}
    whole = mapped_model.sample(2, place=(3, 6), **options)
    kept = whole[..., 3:15, 6:11] * 255
    torch.testing.assert_close(kept, image.float().expand(2, -1, -1, -1), rtol=0, atol=1e-3)
    assert whole.shape == (2, 3, 16, 14) and not torch.allclose(whole[0, :, :3], whole[1, :, :3], atol=0.01)
    torch.testing.assert_close(
        mapped_model.sample(1, first=1, place=(3, 6), batch=1, **options), whole[1:], rtol=0, atol=1e-4
    )
    middle = mapped_model.sample(1, **options) * 255
    torch.testing.assert_close(middle[0, :, 2:14, 4:9], image.float(), rtol=0, atol=1e-3)
    small = mapped_model.sample(1, size=8, steps=2, around=image[:, :5, :5].permute(1, 2, 0).numpy())
    torch.testing.assert_close(small[0, :, 1:6, 1:6] * 255, image[:, :5, :5].float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 16, "tiles": "windows"},
            "tiles: must be sequential around an image; windows fill what .*, got windows",
        ),
        ({"size": (12, 9)}, "around: must be an image smaller than the size, got 12x9"),
        ({"size": (11, 20)}, "around: must be an image smaller than the size, got 12x9"),
        ({"size": 16, "place": (5, 0)}, r"place: must be a row from 0 to 4 and a column from 0 to 7, got \(5, 0\)"),
        ({"size": 16, "place": (1,)}, r"place: must be a row from 0 to 4 and a column from 0 to 7, got \(1,\)"),
        ({}, "tiles, overlap, around, place: must be given with a size"),
    ],
)
def test_images_that_cannot_be_drawn_around_are_named(
    mapped_model: Model, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mapped_model.sample(1, around=torch.zeros(3, 12, 9), **options)
    with pytest.raises(InputError, match=r"around: must lie in \[0, 1\], or be uint8, got 7"):
        mapped_model.sample(1, around=torch.full((3, 12, 9), 7.0), size=16)


def test_around_gaussian_images_the_mean_is_that_of_the_posterior(exact_images: Model) -> None:
    """A bright block in a corner of 8x14, drawn around in tiles that see 8 columns."""
    model = replace(exact_images, config=replace(exact_images.config, observed=Observing(share=0.5)))
    block = torch.full((1, 4, 4), 170, dtype=torch.uint8)
    n, size = 400, (8, 14)
    x = model.sample(n, size=size, around=block, place=(0, 0), steps=24, sampler="dpmpp_2m", batch=n).double() * 255
    large, known = short_correlations(EDM(), *size, 1.5), torch.zeros(size, dtype=torch.bool)
    known[:4, :4] = True
    seen = known.flatten()
    exact = large.posterior(torch.eye(112, dtype=torch.float64)[seen], torch.full((16,), 2.0).double(), 0.0)
    off = (x.mean(0) - (120 + 25 * exact.mean)).flatten()[~seen]
    assert float(off.abs().max()) < 5 * 25 / n**0.5 and float(exact.mean.flatten()[~seen].max()) > 0.9
