"""`diffusion sample`: the pictures it writes, the settings they carry, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion import cli, config, figures
from diffusion.commands import sample
from diffusion.config import Config
from diffusion.grids import UniformLogSNR
from diffusion.model import Model, load
from diffusion.training import train
from tests.conftest import fails, image_of


def test_sample_writes_a_grid_and_every_image(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    arguments = [
        "sample",
        str(trained),
        "--n",
        "5",
        "--seed",
        "3",
        "--label",
        "disk",
        "--steps",
        "3",
        "--out",
        str(out),
    ]
    assert cli.main(arguments) == 0
    assert f"{out}: 5 samples of step 40" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [*(f"{i:05d}.png" for i in range(5)), "samples.png"]
    x = load(trained).sample(5, seed=3, label="disk", steps=3)
    for i, image in enumerate(x):
        path = out / f"{i:05d}.png"
        assert torch.equal(image_of(path), (image * 255).round().byte())
        info = figures.read_info(path)
        assert info["index"] == i and info["seed"] == 3 and info["label"] == "disk" and info["steps"] == 3
        assert info["step"] == 40 and info["run"] == "trained"
    assert figures.read_info(out / "samples.png")["seed"] == 3


def test_samples_go_into_the_run_folder_unless_told_otherwise(run: Path) -> None:
    assert cli.main(["sample", str(run), "--n", "1", "--steps", "1", "--seed", "7"]) == 0
    assert (run / "samples-7" / "samples.png").exists()


def test_a_film_is_a_strip_and_an_animation(trained: Path, tmp_path: Path) -> None:
    assert cli.main(["sample", str(trained), "--n", "2", "--film", "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "film.png") as strip, Image.open(tmp_path / "film.gif") as animation:
        assert strip.width > 4 * strip.height / 2 and animation.n_frames > 5
    assert figures.read_info(tmp_path / "film.png")["seed"] == 0


def test_runs_that_cannot_be_used(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "no such run folder" in fails(capsys, "sample", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    empty = fails(capsys, "sample", tmp_path / "empty")
    assert "no checkpoint in this folder" in empty and "diffusion train CONFIG --out" in empty
    for step in (40, 20):
        path = run / "checkpoints" / f"step-{step:08d}" / "model.safetensors"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if step == 40:
            assert cli.main(["sample", str(run), "--n", "1", "--steps", "1"]) == 0
            text = capsys.readouterr().out
            assert "model.safetensors has" in text and "using step-00000020 instead" in text
            assert figures.read_info(run / "samples-0" / "samples.png")["step"] == 20
    both = fails(capsys, "sample", run)
    assert "no usable checkpoint" in both and "step-00000040" in both and "step-00000020" in both


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "5"], "label: must be 0 to 1 or one of disk, square, got 5"),
        (["--label", "circle"], "got 'circle'"),
        (["--n", "0"], "n: must be at least 1, got 0"),
        (["--steps", "0"], "steps: must be at least 1, got 0"),
        (["--batch", "0"], "batch: must be at least 1, got 0"),
    ],
)
def test_options_out_of_range(trained: Path, capsys: pytest.CaptureFixture, options: list[str], message: str) -> None:
    assert message in fails(capsys, "sample", trained, *options)


@pytest.mark.parametrize("option", ["film", "tune"])
def test_options_of_sampling_are_refused_with_an_image(
    capsys: pytest.CaptureFixture[str], trained: Path, option: str
) -> None:
    message = fails(capsys, "sample", trained, "--image", "photo.png", f"--{option}")
    assert message == f"error: --{option}: is for sampling and must not be given with --image\n"


def test_a_mask_without_an_image_is_refused(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    message = fails(capsys, "sample", trained, "--mask", "mask.png")
    assert message == "error: --mask: needs --image, the image that it belongs to\n"


def test_the_sampler_is_written_by_name_with_its_options(trained: Path, tmp_path: Path) -> None:
    """The run's own sampler has its options; one that is given has the defaults."""
    quick = ["sample", str(trained), "--n", "1", "--steps", "2", "--out", str(tmp_path)]
    assert cli.main(quick) == 0
    own = config.to_dict(load(trained).config)["sampler"]
    assert figures.read_info(tmp_path / "00000.png")["sampler"] == own and own["name"]
    assert cli.main([*quick, "--sampler", "ddim"]) == 0
    given = figures.read_info(tmp_path / "00000.png")["sampler"]
    assert isinstance(given, dict) and given["name"] == "ddim"


def test_the_steps_written_are_those_of_the_grid_and_not_those_asked_for(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last log-SNRs of this grid lie beyond the schedule, so that its last two times fall together."""
    model = load(trained)
    short = replace(model, config=replace(model.config, grid=UniformLogSNR(last=1e6)))
    times = short.config.grid(model.denoiser.schedule, 5)
    assert len(times) - 1 == 4
    monkeypatch.setattr(sample, "load", lambda run: short)
    assert cli.main(["sample", str(trained), "--n", "1", "--steps", "5", "--out", str(tmp_path)]) == 0
    info = figures.read_info(tmp_path / "00000.png")
    assert info["steps"] == 4 and info["grid"] == {"name": "uniform", "first": None, "last": 1e6}


def test_without_a_label_the_classes_take_turns(trained: Path, tmp_path: Path) -> None:
    assert cli.main(["sample", str(trained), "--n", "3", "--steps", "2", "--out", str(tmp_path)]) == 0
    expected = load(trained).sample(3, steps=2, label=[0, 1, 0])
    for i, image in enumerate(expected):
        assert torch.equal(image_of(tmp_path / f"{i:05d}.png"), (image * 255).round().byte())
    assert figures.read_info(tmp_path / "samples.png")["label"] == "in turn"


def test_a_tuned_model_samples_on_the_grid_that_was_measured(trained: Path, tmp_path: Path) -> None:
    assert cli.main(["sample", str(trained), "--n", "1", "--steps", "2", "--tune", "--out", str(tmp_path)]) == 0
    grid = figures.read_info(tmp_path / "00000.png")["grid"]
    tuned = load(trained).tuned()
    assert grid == json.loads(json.dumps(config.to_dict(tuned.config)["grid"])) and grid["name"] == "tabulated"
    expected = (tuned.sample(1, steps=2, label=[0])[0] * 255).round().byte()
    assert torch.equal(image_of(tmp_path / "00000.png"), expected)


def points(run: Path) -> Model:
    """A model of points, trained for one step."""
    experiment: Config = config.from_dict(
        {
            "data": {"source": "swiss_roll", "count": 100},
            "backbone": {"name": "mlp", "width": 8, "blocks": 1},
            "training": {"steps": 1, "batch": 8, "precision": "fp32"},
            "report": {"pictures": 4, "images": 4, "draws": 2},
        }
    )
    assert train(experiment, run) == 0
    return load(run)


def test_points_are_one_picture_and_numbers(tmp_path: Path) -> None:
    model = points(tmp_path / "run")
    out = tmp_path / "out"
    assert cli.main(["sample", str(tmp_path / "run"), "--n", "3", "--steps", "2", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["points.json", "samples.png"]
    written = torch.tensor(json.loads((out / "points.json").read_text()))
    assert torch.allclose(written, model.sample(3, steps=2))
