"""Images are compared with their originals, pair by pair and on average."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffusion import cli
from diffusion.commands.compare import images_at
from diffusion.evaluation import lpips
from tests.evaluation.test_lpips import random_weights

RANDOM = np.random.default_rng(0).integers(60, 190, (36, 40, 3), dtype=np.uint8)


def save(values: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def numbers(path: Path) -> dict[str, list[float]]:
    _, *rows = csv.reader(path.read_text().splitlines())
    return {name: [float(value or "nan") for value in values] for name, *values in rows}


def test_a_constant_difference_has_the_psnr_of_its_square(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("a", 5), ("inner/b", 10), ("c", 0)):
        save(RANDOM, tmp_path / "originals" / f"{name}.png")
        save(RANDOM + np.uint8(shift), tmp_path / "restored" / f"{name}.bmp")
    arguments = [str(tmp_path / "restored"), str(tmp_path / "originals"), "--out", str(tmp_path / "numbers.csv")]
    assert cli.main(["compare", *arguments]) == 0
    found = numbers(tmp_path / "numbers.csv")
    assert found["a"][0] == pytest.approx(-20 * math.log10(5 / 255), abs=1e-5)
    assert found["inner/b"][0] == pytest.approx(-20 * math.log10(10 / 255), abs=1e-5)
    assert math.isinf(found["c"][0]) and found["c"][1] == pytest.approx(1, abs=1e-12)
    text = capsys.readouterr().out
    assert "1 equal their originals; the mean PSNR is that of the others" in text
    mean = (found["a"][0] + found["inner/b"][0]) / 2
    assert f"mean{'':7}{mean:.4f} ± ".replace(" ", "") in text.replace(" ", "")


def test_restorations_of_a_folder_count_by_their_mean(tmp_path: Path) -> None:
    for name in ("x", "inner/y"):
        folder = tmp_path / "out" / name
        for file in ("restored-0.png", "mean.png", "std.png", "restoration.png"):
            save(RANDOM, folder / file)
        (folder / "restoration.json").write_text("{}")
    assert images_at(tmp_path / "out") == {
        "inner/y": tmp_path / "out" / "inner/y/mean.png", "x": tmp_path / "out" / "x" / "mean.png"
    }  # fmt: skip


def test_restorations_of_more_than_eight_bits_count_by_their_mean_in_a_tiff(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "x"
    for file in ("restored-0.tif", "mean.tif", "std.png", "restoration.png"):
        save(RANDOM[:, :, 0], folder / file)
    (folder / "restoration.json").write_text("{}")
    assert images_at(tmp_path / "out") == {"x": folder / "mean.tif"}
    save(RANDOM[:, :, 0], tmp_path / "originals" / "x.png")
    assert cli.main(["compare", str(tmp_path / "out"), str(tmp_path / "originals")]) == 0


def test_sixteen_bits_and_gray_are_compared_as_such(tmp_path: Path) -> None:
    gray = RANDOM[:, :, 0]
    save(gray, tmp_path / "a.png")
    save(gray.astype(np.uint16) * 257, tmp_path / "b.png")
    places = [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert cli.main(["compare", *places, "--out", str(tmp_path / "n")]) == 0
    assert math.isinf(numbers(tmp_path / "n")["a"][0])


def test_weights_give_the_distance_of_the_network(tmp_path: Path) -> None:
    save(RANDOM, tmp_path / "a" / "x.png")
    save(RANDOM[::-1].copy(), tmp_path / "b" / "x.png")
    save_file(random_weights(0), tmp_path / "w.safetensors")
    places = [str(tmp_path / name) for name in ("a", "b")]
    options = ["--lpips", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "n.csv")]
    assert cli.main(["compare", *places, *options]) == 0
    assert numbers(tmp_path / "n.csv")["x"][2] > 0


def test_the_network_of_lpips_runs_on_the_device_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(RANDOM, tmp_path / "a" / "x.png")
    save_file(random_weights(0), tmp_path / "w.safetensors")
    here = [str(tmp_path / "a"), str(tmp_path / "a" / "x.png"), "--device", "cpu"]
    assert cli.main(["compare", *here]) == 2
    assert "--device: has no effect without --lpips" in capsys.readouterr().err
    assert lpips.load(tmp_path / "w.safetensors", torch.device("meta")).weights["net.slice1.0.bias"].is_meta
    asked: list[object] = []
    monkeypatch.setattr(lpips, "load", lambda path, device: asked.append(device))
    cli.main(["compare", *here, "--lpips", str(tmp_path / "w.safetensors")])
    assert asked == [torch.device("cpu")]


def test_what_cannot_be_compared_is_listed_and_the_rest_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "small", "torn", "alone"):
        save(RANDOM, tmp_path / "a" / f"{name}.png")
        save(RANDOM if name != "small" else RANDOM[:20], tmp_path / "b" / f"{name}.png")
    (tmp_path / "b" / "alone.png").unlink()
    (tmp_path / "b" / "torn.png").write_bytes((tmp_path / "b" / "torn.png").read_bytes()[:300])
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    text = capsys.readouterr().out
    assert "good" in text and "left out  alone: has no original" in text
    assert "small.png: must have the size of its original, 40x20; its size is 40x36" in text and "torn.png: " in text


def test_folders_without_a_common_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(RANDOM, tmp_path / "a" / "x.png")
    save(RANDOM, tmp_path / "b" / "y.png")
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "must hold images of the names of those in" in capsys.readouterr().err
    assert cli.main(["compare", str(tmp_path / "gone"), str(tmp_path / "b")]) == 2
    assert "gone: does not exist" in capsys.readouterr().err


def test_a_place_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By whatever path it is named: equal images would seem perfect restorations."""
    photo = save(RANDOM, tmp_path / "a" / "x.png")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for first, second in ((photo, photo), (tmp_path / "a", tmp_path / "link"), (tmp_path / "a", f"{tmp_path}/./a/")):
        assert cli.main(["compare", str(first), str(second)]) == 2
        assert "got the same place twice" in capsys.readouterr().err
