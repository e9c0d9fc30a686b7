"""Restorations are written into the values of a photograph, of which the known ones stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.commands.photographs.canvas import Canvas, canvas, luma, project
from diffusion.commands.photographs.photograph import Photograph
from diffusion.data import DataSpec
from diffusion.data.images.bands import Bands
from diffusion.model.restoration import Diagnostics, Restoration
from diffusion.restoration.methods import Guided

SPEC = DataSpec((3, 4, 5), 256, mean=100.0, std=50.0)
KNOWN = torch.ones(1, 4, 5, dtype=torch.bool)
KNOWN[0, 1:3, 2:4] = False
HIDDEN = ~KNOWN[0].numpy()


def prepared(values: np.ndarray, kind: str, *, alpha: bool = False, spec: DataSpec = SPEC, channels: int = 3) -> Canvas:
    bands = Bands(values, kind, alpha=alpha)  # type: ignore[arg-type]
    made, _ = canvas(Photograph(bands), (channels, 4, 5), spec, known=KNOWN, background=(255, 255, 255))
    return made


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_known_values_stay_and_restored_ones_have_the_depth_of_the_file(dtype: type[np.generic]) -> None:
    top = {"u": np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1, "f": 1}[np.dtype(dtype).kind]
    values = (np.random.default_rng(0).random((4, 5, 3)) * top).astype(dtype)
    x = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = prepared(values, "rgb").values(x)
    assert found.dtype == dtype and np.array_equal(found[~HIDDEN], values[~HIDDEN])
    expected = x.permute(1, 2, 0).numpy()[HIDDEN] * float(top)
    assert np.abs(found[HIDDEN] - expected).max() <= (0.5 if np.dtype(dtype).kind == "u" else 1e-6) * 1.01


def test_a_range_maps_units_to_the_numbers_of_the_file() -> None:
    spec = DataSpec((1, 4, 5), 4096, mean=100.0, std=50.0, value_range=(100, 4195))
    values = np.random.default_rng(0).integers(100, 4196, (4, 5, 1)).astype(np.uint16)
    x = torch.linspace(0, 1, 20).reshape(1, 4, 5)
    found = prepared(values, "gray", spec=spec, channels=1).values(x)
    assert np.array_equal(found[~HIDDEN], values[~HIDDEN])
    assert np.array_equal(found[HIDDEN][:, 0], np.rint(x[0].numpy()[HIDDEN] * 4095) + 100)


def test_alpha_of_what_is_known_stays_and_what_was_cut_out_becomes_opaque() -> None:
    values = np.full((4, 5, 4), 90, np.uint8)
    values[..., 3] = 200
    values[HIDDEN, 3] = 0
    found = prepared(values, "rgb", alpha=True).values(torch.full((3, 4, 5), 0.2))
    assert np.array_equal(found[~HIDDEN], values[~HIDDEN])
    assert (found[HIDDEN] == [51, 51, 51, 255]).all()


def test_a_gray_photograph_is_restored_in_gray_with_the_statistics_of_its_luma() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 1)).astype(np.uint8)
    made = prepared(values, "gray")
    assert made.gray and made.bands == 1
    samples = torch.rand(6, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    diagnostics = Diagnostics(Guided(), 1, 0, 0.0, 0.0)
    image = torch.tensor(values).permute(2, 0, 1).expand(3, -1, -1) / 255
    part = torch.stack([x[(~KNOWN).expand(3, -1, -1)] for x in samples])
    for found in (Restoration(samples, diagnostics), Restoration(part, diagnostics, image, ~KNOWN)):
        gray = project(found, made)
        expected = luma(samples[2])[0][~KNOWN[0]]
        assert torch.allclose(gray.sample(2)[:, ~KNOWN[0]], expected.expand(3, -1), atol=1e-6)
        assert np.array_equal(made.values(gray.sample(2))[HIDDEN][:, 0], np.rint(255 * expected.numpy()))
        assert torch.allclose(gray.std[0], gray.std[2])


def test_colors_and_gray_that_a_model_does_not_know_are_said() -> None:
    spec = DataSpec((1, 4, 5), 256, mean=100.0, std=50.0)
    bands = Bands(np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8), "rgb")
    made, notices = canvas(Photograph(bands), (1, 4, 5), spec, known=KNOWN, background=(255, 255, 255))
    assert notices == ("is in color, but the model knows gray alone: its results are gray",) and made.bands == 1
    gray = Bands(np.repeat(np.arange(20, dtype=np.uint8).reshape(4, 5, 1), 3, 2), "rgb")
    made, notices = canvas(Photograph(gray), (3, 4, 5), SPEC, known=KNOWN, background=(255, 255, 255))
    assert notices == ("has no colored pixel: it is restored in gray",) and made.gray and made.bands == 3


@pytest.mark.parametrize(("white", "top"), [(100, 255), (255, 255), (4095, 65535)])
def test_values_below_a_darker_white_are_brought_to_that_of_other_formats(white: int, top: int) -> None:
    """A Netpbm file of 12 bits would come back as black. With a range the numbers of the file count."""
    values = np.linspace(0, white, 20).astype(np.uint16).reshape(4, 5, 1)
    bands = Bands(values, "gray", white=white)
    x = torch.ones(1, 4, 5)
    spec = DataSpec((1, 4, 5), 256, mean=100.0, std=50.0)
    made, notices = canvas(Photograph(bands), (1, 4, 5), spec, known=KNOWN, background=(255, 255, 255))
    found = made.values(x)
    assert found.dtype == (np.uint8 if top == 255 else np.uint16) and (found[HIDDEN] == top).all()
    assert np.array_equal(found[~HIDDEN], np.rint(values * (top / white))[~HIDDEN])
    said = f"has values of 0 to {white:,}, its results have 0 to {top:,}"
    assert notices == ((said,) if white != top else ())
    ranged = DataSpec((1, 4, 5), white + 1, mean=9.0, std=5.0, value_range=(0, white))
    own, notices = canvas(Photograph(bands), (1, 4, 5), ranged, known=KNOWN, background=(255, 255, 255))
    assert np.array_equal(own.values(x)[~HIDDEN], values[~HIDDEN]) and not notices
    assert (own.values(x)[HIDDEN] == white).all()


def test_what_only_the_model_shows_through_is_seen_on_the_background_in_a_file_without_alpha() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    made = prepared(values, "rgb", spec=DataSpec((4, 4, 5), 256, mean=100.0, std=50.0), channels=4)
    assert made.alpha and made.bands == 4
    x = torch.tensor([0.2, 0.4, 0.6, 0.5]).reshape(4, 1, 1).expand(4, 4, 5)
    assert (made.values(x)[HIDDEN] == [51, 102, 153, 128]).all() and (made.values(x)[~HIDDEN, 3] == 255).all()
    flat = made.without_alpha().values(x)
    assert np.array_equal(flat[~HIDDEN], values[~HIDDEN])
    assert (flat[HIDDEN] == [153, 178, 204]).all(), "half of the color and half of white"
    gray = prepared(values[:, :, :1], "gray", spec=DataSpec((4, 4, 5), 256, mean=100.0, std=50.0), channels=4)
    assert gray.bands == 1 and (gray.values(x)[HIDDEN] == 174).all(), "the luma of that"


def test_what_shows_through_in_part_shows_what_was_restored() -> None:
    """The model sees an image on the background, and half-transparent colors are those that give what it made."""
    values = np.full((4, 5, 4), 90, np.uint8)
    values[..., 3] = np.array([255, 128, 64, 255, 128])
    found = prepared(values, "rgb", alpha=True).values(torch.full((3, 4, 5), 0.8))
    assert np.array_equal(found[..., 3], values[..., 3])
    shown = found[..., :3] * (found[..., 3:] / 255) + 255 * (1 - found[..., 3:] / 255)
    assert np.abs(shown[HIDDEN] - 204).max() <= 1


def test_what_was_cut_out_is_filled_opaquely_where_noise_is_removed_around_it() -> None:
    values = np.full((4, 5, 4), 90, np.uint8)
    values[..., 3] = np.where(HIDDEN, 0, 200)
    bands = Bands(values, "rgb", alpha=True)
    made, _ = canvas(Photograph(bands), (3, 4, 5), SPEC, known=KNOWN, background=(255, 255, 255), keeps=False)
    found = made.values(torch.full((3, 4, 5), 0.4))
    assert np.array_equal(found[..., 3], np.where(HIDDEN, 255, 200))
    # Seen on white with an opacity of 200 of 255, a color of 60 is one of 102.
    assert (found[HIDDEN][:, :3] == 102).all() and (found[~HIDDEN][:, :3] == 60).all()
    assert (values[HIDDEN, 3] == 0).all(), "the photograph itself is left as it is"
