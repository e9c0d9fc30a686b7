"""`diffusion train`: where it trains, and what it says about images and configurations that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from diffusion import cli, config, training
from diffusion.commands.train import page_line
from diffusion.config import Config
from diffusion.model import load
from tests.conftest import draw_shapes, fails


def small(tmp_path: Path, folder: Path, text: str = "") -> list[object]:
    """A command that trains one step on a folder."""
    path = tmp_path / "small.toml"
    path.write_text(
        f"[data]\npath = {json.dumps(str(folder))}\nsize = 8\n[backbone]\nchannels = [8]\nblocks = 1\nattention = []\n"
        "[training]\nsteps = 1\nbatch = 4\nprecision = 'fp32'\n[report]\npictures = 1\nimages = 2\ndraws = 2\n"
        f"restored = 0\n[sampling]\nsteps = 1\n{text}"
    )
    return ["train", path, "--out", tmp_path / "small-run"]


def test_a_truncated_image_among_good_ones_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = draw_shapes(tmp_path / "shapes", per_class=10)
    Image.effect_noise((64, 64), 50).save(folder / "disk" / "broken.jpg")
    data = (folder / "disk" / "broken.jpg").read_bytes()
    (folder / "disk" / "broken.jpg").write_bytes(data[: len(data) // 2])
    assert cli.main([str(a) for a in small(tmp_path, folder)]) == 0
    assert "disk/broken.jpg: " in (text := capsys.readouterr().out) and "truncated" in text
    assert load(tmp_path / "small-run").step == 1


def test_the_last_line_opens_the_page_on_what_was_made(
    tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main([str(a) for a in small(tmp_path, shapes)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("to look at it in the browser: ") and line.endswith(f"page {tmp_path}/small-run --open")
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.executable", str(tmp_path / "my env" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert page_line(Path("a run")) == (
        "to look at it in the browser: 'my env/bin/python' -m diffusion page 'a run' --open"
    )
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/diffusion")
    assert page_line(Path("run")) == "to look at it in the browser: diffusion page run --open"


def test_folders_without_enough_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    missing = fails(capsys, *small(tmp_path, tmp_path / "nowhere"))
    assert "data.path: " in missing and "nowhere does not exist" in missing
    (tmp_path / "texts").mkdir()
    for i in range(9):
        (tmp_path / "texts" / f"{i}.txt").write_text("text")
    texts = fails(capsys, *small(tmp_path, tmp_path / "texts"))
    assert "0 readable images" in texts and "9 .txt" in texts
    three = fails(capsys, *small(tmp_path, draw_shapes(tmp_path / "three", per_class=2) / "disk", ""))
    assert "2 images in" in three and "at least 8 are needed" in three and "data.min_images" in three
    assert "is not set" in fails(capsys, *small(tmp_path, Path("x")), "data.path=''")


def test_mistakes_in_a_configuration(tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture) -> None:
    unknown = fails(capsys, *small(tmp_path, shapes), "training.bacth=3")
    assert "training.bacth: no such key; did you mean 'batch'?" in unknown
    assert "small.toml" in unknown
    assert "no such config file" in fails(capsys, "train", tmp_path / "smal.toml")
    assert "training.ema: input should be less than 0.288" in fails(
        capsys, *small(tmp_path, shapes), "training.ema=0.4"
    )


def test_the_run_folder_has_the_name_of_the_configuration_unless_told_otherwise(
    tmp_path: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[Config, Path, bool]] = []

    def train(experiment: Config, run: Path, *, strict: bool = False) -> int:
        trained.append((experiment, run, strict))
        return 7

    monkeypatch.setattr(training, "train", train)
    _, path, _, out = small(tmp_path, shapes)
    overrides = ["training.steps=3", "training.batch=2"]
    assert cli.main(["train", str(path), *overrides]) == 7, "the exit code of training"
    assert cli.main(["train", str(path), "--out", str(out), "--strict"]) == 7
    assert trained == [
        (config.load(Path(str(path)), overrides), Path("runs/small"), False),
        (config.load(Path(str(path))), out, True),
    ]
    assert trained[0][0].training.steps == 3
