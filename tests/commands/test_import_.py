"""`diffusion import`: a model of diffusers becomes a run that every command takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMScheduler
from PIL import Image

from diffusion import cli, load
from tests.conftest import fails
from tests.public_models import SIDE, change, pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline(tmp_path_factory.mktemp("saved") / "pipeline", DDPMScheduler(num_train_timesteps=50))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    folder.mkdir()
    for number in range(10):
        values = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return folder


def quietly(*arguments: object) -> None:
    assert cli.main([str(argument) for argument in arguments]) == 0


def test_every_command_takes_what_was_imported(
    saved: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quietly("import", saved)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("weights, images of 3x8x8; Eps, DiscreteBetas")
    assert said[1].startswith("clip_sample: dropped: a clipped x̂ is not the E[x|x_t]")
    assert said[2] == "runs/pipeline: written; to draw images from it: diffusion sample runs/pipeline"
    run = tmp_path / "runs" / "pipeline"
    assert json.loads((run / "import.json").read_text())["source"] == str(saved)

    quietly("sample", run, "--n", 2, "--steps", 2, "--out", tmp_path / "samples")
    assert Image.open(tmp_path / "samples" / "00001.png").size == (SIDE, SIDE)
    mask = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    mask[2:5, 2:5] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    drawing = ("--n", 1, "--steps", 2, "--method", "resampling")
    quietly("inpaint", run, photos / "1.png", "--mask", "mask.png", *drawing, "--out", tmp_path / "filled.png")
    filled, original = (np.array(Image.open(path)) for path in (tmp_path / "filled.png", photos / "1.png"))
    assert (filled[mask > 0] == original[mask > 0]).all() and (filled[mask == 0] != original[mask == 0]).any()
    quietly(
        *("restore", run, photos / "2.png", "--operator", "blur:sigma=1", "--noise", 0.1),
        *(*drawing, "--out", tmp_path / "sharp.png"),
    )
    assert Image.open(tmp_path / "sharp.png").size == (SIDE, SIDE)
    for own in ([], [f"data.path={photos}"]):
        message = fails(capsys, "evaluate", run, *own)
        assert message.endswith("was imported and has no images of its own; to measure other images, use --data\n")
    quietly("evaluate", run, "--data", photos, "--draws", 2)
    found = json.loads((run / "evaluation-photos-draws2.json").read_text())
    terms = {name: value["mean"] for name, value in found["terms"].items()}
    assert abs(terms.pop("total") - sum(terms.values())) < 1e-9
    # The weights are random, so that it takes more than the 8 bits of uniform noise, which the images are.
    assert found["unit"] == "bits/dim" and 8 < sum(terms.values()) < 20


def test_a_student_learns_from_what_was_imported_in_its_units(saved: Path, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    quietly("import", saved, "--out", run)
    student = ("distill", run, "--nfe", 2, "--out", tmp_path / "student", f"data.path={photos}")
    quietly(*student, "training.steps=1", "training.batch=4", "report.pictures=4", "report.images=2")
    assert load(tmp_path / "student").spec == load(run).spec


def test_what_has_a_place_already_is_refused_before_anything_is_read(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    message = fails(capsys, "import", tmp_path / "missing", "--out", tmp_path / "run")
    assert message.startswith(f"error: {tmp_path}/run: is there already, and nothing is overwritten; choose another")


def test_mistakes_say_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "checkpoints").mkdir(parents=True)
    assert "missing: is not there; name a folder of diffusers, a .pt file, or hf://OWNER/NAME" in fails(
        capsys, "import", "missing"
    )
    assert "is a run of this package already; all commands take it as it is" in fails(
        capsys, "import", "own", "--out", "x"
    )
    assert "hf://name: must be hf://OWNER/NAME" in fails(capsys, "import", "hf://name")
    made = pipeline(tmp_path / "sizeless", sample_size=None)
    assert "give it by --size" in fails(capsys, "import", made)
    quietly("import", made, "--size", "8x16")
    assert "weights, images of 3x8x16" in capsys.readouterr().out
    change(made / "unet" / "config.json", in_channels=1, out_channels=1)
    assert "weights: conv_in.weight: must be of shape (8, 1, 3, 3)" in fails(
        capsys, "import", made, "--size", "8", "--out", "y"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "runs", "sizeless"]
