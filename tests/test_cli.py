"""The commands: what they write, and what they say about input that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, figures
from diffusion.commands import options
from diffusion.commands.evaluate import open_examples
from diffusion.errors import InputError
from diffusion.evaluation import EVALUATORS
from diffusion.model import load
from diffusion.operators import OPERATORS
from diffusion.restoration import METHODS
from diffusion.samplers import SAMPLERS
from tests.conftest import draw_shapes, fails, image_of

ROOT = Path(__file__).parent.parent


def small(tmp_path: Path, folder: Path, text: str = "") -> list[object]:
    """A command that trains one step on a folder."""
    path = tmp_path / "small.toml"
    path.write_text(
        f"[data]\npath = {json.dumps(str(folder))}\nsize = 8\n[backbone]\nchannels = [8]\nblocks = 1\nattention = []\n"
        "[training]\nsteps = 1\nbatch = 4\nprecision = 'fp32'\n[report]\npictures = 1\nimages = 2\ndraws = 2\n"
        f"restored = 0\n[sampling]\nsteps = 1\n{text}"
    )
    return ["train", path, "--out", tmp_path / "small-run"]


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


def test_evaluate_prints_the_terms_and_writes_them(run: Path, capsys: pytest.CaptureFixture) -> None:
    (run / "evaluation.json").unlink()
    assert cli.main(["evaluate", str(run), "--limit", "5", "--draws", "4"]) == 0
    text = capsys.readouterr().out
    written = json.loads((run / "evaluation.json").read_text())
    assert written["examples"] == written["training"]["examples"] == 5 and "5 held-out examples" in text
    for term in ("prior", "diffusion", "decoder", "total"):
        assert f"{term:16s}{written['mean'][term]:12.4f}{written['terms'][term]['half_width']:12.4f}" in text
    assert f"{written['k']['K']['mean']:12.4f}" in text and "as Sohl-Dickstein et al. (2015)" in text
    assert figures.read_info(run / "evaluation.png")["curves"].keys() == {"held-out", "training"}


@pytest.mark.parametrize(
    ("method", "options", "sources"),
    [
        ("ode", ["--probes", "2", "--solver-steps", "3"], {"examples", "dequantization", "probes", "solver"}),
        ("importance", ["--paths", "2", "--steps", "3"], {"examples", "paths"}),
        ("bound", ["--draws", "2", "--continuous", "--no-compare"], {"examples", "noise"}),
    ],
)
def test_every_method_writes_its_numbers_and_a_figure(
    run: Path, capsys: pytest.CaptureFixture, method: str, options: list[str], sources: set[str]
) -> None:
    assert cli.main(["evaluate", str(run), "--method", method, "--limit", "3", *options]) == 0
    stem = "evaluation" if method == "bound" else f"evaluation-{method}"
    written = json.loads((run / f"{stem}.json").read_text())
    assert written["unit"] == "bits/dim" and written["terms"]["total"]["errors"].keys() == sources
    assert figures.read_info(run / f"{stem}.png")
    text = capsys.readouterr().out
    assert "bits/dim" in text and all(source in text for source in sources)
    assert ("not reliable" in text) == (method == "importance")


def test_another_folder_is_measured_by_the_model_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = tmp_path / "one"
    (one / "square").mkdir(parents=True)
    Image.new("RGB", (8, 8), (40, 50, 60)).save(one / "square" / "flat.png")
    assert cli.main(["evaluate", str(run), "--data", str(one), "--draws", "2"]) == 0
    written = json.loads((run / "evaluation-one.json").read_text())
    assert written["examples"] == 1 and "training" not in written
    text = capsys.readouterr().out
    assert "1 one examples" in text and "one example: nothing is known of others" in text
    likelihood = load(run).likelihood()
    flat = torch.tensor([40, 50, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)

    def total(label: int) -> float:
        halves = [likelihood.bound(flat, draws=1, repeat=i, label=torch.tensor([label])).total for i in range(2)]
        return torch.cat(halves).mean().item() / 192 / np.log(2)

    assert total(1) == pytest.approx(written["mean"]["total"], rel=1e-6)
    assert total(0) != pytest.approx(total(1), rel=1e-4), "a disk's is another"
    (one / "square").rename(one / "circle")
    assert "--data: must have the classes disk, square, got circle" in fails(capsys, "evaluate", run, "--data", one)


def test_classes_are_known_by_name_when_the_folder_of_the_run_has_changed(
    trained: Path, shapes: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "images"))
    model = load(trained)
    model = replace(model, config=replace(model.config, data=replace(model.config.data, path=str(folder))))
    (folder / "disk").rename(tmp_path / "disk")
    parts = open_examples(model, None)
    assert all(part is not None and part.spec.classes == ("disk", "square") for part in parts)
    assert all(part is not None and part.labels is not None and set(part.labels) == {1} for part in parts)
    (tmp_path / "disk").rename(folder / "circle")
    with pytest.raises(InputError, match=r"data\.path: must have the classes disk, square, got circle"):
        open_examples(model, None)


def test_a_truncated_image_among_good_ones_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = draw_shapes(tmp_path / "shapes", per_class=10)
    Image.effect_noise((64, 64), 50).save(folder / "disk" / "broken.jpg")
    data = (folder / "disk" / "broken.jpg").read_bytes()
    (folder / "disk" / "broken.jpg").write_bytes(data[: len(data) // 2])
    assert cli.main([str(a) for a in small(tmp_path, folder)]) == 0
    assert "disk/broken.jpg: " in (text := capsys.readouterr().out) and "truncated" in text
    assert load(tmp_path / "small-run").step == 1


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "limit: must be at least 1, got 0"),
        (["--draws", "0"], "draws: must be a positive multiple of 2, got 0"),
        (["--draws", "17"], "draws: must be a positive multiple of 2, got 17"),
        (["--steps", "0"], "steps: must be at least 1, got 0"),
        (["--method", "importance", "--paths", "1"], "paths: must be at least 2, got 1"),
        (["--method", "ode", "--probes", "1"], "probes: must be at least 2"),
        (["--method", "ode", "--tolerance", "0"], "solver.tolerance: must be a positive number, got 0"),
    ],
)
def test_evaluations_out_of_range(run: Path, capsys: pytest.CaptureFixture, options: list[str], message: str) -> None:
    assert message in fails(capsys, "evaluate", run, *options)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["sample", "run", "--smapler", "ddim"], ["--smapler", "--sampler"]),
        (["sample", "run", "--sampler", "euler"], ["euler", "ddim"]),
        (["sample", "run", "--n", "many"], ["many"]),
        (["sample"], ["RUN"]),
        (["smaple", "run"], ["sample"]),
    ],
)
def test_a_mistyped_option_is_named(capsys: pytest.CaptureFixture, arguments: list[str], parts: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert all(part in captured.err + captured.out for part in parts)


def test_the_command_line_offers_exactly_what_there_is() -> None:
    assert get_args(options.SamplerName) == tuple(SAMPLERS) and get_args(options.MethodName) == ("auto", *METHODS)
    assert ", ".join(OPERATORS) == options.OPERATORS and ", ".join(EVALUATORS) == options.EVALUATORS


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "120"}
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train.py"], ["CONFIG", "SECTION.KEY=VALUE", "--out"]),
        (["sample.py"], ["RUN", "--n", "--steps", "--image", "--mask", "--film", "repaint", "dpmpp_2m"]),
        (["-m", "diffusion"], ["train", "distill", "sample", "inpaint", "restore", "evaluate"]),
        (["-m", "diffusion"], ["inspect", "verify-resume", "doctor"]),
        (["-m", "diffusion", "distill"], ["RUN", "--nfe", "SECTION.KEY=VALUE"]),
        (["-m", "diffusion", "inpaint"], ["IMAGE", "--mask", "--method", "--n"]),
        (["-m", "diffusion", "restore"], ["IMAGE", "--operator", "--noise", "--method", "--n", "--out"]),
    ],
)
def test_help_needs_no_torch(arguments: list[str], parts: list[str]) -> None:
    done = python("-X", "importtime", *arguments, "--help")
    assert done.returncode == 0
    assert all(part in done.stdout for part in parts), done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tyro" in imported and not imported & {"torch", "numpy", "PIL", "pydantic", "matplotlib", "accelerate"}


def test_commands_start_without_what_only_draws_or_brings_data() -> None:
    slow = {"matplotlib", "torchvision", "sklearn", "scipy", "pandas"}
    done = python(
        "-c",
        "import sys, diffusion.commands.sample, diffusion.commands.evaluate, diffusion.training; print(*sys.modules)",
    )
    imported = set(done.stdout.split())
    assert {"torch", "accelerate", "diffusion.figures"} <= imported and not imported & slow


def test_the_scripts_end_with_the_code_of_the_command(tmp_path: Path) -> None:
    done = python("sample.py", str(tmp_path / "gone"))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "no such run folder" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_interrupted_command_ends_with_130(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion.commands.sample.load", interrupted)
    assert cli.main(["sample", str(trained)]) == 130
