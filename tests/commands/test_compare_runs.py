"""`diffusion compare` of runs writes one page, and refuses what is no run among them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import cli


def test_runs_are_written_side_by_side(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(trained, tmp_path / "other")
    third = shutil.copytree(trained, tmp_path / "third")
    out = tmp_path / "page.html"
    assert cli.main(["compare", str(trained), str(other), str(third), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("bits/dim") == 3 and f"{out}: open it in a browser" in said
    text = out.read_text()
    assert "3 runs side by side" in text and "Their configurations are the same." in text


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        (["images"], "images: must be a run folder like"),
        (["run"], "must be named once, got the same run twice"),
        (["other", "--lpips", "w.safetensors"], "--lpips: has no effect on runs"),
        (["other", "--out", "page.csv"], "--out: must end with .html for runs, got page.csv"),
        (["other", "--out", "missing/page.html"], "missing/page.html: cannot be written"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    rest: list[str],
    words: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
        shutil.copy(trained / "config.json", tmp_path / name)
    (tmp_path / "images").mkdir()
    assert cli.main(["compare", "run", *rest]) == 2
    assert words in capsys.readouterr().err


def test_images_have_one_place_of_originals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [tmp_path / f"{name}.png" for name in "abc"]
    for path in places:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    assert cli.main(["compare", *map(str, places)]) == 2
    assert "images have one place of originals" in capsys.readouterr().err
