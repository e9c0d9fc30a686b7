"""The examples that are measured: the run's own wherever they lie, known by content, or others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion import cli
from diffusion.commands.measured import data_options, open_examples
from diffusion.commands.options import Evaluate
from diffusion.errors import InputError
from diffusion.model import load, origin
from tests.conftest import fails

QUICK = ("--draws", "2", "--limit", "3", "--no-compare")
NAME = "evaluation-limit3-draws2.json"


@pytest.fixture
def moved(run: Path, shapes: Path, tmp_path: Path) -> Path:
    """The images of the run at another place, while its own are gone."""
    folder = Path(shutil.copytree(shapes, tmp_path / "moved"))
    tree = json.loads((run / origin.RESOLVED).read_text())
    tree["data"]["path"] = str(tmp_path / "gone")
    (run / origin.RESOLVED).write_text(json.dumps(tree))
    record = json.loads((run / origin.SOURCES).read_text())
    record["data"]["path"] = str(tmp_path / "gone")
    (run / origin.SOURCES).write_text(json.dumps(record))
    return folder


def written(run: Path) -> dict[str, object]:
    return dict(json.loads((run / NAME).read_text()))


@pytest.mark.parametrize("how", ["option", "override"])
def test_the_same_held_out_examples_are_measured_at_another_place(
    run: Path, trained: Path, moved: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    place = ["--data-path", str(moved)] if how == "option" else [f"data.path={moved}"]
    assert cli.main(["evaluate", str(run), *place, *QUICK]) == 0
    assert f"data.path: {moved}: the same 40 examples by content" in capsys.readouterr().out
    found, model = written(run), load(trained, device="cpu")
    _, held_out = open_examples(model, model.config.data)
    assert found["names"] == [*held_out.evenly(3).names]
    assert found["data"]["examples"] == len(held_out) and found["data"]["path"] == str(moved)  # type: ignore[index]


def test_data_that_are_gone_are_an_error_that_names_their_place(
    run: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails(capsys, "evaluate", run, *QUICK)
    assert message.startswith(f"error: data.path: {tmp_path / 'gone'} does not exist")
    assert message.endswith("; if the data of the run were moved, say where to with --data-path\n")


def test_other_images_in_the_place_of_the_run_s_are_refused(
    run: Path, moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("00.png", "01.png"):
        (moved / "disk" / name).unlink()
    message = fails(capsys, "evaluate", run, "--data-path", moved, *QUICK)
    expected = "0 more and 2 fewer examples than the run was trained on, of which 38 are there"
    assert message == f"error: data.path: {moved}: {expected}; to measure other images, use --data\n"


def test_data_that_have_grown_are_measured_and_it_is_said(
    run: Path, moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(moved / "disk" / "new.png")
    assert cli.main(["evaluate", str(run), "--data-path", str(moved), *QUICK]) == 0
    assert "1 more and 0 fewer examples than at the last training, now 41" in capsys.readouterr().out


def test_a_change_in_place_is_said(run: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (moved / "disk" / "00.png").unlink()
    moved.rename(tmp_path / "gone")
    assert cli.main(["evaluate", str(run), *QUICK]) == 0
    text = capsys.readouterr().out
    assert "data have changed: 0 more and 1 fewer examples than at the last training, now 39" in text


def test_a_run_without_a_record_knows_its_data_by_mean_and_deviation(
    run: Path, moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / origin.EXAMPLES).unlink()
    assert cli.main(["evaluate", str(run), "--data-path", str(moved), *QUICK]) == 0
    assert "the same 40 examples, by their mean and standard deviation" in capsys.readouterr().out
    (moved / "disk" / "00.png").unlink()
    assert "other data than the run was trained on, by" in fails(capsys, "evaluate", run, "--data-path", moved, *QUICK)


def test_a_relative_path_of_the_run_is_found_from_another_folder(
    run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = json.loads((run / origin.RESOLVED).read_text())
    tree["data"]["path"] = "images"
    (run / origin.RESOLVED).write_text(json.dumps(tree))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", str(run), *QUICK]) == 0
    assert written(run)["data"]["path"] == str(shapes)  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["data.size=16"],
            "data.size: belongs to the model or to its split; what may be given is data.path, data.labels",
        ),
        (["data.held_out=0.5"], "data.held_out: belongs to the model or to its split"),
        (["training.batch=2"], "training.batch: belongs to the model or to its split"),
        (["--data-path", "a", "data.path=b"], "--data-path: is given as data.path too; give it once"),
        (["--data-path", "a", "--data", "b"], "--data-path: is the place of the run's own data, --data that of others"),
        (["data.path=a", "--data", "b"], "data.path: is the place of the run's own data, --data that of others"),
    ],
)
def test_overrides_that_would_change_what_is_measured_are_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert fails(capsys, "evaluate", trained, *options).startswith(f"error: {message}")


def test_overrides_of_how_files_are_taken_apply(trained: Path) -> None:
    model = load(trained, device="cpu")
    options = data_options(Evaluate(trained, ("data.max_bad=0.5", "data.min_images=1")), model)
    assert options == replace(model.config.data, max_bad=0.5, min_images=1)


def test_one_image_is_measured_without_a_label(
    run: Path, trained: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shapes / "disk" / "00.png"
    assert cli.main(["evaluate", str(run), "--data", str(file), "--draws", "2"]) == 0
    assert f"--data: {file} is one file, without a class: measured without a label" in capsys.readouterr().out
    found = json.loads((run / "evaluation-00-draws2.json").read_text())
    assert found["examples"] == 1 and found["names"] == ["00.png"] and found["data"]["path"] == str(file)
    model = load(trained, device="cpu")
    _, examples = open_examples(model, model.config.data, other=file)
    assert examples.labels is None
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    assert np.array_equal(examples.batch([0])[0][0].numpy(), expected)


def test_a_folder_without_classes_is_measured_where_an_override_says_so(
    run: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shapes / "disk", tmp_path / "flat")
    assert "no class" in fails(capsys, "evaluate", run, "--data", tmp_path / "flat", *QUICK[:4])
    command = ["evaluate", str(run), "--data", str(tmp_path / "flat"), *QUICK[:4], "data.labels=false"]
    assert cli.main(command) == 0
    assert json.loads((run / "evaluation-flat-limit3-draws2.json").read_text())["data"]["examples"] == 20


def test_classes_are_known_by_name_when_the_folder_of_the_run_has_changed(
    trained: Path, shapes: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shapes, tmp_path / "images"))
    model = load(trained)
    model = replace(model, config=replace(model.config, data=replace(model.config.data, path=str(folder))))
    (folder / "disk").rename(tmp_path / "disk")
    parts = open_examples(model, model.config.data)
    assert all(part is not None and part.spec.classes == ("disk", "square") for part in parts)
    assert all(part is not None and part.labels is not None and set(part.labels) == {1} for part in parts)
    (tmp_path / "disk").rename(folder / "circle")
    with pytest.raises(InputError, match=r"data\.path: must have the classes disk, square, got circle"):
        open_examples(model, model.config.data)


def test_masks_of_the_run_are_not_those_of_other_images(restorer: Path, shapes: Path, tmp_path: Path) -> None:
    """A folder of masks holds for the run's own images; alpha and a color hold for others too, as one that is named."""
    for image in shapes.rglob("*.png"):
        mask = tmp_path / "masks" / image.relative_to(shapes)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 255).save(mask)
    loaded = load(restorer, device="cpu")

    def seen(masks: str, given: str | None = None, other: Path = tmp_path / "other") -> object:
        data = replace(loaded.config.data, masks=masks)
        model = replace(loaded, config=replace(loaded.config, data=data))
        options = replace(data, masks=masks if given is None else given, labels=False)
        return open_examples(model, options, other=other)[1].seen

    (tmp_path / "other").mkdir()
    shutil.copy(shapes / "disk" / "00.png", tmp_path / "other" / "x.png")
    assert seen(str(tmp_path / "masks")) is None
    assert seen("#ff00ff") is not None and seen("alpha") is not None
    assert seen("alpha", str(tmp_path / "masks"), shapes) is not None
    with pytest.raises(InputError, match=r"data\.masks: 1 images have no mask, such as x.png, and 40 masks in"):
        seen("alpha", str(tmp_path / "masks"))
