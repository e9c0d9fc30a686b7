"""The distance of two folders: numbers of torch-fidelity, its floor, its files, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image, ImageFilter

from diffusion import cli, figures
from diffusion.evaluation import inception
from tests.conftest import fails
from tests.evaluation.test_inception import random_weights


def write(folder: Path, count: int, seed: int, side: int = 16, mode: str = "RGB") -> Path:
    """Writes grainy disks of random colors, places and sizes on a ground of another."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    for i in range(count):
        down, right, radius = rng.uniform(2, side - 2, 3)
        inside = (rows - down) ** 2 + (columns - right) ** 2 <= radius**2
        colors = rng.integers(100, 157, (2, 3))
        grain = rng.normal(0, 50, (side, side, 3))
        values = (np.where(inside[..., None], *colors) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(values).convert(mode).save(folder / f"{i:03d}.png")
    return folder


def measured(first: Path, second: Path, out: Path, *options: str) -> dict[str, dict]:
    assert cli.main(["distance", str(first), str(second), "--out", str(out), *options]) == 0
    return json.loads(out.read_text())["distances"]


def covers(row: dict) -> bool:
    return row["comparison"]["excess"]["low"] <= 0 <= row["comparison"]["excess"]["high"]


def test_all_of_the_way_from_files_to_the_number_it_is_that_of_torch_fidelity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the features of an early layer, which take a moment; the last one is compared in the test of the network."""
    monkeypatch.setattr(inception, "LAYER", "64")
    monkeypatch.setattr(inception.Inception, "width", 64)
    weights = tmp_path / "weights.pth"
    torch.save(random_weights(0), weights)
    first, second = write(tmp_path / "a", 6, 0), write(tmp_path / "b", 12, 1)
    found = measured(first, second, tmp_path / "out.json", "--features", "inception", "--weights", str(weights))
    expected = torch_fidelity.calculate_metrics(
        input1=str(first), input2=str(second), fid=True, feature_layer_fid="64", cuda=False, verbose=False, cache=False,
        save_cpu_ram=True, feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights),
    )["frechet_inception_distance"]  # fmt: skip
    assert found["frechet"]["name"] == "Fréchet distance (inception)"
    assert expected > 0.1 and found["frechet"]["whole"] == pytest.approx(expected, abs=1e-3, rel=1e-3)


def test_the_same_images_are_not_told_apart_and_a_blurred_copy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "a", 48, 0)
    second, blurred = Path(shutil.copytree(first, tmp_path / "b")), tmp_path / "blurred"
    blurred.mkdir()
    for path in first.iterdir():
        Image.open(path).filter(ImageFilter.GaussianBlur(1)).save(blurred / path.name)
    same = measured(first, second, tmp_path / "same.json")
    assert "48 images lie in both folders; each was taken from one of them alone" in capsys.readouterr().out
    assert all(map(covers, same.values())) and {row["comparison"]["size"] for row in same.values()} == {12}
    other = measured(blurred, second, tmp_path / "blurred.json")
    # MMD² of the third degree sees little of it in so few images.
    assert other["sliced_wasserstein"]["comparison"]["excess"]["low"] > 0.3


def test_numbers_are_written_as_a_table_and_as_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a", 9, 0), write(tmp_path / "b", 20, 1)
    found = measured(first, second, tmp_path / "out.json", "--limit", "8")
    text = capsys.readouterr().out
    assert f"8 images of {first} against 8 of {second}, n = 4" in text and "n = 4 is small" in text
    arguments = ["distance", str(first), str(second), "--limit", "8", "--out"]
    assert cli.main([*arguments, str(tmp_path / "out.csv")]) == cli.main([*arguments, str(tmp_path / "out.png")]) == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [float(row["excess_low"]) for row in rows] == [row["comparison"]["excess"]["low"] for row in found.values()]
    assert [float(row["all"]) for row in rows] == [row["whole"] for row in found.values()]
    assert figures.read_info(tmp_path / "out.png")["distances"] == found


def test_images_of_several_sizes_need_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a", 8, 0), write(tmp_path / "b", 8, 1, side=20)
    text = fails(capsys, "distance", first, second)
    assert "--size: must be given for images of several sizes, 16x16 (8), 20x20 (8); all are then resized" in text
    assert measured(first, second, tmp_path / "out.json", "--size", "12")["patch_mmd"]["comparison"]["size"] == 4


def test_gray_images_are_compared_as_such_and_with_colors_as_colors(tmp_path: Path) -> None:
    gray, again = write(tmp_path / "gray", 8, 0, mode="L"), write(tmp_path / "again", 8, 1, mode="L")
    color = write(tmp_path / "color", 8, 2)
    assert measured(gray, again, tmp_path / "out.json").keys() == measured(gray, color, tmp_path / "out.json").keys()


def deep(source: Path, folder: Path, kind: type[np.generic]) -> Path:
    """Writes the gray images of a folder at twice their values, as numbers of a kind."""
    folder.mkdir()
    for path in source.iterdir():
        values = np.array(Image.open(path)).astype(kind) * 2
        Image.fromarray(values.astype(kind)).save(folder / path.with_suffix(".tif").name)
    return folder


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_files_of_other_values_are_compared_in_their_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: type[np.generic]
) -> None:
    gray, again = write(tmp_path / "gray", 8, 0, mode="L"), write(tmp_path / "again", 8, 1, mode="L")
    ours, theirs = deep(gray, tmp_path / "ours", kind), deep(again, tmp_path / "theirs", kind)
    if kind is np.float32:
        assert re.search(r"error: --range: .*; give --range \d+ \d+$", fails(capsys, "distance", ours, theirs).strip())
        assert f"{gray}: must be images of whole numbers as those of {theirs}, or both of fractions" in fails(
            capsys, "distance", gray, theirs, "--range", "0", "510"
        )
    found = measured(ours, theirs, tmp_path / "deep.json", "--range", "0", "510")
    expected = measured(gray, again, tmp_path / "shallow.json")
    for name, row in expected.items():
        assert found[name]["whole"] == pytest.approx(row["whole"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "numbers.txt"], "--out: must be a file with one of .json, .csv, .png, got numbers.txt"),
        (["--limit", "0"], "limit: must be at least 1, got 0"),
        (["--features", "inception"], "--features inception: needs its weights, --weights FILE"),
        (["--weights", "a.pth"], "--weights: has no effect without --features, whose network alone"),
        (["--device", "cpu"], "--device: has no effect without --features, whose network alone has weights"),
        (["--limit", "7"], "must be such that there are 8 real examples to compare with, got 7"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    first, second = write(tmp_path / "a", 8, 0), write(tmp_path / "b", 8, 1)
    assert message in fails(capsys, "distance", first, second, *options)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write(tmp_path / "images", 2, 0)
    for folders, field in (((tmp_path / "none", images), "SAMPLES"), ((images, tmp_path / "none"), "REAL")):
        message = fails(capsys, "distance", *folders)
        assert message.startswith(f"error: {field}: ") and "none does not exist" in message


@pytest.mark.parametrize("field", ["SAMPLES", "REAL"])
def test_a_folder_whose_images_cannot_be_decoded_is_named_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    images, damaged = write(tmp_path / "images", 8, 0), write(tmp_path / "damaged", 8, 1)
    for path in damaged.iterdir():
        path.write_bytes(path.read_bytes()[:60])
    message = fails(capsys, "distance", *((damaged, images) if field == "SAMPLES" else (images, damaged)))
    assert message.startswith(f"error: {field}: ") and str(damaged) in message
