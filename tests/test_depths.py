"""Images of every depth and number of bands, from their files through training to files again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from diffusion import checkpoint, cli, figures
from diffusion.data import DataSpec
from diffusion.data.images.decoding import read_bands
from diffusion.data.images.encoding import read_info
from diffusion.training import train
from tests.conftest import tiny

GENERATOR = np.random.default_rng(0)
COUNT, SIDE = 24, 8


def write(folder: Path, values: npt.NDArray[Any], suffix: str) -> Path:
    """Write images (N, H, W, C) to files of a kind."""
    folder.mkdir()
    for i, image in enumerate(values):
        path, one = folder / f"{i:02d}{suffix}", image[:, :, 0] if image.shape[2] == 1 else image
        if suffix == ".npy":
            np.save(path, one)
        elif suffix == ".tif":
            tifffile.imwrite(path, one, photometric="minisblack", planarconfig=None if one.ndim == 2 else "contig")
        else:
            Image.fromarray(one).save(path)
    return folder


def blobs(channels: int, low: float, high: float, dtype: str) -> npt.NDArray[Any]:
    """Make images (N, H, W, C) of a bright spot each, other in every band, from `low` to `high`."""
    y, x = np.mgrid[:SIDE, :SIDE]
    centers = GENERATOR.uniform(2, 6, (COUNT, 2, 1, 1, channels))
    distance = (y[None, :, :, None] - centers[:, 0]) ** 2 + (x[None, :, :, None] - centers[:, 1]) ** 2
    values = low + (high - low) * np.exp(-distance / 6) * np.linspace(1, 0.5, channels)
    values[0, 0, 0], values[0, 0, 1] = low, high
    return (values if dtype.startswith("f") else np.rint(values)).astype(dtype)


# The channels, the values and their range, the files that are read and written, and the unit of likelihoods.
KINDS: dict[str, tuple[int, str, tuple[float, float], str, str, str]] = {
    "12 bits": (1, "u2", (0, 4095), ".png", ".png", "a uniform guess has 12.0000"),
    "five bands": (5, "u2", (0, 1023), ".tif", ".tif", "a uniform guess has 10.0000"),
    "gray and alpha": (2, "u1", (0, 255), ".png", ".png", "a uniform guess has 8.0000"),
    "two floats": (2, "f4", (-1.5, 2.5), ".npy", ".tif", "standard deviation"),
    "hounsfield": (1, "i2", (-1000, 1000), ".tif", ".tif", "of 2,001 gray levels, the values -1,000 to 1,000"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_go_from_files_to_files(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    channels, dtype, (low, high), suffix, written, unit = KINDS[kind]
    values = blobs(channels, low, high, dtype)
    folder, run = write(tmp_path / "images", values, suffix), tmp_path / "run"
    data = {"path": str(folder), "labels": False, "channels": channels, "range": [low, high]}
    assert train(tiny(folder, data=data, training={"steps": 4}, report={"restored": 0}), run) == 0
    text = capsys.readouterr().out
    assert f"range     {low:,} to {high:,}" in text and unit in text
    bands = figures.shown_bands(channels)
    assert not bands or f"pictures show {bands}" in text
    assert read_info(run / "samples.png").get("shown", "") == bands

    assert cli.main(["sample", str(run), "--n", "2", "--steps", "2", "--out", str(tmp_path / "samples")]) == 0
    for i in range(2):
        found = read_bands(tmp_path / "samples" / f"{i:05d}{written}").values
        assert found.shape == (SIDE, SIDE, channels)
        # Pillow holds signed numbers of 16 bits in 32.
        assert found.dtype.kind == dtype[0] and (dtype == "i2" or found.dtype == np.dtype(dtype))
        if not dtype.startswith("f"):
            assert low <= found.min() and found.max() <= high

    assert cli.main(["evaluate", str(run), "--limit", "2", "--draws", "2"]) == 0
    assert unit in capsys.readouterr().out

    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[2:5, 3:6] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    arguments = ["inpaint", str(run), str(folder / f"00{suffix}"), "--mask", str(tmp_path / "mask.png")]
    options = ["--n", "2", "--steps", "2", "--method", "replacement", "--out", str(tmp_path / "restored")]
    assert cli.main([*arguments, *options]) == 0
    paths = sorted((tmp_path / "restored").rglob(f"restored-*{written}"))
    assert len(paths) == 2
    for path in paths:
        restored = read_bands(path).values.astype(float)
        assert np.allclose(restored[mask == 255], values[0][mask == 255], rtol=0, atol=1e-5 * (high - low))


def test_a_run_goes_on_in_the_range_that_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = write(tmp_path / "images", blobs(1, 100, 900, "u2"), ".png"), tmp_path / "run"
    data = {"path": str(folder), "labels": False, "channels": 1, "range": "measured"}
    assert train(tiny(folder, data=data, training={"steps": 2}), run) == 0
    assert "range     100 to 900, measured: 801 gray levels" in capsys.readouterr().out
    Image.fromarray(np.full((SIDE, SIDE), 5000, np.uint16)).save(folder / "new.png")
    assert train(tiny(folder, data=data, training={"steps": 4}), run) == 0
    assert "range     100 to 900, as the model was trained: 801 gray levels" in capsys.readouterr().out
    found, _ = checkpoint.newest(run)
    assert found is not None
    spec = DataSpec.from_dict(checkpoint.read(found, "model").description["spec"])
    assert (spec.value_range, spec.levels) == ((100, 900), 801)
    assert json.loads((run / "config.json").read_text())["data"]["range"] == "measured"
