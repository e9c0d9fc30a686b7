"""`diffusion evaluate --per-image`: what stands in the table is what the evaluation found, in the ranks that it has."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import cli, figures
from tests.conftest import fails


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of noise, and a flat one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"noise{i}.png")
    Image.fromarray(np.full((8, 8, 3), 128, dtype=np.uint8)).save(folder / "flat.png")
    return folder


def test_a_folder_is_ranked_among_the_held_out_images_of_the_run(run: Path, folder: Path, tmp_path: Path) -> None:
    out, held_out = tmp_path / "scores.csv", json.loads((run / "evaluation.json").read_text())["values"]
    command = ["evaluate", run, "--data", folder, "--draws", "4", "--per-image", out, "data.labels=false"]
    assert cli.main([*map(str, command)]) == 0
    found = rows(out)
    stored = json.loads((run / "evaluation-photos-draws4.json").read_text())
    assert {row["file"]: float(row["bits/dim"]) for row in found} == dict(
        zip(stored["names"], stored["values"], strict=True)
    )
    values = [float(row["bits/dim"]) for row in found]
    assert values == sorted(values, reverse=True)
    for row in found:
        below = sum(value < float(row["bits/dim"]) for value in held_out)
        assert int(row["rank among held-out"]) == 1 + below and int(row["held-out"]) == len(held_out)
    info = figures.read_info(out.with_suffix(".png"))
    assert info["files"] == [row["file"] for row in found] and info["unit"] == "bits/dim"


def test_a_single_file_has_one_row_and_a_standard_error(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "one.csv"
    assert cli.main([*map(str, ["evaluate", run, "--data", folder / "flat.png", "--per-image", out])]) == 0
    (row,) = rows(out)
    assert row["file"] == "flat.png" and float(row["standard error"]) > 0 and row["rank among held-out"]
    assert out.with_suffix(".png").exists()


def test_held_out_images_are_measured_where_no_evaluation_was_made_alike(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    (run / "evaluation.json").unlink()
    out, file = tmp_path / "one.csv", folder / "flat.png"
    assert cli.main([*map(str, ["evaluate", run, "--data", file, "--draws", "2", "--per-image", out])]) == 0
    assert rows(out)[0]["held-out"] == "11"
    assert not (run / "evaluation.json").exists(), "what was not asked for is not written"


def test_held_out_images_are_ranked_among_themselves(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.csv"
    assert cli.main([*map(str, ["evaluate", run, "--draws", "2", "--no-compare", "--per-image", out])]) == 0
    assert [int(row["rank among held-out"]) for row in rows(out)] == list(range(11, 0, -1))


def test_nothing_that_lies_there_is_replaced(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither an image beside the table, nor the table of the run; its own results are."""
    before = (folder / "flat.png").read_bytes()
    for out in (folder / "flat.csv", run / "evaluation.csv"):
        said = fails(capsys, "evaluate", run, "--data", folder / "flat.png", "--per-image", out)
        assert "--per-image: must be a name of its own" in said
    assert (folder / "flat.png").read_bytes() == before
    out = tmp_path / "own.csv"
    for _ in range(2):
        assert cli.main([*map(str, ["evaluate", run, "--data", folder / "flat.png", "--per-image", out])]) == 0


def test_a_file_that_is_no_table_is_refused_before_the_work(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--per-image: must be a file that ends with .csv, got" in fails(
        capsys, "evaluate", run, "--per-image", tmp_path / "a.txt"
    )
    assert "--per-image: must be in a folder that exists" in fails(
        capsys, "evaluate", run, "--per-image", tmp_path / "none" / "a.csv"
    )
