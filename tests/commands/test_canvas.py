"""Restorations are written into the values of a photograph, of which the known ones stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusion.commands.canvas import Canvas, canvas, luma, project
from diffusion.commands.photograph import Photograph
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
