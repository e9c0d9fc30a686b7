"""`diffusion sample`: the pictures it writes, the settings they carry, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, config, figures
from diffusion.commands import sample
from diffusion.config import Config
from diffusion.data import PixelFormat, decode
from diffusion.data.images.decoding import decode_at, to_tensor
from diffusion.grids import UniformLogSNR
from diffusion.model import Model, load
from diffusion.training import train
from tests.conftest import fails, image_of, tiny


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
    assert sorted(p.name for p in out.iterdir()) == [*(f"{i:05d}.png" for i in range(5)), "samples.json", "samples.png"]
    x = load(trained).sample(5, seed=3, label="disk", steps=3)
    for i, image in enumerate(x):
        path = out / f"{i:05d}.png"
        assert torch.equal(image_of(path), (image * 255).round().byte())
        info = figures.read_info(path)
        assert info["index"] == i and info["seed"] == 3 and info["label"] == "disk" and info["steps"] == 3
        assert info["step"] == 40 and info["run"] == "trained"
    assert figures.read_info(out / "samples.png")["seed"] == 3


def test_samples_are_given_a_pair(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Of a run that learned pairs: the samples of the model that was told the image, at the size of the model."""
    for file in shapes.rglob("*.png"):
        pair = tmp_path / "gray" / file.relative_to(shapes)
        pair.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(pair)
    run = tmp_path / "run"
    data = {"condition": str(tmp_path / "gray"), "condition_channels": 1}
    assert train(tiny(shapes, data=data, training={"steps": 3}, report={"restored": 0}), run) == 0
    Image.open(tmp_path / "gray" / "disk" / "00.png").resize((16, 16), Image.Resampling.NEAREST).save(
        tmp_path / "big.png"
    )
    command = ["sample", str(run), "--given", str(tmp_path / "big.png"), "--n", "2", "--steps", "2", "--label", "disk"]
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "big.png: 16 x 16 pixels, resized and cropped to 8 x 8" in capsys.readouterr().out
    pixels = PixelFormat(1)
    shown = to_tensor(decode_at(tmp_path / "big.png", pixels, (8, 8)), pixels)
    expected = load(run).given(shown).sample(2, steps=2, label="disk")
    out = run / "samples-0-big"
    for i, image in enumerate(expected):
        assert torch.equal(image_of(out / f"{i:05d}.png"), (image * 255).round().byte())
    assert figures.read_info(out / "00000.png")["given"] == "big.png"
    shutil.rmtree(tmp_path / "gray")
    said = fails(capsys, "evaluate", run, "--limit", "2", "--draws", "2")
    assert said.startswith("error: data.condition: ") and "does not exist" in said, "what is measured takes its pairs"


def test_a_pair_is_for_models_that_learned_pairs(trained: Path, capsys: pytest.CaptureFixture) -> None:
    said = fails(capsys, "sample", trained, "--given", "sketch.png")
    assert "--given: must be left out for a model that was not trained on pairs (data.condition)" in said


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "photo.png", "--film"], "--film: is for sampling and must not be given with --image"),
        (["--image", "photo.png", "--tune"], "--tune: is for sampling and must not be given with --image"),
        (["--image", "photo.png", "--npz"], "--npz: is for sampling and must not be given with --image"),
        (["--image", "photo.png", "--first", "3"], "--first: is for sampling and must not be given with --image"),
        (["--vary", "photo.png", "--film"], "--film: must not be given with --vary"),
        (["--vary", "a.png", "--interpolate", "a.png", "b.png"], "--interpolate: must not be given with --vary"),
        (["--interpolate", "a.png", "b.png", "--seed", "2"], "--seed: must not be given with --interpolate"),
        (["--noise-file", "z.npy", "--level", "0.3"], "--level: must not be given with --noise-file"),
        (["--level", "0.3"], "--level: needs --vary, without which it has no effect"),
        (["--noise", "0.3"], "--noise: needs --image, without which it has no effect"),
        (["--vary", "photo.png", "--size", "16"], "--size: must not be given with --vary"),
        (["--image", "photo.png", "--size", "16"], "--size: is for sampling and must not be given with --image"),
        (["--tiles", "windows"], "--tiles: needs --size, without which it has no effect"),
        (["--overlap", "3"], "--overlap: needs --size, without which it has no effect"),
        (
            ["--film", "--size", "16"],
            "--film: must not be given with --size, as tiles have no trajectory of the whole image",
        ),
        (["--film", "--through-holes"], "--film: must not be given with --through-holes"),
        (["--size", "16", "--through-holes"], "--size: must not be given with --through-holes"),
        (["--vary", "photo.png", "--through-holes"], "--through-holes: must not be given with --vary"),
        (["--data-path", "photos"], "--data-path: needs --through-holes, without which it has no effect"),
        (["--resize"], "--resize: needs --image, without which it has no effect"),
        (["--method", "mmps"], "--method: needs --image, without which it has no effect"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_without_effect_are_refused(
    capsys: pytest.CaptureFixture[str], trained: Path, options: list[str], message: str
) -> None:
    assert fails(capsys, "sample", trained, *options) == f"error: {message}\n"


def test_a_device_goes_with_every_way_of_making_images(trained: Path, tmp_path: Path) -> None:
    given = ["sample", str(trained), "--n", "1", "--steps", "2", "--device", "cpu"]
    assert cli.main([*given, "--out", str(tmp_path / "new")]) == 0
    assert cli.main([*given, "--out", str(tmp_path / "varied"), "--vary", str(tmp_path / "new" / "00000.png")]) == 0


def test_a_mask_without_an_image_is_refused(capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    message = fails(capsys, "sample", trained, "--mask", "mask.png")
    assert message == "error: --mask: needs --image, the image that it belongs to\n"


def test_the_sampler_is_written_by_name_with_its_options(trained: Path, tmp_path: Path) -> None:
    """The run's own sampler has its options; one that is given has the defaults."""
    quick = ["sample", str(trained), "--n", "1", "--steps", "2", "--out"]
    assert cli.main([*quick, str(tmp_path / "own")]) == 0
    own = config.to_dict(load(trained).config)["sampler"]
    assert figures.read_info(tmp_path / "own" / "00000.png")["sampler"] == own and own["name"]
    assert cli.main([*quick, str(tmp_path / "given"), "--sampler", "ddim"]) == 0
    given = figures.read_info(tmp_path / "given" / "00000.png")["sampler"]
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


def test_points_are_one_picture_and_arrays(tmp_path: Path) -> None:
    model = points(tmp_path / "run")
    out = tmp_path / "out"
    sampled = ["sample", str(tmp_path / "run"), "--steps", "2", "--batch", "2", "--out", str(out)]
    assert cli.main([*sampled, "--n", "3"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "points-00000.npy", "points-00002.npy", "samples.json", "samples.png"
    ]  # fmt: skip
    before = (out / "points-00002.npy").read_bytes()
    assert cli.main([*sampled, "--n", "5", "--npz"]) == 0
    written = np.concatenate([np.load(path) for path in sorted(out.glob("points-*.npy"))])
    assert np.allclose(written, model.sample(5, steps=2, batch=2)) and np.array_equal(
        np.load(out / "samples.npz")["arr_0"], written
    )
    assert (out / "points-00002.npy").read_bytes() == before, "what is there is not written again"


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "samples.png"}


def test_a_command_that_was_stopped_goes_on_to_the_same_bits(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM comes while the third batch of four is drawn, and leaves the files of two."""
    command = ["sample", str(trained), "--n", "11", "--steps", "2", "--batch", "3", "--out"]
    assert cli.main([*command, str(tmp_path / "whole")]) == 0
    drawn: list[int] = []
    real = Model.sample

    def stopped(self: Model, n: int, **options: object) -> torch.Tensor:
        drawn.append(n)
        if len(drawn) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, n, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "sample", stopped)
    out = tmp_path / "out"
    assert cli.main([*command, str(out)]) == 128 + signal.SIGTERM
    assert f"{out}: stopped with 6 of 11 samples written; the same command goes on" in capsys.readouterr().out
    assert sorted(pictures(out)) == [*(f"{i:05d}.png" for i in range(6)), "samples.json"]
    (out / "00001.png").unlink()
    assert cli.main([*command, str(out)]) == 0
    assert drawn == [3, 3, 3, 3, 3, 2], "and of the batches that were whole only that with a file that is gone"
    assert "11 samples of step 40 in" in capsys.readouterr().out
    whole = pictures(tmp_path / "whole")
    assert pictures(out) == whole and len(whole) == 12


def test_fewer_and_more_samples_of_the_same_settings_share_a_folder(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", str(run), "--steps", "1", "--batch", "4", "--n"]
    assert cli.main([*command, "4"]) == 0
    before = pictures(run / "samples-0")
    capsys.readouterr()
    assert cli.main([*command, "2"]) == 0
    said = capsys.readouterr().out
    assert f"{run / 'samples-0'}: 2 samples of step 40, all there already, seed 0; the folder holds 4" in said
    assert pictures(run / "samples-0") == before
    assert cli.main([*command, "3", "--first", "3"]) == 0
    assert "3 samples of step 40 in" in (said := capsys.readouterr().out) and ", 1 of them there already" in said
    after = pictures(run / "samples-0")
    assert before.items() <= after.items() and len(after) == 7
    assert [path.name for path in run.glob("samples-0*")] == ["samples-0"]


def test_samples_of_other_settings_get_a_folder_named_by_what_differs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sample", str(run), "--n", "2", "--steps", "2"]
    assert cli.main(command) == 0
    before = pictures(run / "samples-0")
    for options, name in (
        (["--label", "disk"], "samples-0-label-disk"),
        (["--label", "1", "--guidance", "2"], "samples-0-label-square-guidance-2"),
        (["--steps", "3"], "samples-0-steps-3"),
        (["--sampler", "ddim"], "samples-0-sampler-ddim"),
        (["--tune"], "samples-0-tuned"),
        (["--format", "npy"], "samples-0-format-npy"),
    ):
        capsys.readouterr()
        assert cli.main([*command, *options]) == 0
        assert f"{run / 'samples-0'} holds samples of " in (said := capsys.readouterr().out)
        assert f"; these go to {run / name}" in said and len(pictures(run / name)) >= 3
    assert pictures(run / "samples-0") == before
    shutil.rmtree(run / "checkpoints" / "step-00000040")
    assert cli.main(command) == 0
    assert (run / "samples-0-step-20" / "00001.png").exists() and pictures(run / "samples-0") == before
    assert cli.main([*command, "--label", "square", "--guidance", "2"]) == 0
    assert (run / "samples-0-label-square-guidance-2-step-20").exists()


def test_samples_of_earlier_versions_are_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "samples-0").mkdir()
    (run / "samples-0" / "00000.png").write_bytes(b"older")
    assert cli.main(["sample", str(run), "--n", "1", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "samples-0 holds files that may not be samples of these settings, such as 00000.png; these go to" in said
    assert (run / "samples-0" / "00000.png").read_bytes() == b"older" and (run / "samples-0-2" / "00000.png").exists()


def test_a_folder_that_holds_anything_else_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "out", ["sample", trained, "--n", "1", "--out", tmp_path / "out"]
    assert cli.main([*map(str, command), "--steps", "1", "--guidance", "2", "--label", "disk"]) == 0
    before = pictures(out)
    message = fails(capsys, *command, "--steps", "2", "--label", "disk")
    assert message == (f"error: --out: {out} holds samples of guidance 2, not 1, steps 1, not 2; name another folder\n")
    assert pictures(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    message = fails(capsys, "sample", trained, "--out", tmp_path / "mine")
    assert "holds files that may not be samples of these settings, such as notes.txt; name another" in message
    message = fails(capsys, "sample", trained, "--out", tmp_path / "mine" / "notes.txt")
    assert "notes.txt is a file; name a folder" in message
    (out / "samples.json").write_text("{")
    assert "samples.json: is damaged" in fails(capsys, *command)


def test_a_mistake_leaves_no_folder(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--label", "circle"], ["--steps", "0"], ["--guidance", "-1", "--label", "0"], ["--first", "-1"]):
        fails(capsys, "sample", trained, "--batch", "2", "--out", tmp_path / "out", *options)
        assert not (tmp_path / "out").exists()


def test_a_tuned_grid_is_measured_once_for_a_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["sample", str(trained), "--steps", "2", "--tune", "--batch", "2", "--out", str(tmp_path / "out"), "--n"]
    assert cli.main([*command, "2"]) == 0
    monkeypatch.setattr(Model, "tuned", lambda self: pytest.fail("measured again"))
    assert cli.main([*command, "4"]) == 0
    grids = [figures.read_info(tmp_path / "out" / f"{i:05d}.png")["grid"] for i in (0, 3)]
    assert grids[0] == grids[1] and grids[0]["name"] == "tabulated"


def test_a_number_of_six_digits_has_them_in_every_name(trained: Path, tmp_path: Path) -> None:
    command = ["sample", str(trained), "--steps", "1", "--batch", "2", "--out", str(tmp_path / "out"), "--n", "2"]
    assert cli.main([*command, "--first", "99999"]) == 0
    assert cli.main([*command, "--first", "0"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["000000.png", "000001.png", "099999.png", "100000.png", "samples.png"]
    x = load(trained).sample(2, first=99999, steps=1, label=[1, 0], batch=2)
    assert torch.equal(image_of(tmp_path / "out" / "100000.png"), (x[1] * 255).round().byte())


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_images_are_written_in_other_formats_and_into_one_file(kind: str, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["sample", str(trained), "--n", "3", "--steps", "2", "--format", kind, "--npz", "--no-picture"]
    assert cli.main([*command, "--out", str(out)]) == 0
    expected = (load(trained).sample(3, steps=2, label=[0, 1, 0]) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    packed = np.load(out / "samples.npz")["arr_0"]
    assert packed.dtype == np.uint8 and np.array_equal(packed, expected)
    for i in range(3):
        path = out / f"{i:05d}.{kind}"
        pixels = PixelFormat.of(load(trained).spec)
        assert np.array_equal(decode(path, pixels), expected[i]) and figures.read_info(path)["index"] == i
    assert not (out / "samples.png").exists()


def photo(path: Path, side: int = 8, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_variations_are_those_of_the_model(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = photo(tmp_path / "photo.png"), tmp_path / "out"
    command = ["sample", str(trained), "--vary", str(image), "--level", "0.3", "--n", "3", "--steps", "8"]
    assert cli.main([*command, "--batch", "3", "--out", str(out)]) == 0
    assert f"{out}: 3 variations of step 40 in" in capsys.readouterr().out
    expected = load(trained).vary(image, 0.3, n=3, steps=8, batch=3)
    for i in range(3):
        assert torch.equal(image_of(out / f"{i:05d}.png"), (expected[i] * 255).round().byte())
    assert figures.read_info(out / "00000.png")["level"] == 0.3
    large = photo(tmp_path / "large.png", side=20)
    message = fails(capsys, "sample", trained, "--vary", large, "--level", "0.3", "--out", out)
    assert "holds samples of steps 8, not 4, vary photo.png, not large.png, vary_sha256" in message
    assert "--level: must be in [0, 1]: 0 the image itself, 1 new samples, got 2" in fails(
        capsys, "sample", trained, "--vary", image, "--level", "2"
    )
    assert (
        cli.main(["sample", str(trained), "--vary", str(large), "--n", "1", "--out", str(tmp_path / "of-large")]) == 0
    )
    assert "large.png: 20 x 20 pixels, resized and cropped to 8 x 8" in capsys.readouterr().out


def test_images_between_two_begin_and_end_with_them(trained: Path, tmp_path: Path) -> None:
    a, b, out = photo(tmp_path / "a.png"), photo(tmp_path / "b.png", seed=1), tmp_path / "out"
    command = ["sample", str(trained), "--interpolate", str(a), str(b), "--n", "3", "--batch", "2", "--out", str(out)]
    assert cli.main(command) == 0
    assert torch.equal(image_of(out / "00000.png"), image_of(a)) and torch.equal(
        image_of(out / "00002.png"), image_of(b)
    )
    expected = (load(trained).interpolate(a, b, 3) * 255).round().byte()
    assert (image_of(out / "00001.png").int() - expected[1].int()).abs().max() <= 1


def test_samples_begin_with_the_noise_of_a_file(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    np.save(tmp_path / "z.npy", z)
    command = ["sample", str(trained), "--noise-file", str(tmp_path / "z.npy"), "--sampler", "ddim", "--steps", "3"]
    assert cli.main([*command, "--batch", "2", "--out", str(tmp_path / "out")]) == 0
    assert f"{tmp_path / 'out'}: 5 samples of step 40" in capsys.readouterr().out
    expected = load(trained).sample(noise=z, sampler="ddim", steps=3, label=[0, 1, 0, 1, 0], batch=2)
    for i in range(5):
        assert torch.equal(image_of(tmp_path / "out" / f"{i:05d}.png"), (expected[i] * 255).round().byte())
    assert cli.main([*command, "--n", "2", "--out", str(tmp_path / "few")]) == 0
    assert "z.npy: 2 of its 5 rows are used; --n says how many" in capsys.readouterr().out
    assert "--first: must be below 5, the number of rows" in fails(capsys, *command, "--first", "5")
    np.save(tmp_path / "z.npy", z[:, :, :4])
    assert "z.npy: must hold floats (N, 3, 8, 8), got float32 (5, 3, 4, 8)" in fails(capsys, *command)


@pytest.mark.parametrize("tiles", ["sequential", "windows"])
def test_larger_images_go_on_to_the_same_bits_and_carry_their_size(
    restorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: str
) -> None:
    command = ["sample", str(restorer), "--n", "5", "--steps", "2", "--size", "12x20", "--tiles", tiles, "--batch", "8"]
    assert cli.main([*command, "--out", str(tmp_path / "whole")]) == 0
    drawn: list[int] = []
    real = Model.sample

    def stopped(self: Model, n: int, **options: object) -> torch.Tensor:
        drawn.append(n)
        if len(drawn) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, n, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "sample", stopped)
    out = tmp_path / "out"
    assert cli.main([*command, "--out", str(out)]) == 128 + signal.SIGTERM
    assert drawn[0] == (4 if tiles == "sequential" else 1), "of 2 x 4 tiles two are drawn at once, or all of them"
    monkeypatch.setattr(Model, "sample", real)
    assert cli.main([*command, "--out", str(out)]) == 0
    assert pictures(out) == pictures(tmp_path / "whole") and len(pictures(out)) == 6
    expected = load(restorer).sample(5, steps=2, size=(12, 20), tiles=tiles, label=[0, 1, 0, 1, 0], batch=8)
    for number in range(5):
        off = (image_of(out / f"{number:05d}.png").float() - (expected[number] * 255).round()).abs()
        assert off.shape == (3, 12, 20) and float(off.max()) <= 1
    info = figures.read_info(out / "00003.png")
    assert (info["size"], info["tiles"], info["overlap"]) == ("12x20", tiles, 4)


def test_samples_of_another_size_get_a_folder_of_their_own(restorer: Path, tmp_path: Path) -> None:
    own = shutil.copytree(restorer, tmp_path / "run")
    quick = ["sample", str(own), "--n", "1", "--steps", "1"]
    for more in ([], ["--size", "8"], ["--size", "16"], ["--size", "16", "--tiles", "windows"]):
        assert cli.main([*quick, *more]) == 0
    found = sorted(path.name for path in own.glob("samples-*"))
    assert found == [
        "samples-0",
        "samples-0-size-16x16-tiles-sequential-overlap-4",
        "samples-0-size-16x16-tiles-windows-overlap-4",
    ]
    assert "size" not in figures.read_info(own / "samples-0" / "00000.png"), "8x8 are plain samples"


def test_a_size_that_cannot_be_drawn_is_named_before_a_folder_is_made(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (["--size", "16"], "tiles: must be windows for this model, whose network takes no noise level for every pixel"),
        (["--size", "wide"], "--size: must be a height and a width, as in 128x256, or one number for both, got 'wide'"),
        (["--size", "4x20"], "size: must be at least 8x8, that of the model's images"),
    ):
        assert message in fails(capsys, "sample", trained, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_an_image_is_drawn_around_under_its_name(
    restorer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(restorer, tmp_path / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    quick = ["sample", str(own), "--n", "2", "--steps", "2", "--around", str(tmp_path / "photo.png")]
    assert cli.main([*quick, "--size", "12x20", "--place", "1", "9"]) == 0
    folder = own / "samples-0-around-photo"
    for number in range(2):
        path = folder / f"{number:05d}.png"
        assert np.array_equal(image_of(path).permute(1, 2, 0)[1:11, 9:15], pixels)
        info = figures.read_info(path)
        assert info["around"] == "photo.png" and info["place"] == "1x9" and len(info["around_sha256"]) == 64
    assert "--around: needs --size" in fails(capsys, *quick)
    assert "--place: needs --size" in fails(capsys, "sample", own, "--place", "1", "1")
    assert "place: must be a row from 0 to 2" in fails(capsys, *quick, "--size", "12x20", "--place", "3", "0")
