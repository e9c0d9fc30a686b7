"""Seams and correlations of larger samples, against images whose correlations are known."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import tiles
from benchmarks.tiles import Kind, correlations, crops, distances_of, drawn, seam, side_by_side, tables
from diffusion import config
from diffusion.data import DataSpec
from diffusion.model import Model
from diffusion.schedules import EDM
from tests.oracles import short_correlations

LENGTH = 3.0


@pytest.fixture(scope="module")
def exact() -> Model:
    """A model of Gaussian images of 8x8, of mean 120 and standard deviation 25, that takes maps of times."""
    experiment = config.from_dict(
        {"data": {"path": "images", "channels": 1}, "observed": {"share": 0.5}, "sampling": {"precision": "fp32"}}
    )
    spec = DataSpec((1, 8, 8), 256, mean=120.0, std=25.0)
    return Model(short_correlations(EDM(), 8, 8, LENGTH), spec, experiment)  # type: ignore[arg-type]


def images(n: int, height: int, width: int) -> Tensor:
    """Draws exact images of that size, in units."""
    x = short_correlations(EDM(), height, width, LENGTH).sample(n, torch.Generator().manual_seed(0))
    return (x * 25 + 120) / 255


def owner(height: int, width: int) -> Tensor:
    """Tiles of 8x8 side by side."""
    rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
    return rows[:, None] * 100 + columns


def test_exact_images_have_no_seam_and_images_side_by_side_have_the_one_of_independence() -> None:
    """Neighbors differ as N(0, 2 (1 - r)), r being their correlation, and as N(0, 2) across a border."""
    found, error = seam(Kind("exact", images(300, 24, 16), owner(24, 16)))
    assert found == pytest.approx(1, abs=3 * error) and error < 0.02
    pieces = images(300 * 6, 8, 8).reshape(300, 3, 2, 8, 8).permute(0, 1, 3, 2, 4).reshape(300, 1, 24, 16)
    found, error = seam(Kind("side by side", pieces, owner(24, 16)))
    assert found == pytest.approx((1 - math.exp(-1 / LENGTH)) ** -0.5, abs=3 * error) and error < 0.03


def test_correlations_are_those_of_the_images() -> None:
    found = correlations(images(400, 16, 16), [0, 1, 4, 8, 20])
    expected = [math.exp(-distance / LENGTH) for distance in (0, 1, 4, 8)]
    assert found[:4] == pytest.approx(expected, abs=0.03) and math.isnan(found[4])
    assert correlations(images(50, 16, 16), [0], variance=2 * (25 / 255) ** 2) == pytest.approx([0.5], abs=0.05)
    assert distances_of(32) == [0, 1, 2, 4, 8, 16, 32, 48] and distances_of(6) == [0, 1, 2, 4, 6, 9]


def test_tiles_are_as_plain_samples_and_go_on_beyond_them(exact: Model) -> None:
    """The table of an oracle. Few steps make all variances too large, those of plain samples too."""
    n, size = 150, (8, 24)
    kinds = [drawn(exact, size, n, 20, 4, way) for way in ("sequential", "windows")]
    kinds.append(side_by_side(exact, size, n, 20))
    costs, far = tables(kinds, 8)
    assert [row["evaluations"] for row in costs] == [5 * 20, 5 * 20, 3 * 20]
    seams = {str(row["images"]): float(str(row["seam"])) for row in costs}
    assert seams["sequential, 4 pixels shared"] == pytest.approx(1, abs=0.06) and seams["plain, side by side"] > 1.6
    rows = {int(str(row["distance"])): float(str(row["sequential, 4 pixels shared"])) for row in far}
    assert rows[0] == pytest.approx(1, abs=0.07), "over the variance of plain samples"
    for distance in (4, 8, 12):
        assert rows[distance] == pytest.approx(math.exp(-distance / LENGTH), abs=0.06)
    assert abs(float(str(far[-2]["plain, side by side"]))) < 0.06


def test_crops_are_cut_beside_each_other_from_images_that_are_large_enough(exact: Model, tmp_path: Path) -> None:
    values = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values[:9]).save(tmp_path / "b.png")
    found = crops(exact, tmp_path, (10, 12), owner(10, 12))
    assert found is not None and found.images.shape == (4, 1, 10, 12)
    assert np.array_equal((found.images[3, 0] * 255).round(), values[10:20, 12:24])
    assert crops(exact, tmp_path / "b.png", (10, 12), owner(10, 12)) is None


def test_a_run_is_measured_and_shown(
    restorer: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.arange(1200, dtype=np.uint16).astype(np.uint8).reshape(20, 20, 3)).save(tmp_path / "photo.png")
    more = [
        "--n",
        "2",
        "--steps",
        "2",
        "--scale",
        "2",
        "--overlaps",
        "0.5",
        "0.25",
        "--data",
        str(tmp_path / "photo.png"),
    ]
    out = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["tiles", str(restorer), *more, "--out", str(out)])
    tiles.main()
    said = capsys.readouterr().out
    record = json.loads(out.read_text())
    (costs, far) = record["tables"].values()
    names = [row["images"] for row in costs]
    assert names[:3] == [f"sequential, {pixels} pixels shared" for pixels in (4, 2)] + ["windows, 4 pixels shared"]
    assert names[4:] == ["plain, side by side", "crops of the data"] and len(far) == 6
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.height > 16
    assert "16x16 by a model of 8x8, 2 steps" in said and "seam of sequential, 4 pixels shared" in said


def test_a_model_without_maps_is_measured_by_windows_alone(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "found.json"
    arguments = [
        "tiles",
        str(trained),
        "--n",
        "1",
        "--steps",
        "1",
        "--scale",
        "2",
        "--overlaps",
        "0.5",
        "--out",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    tiles.main()
    costs, _ = json.loads(out.read_text())["tables"].values()
    assert [row["images"] for row in costs] == ["windows, 4 pixels shared", "plain, side by side"]
