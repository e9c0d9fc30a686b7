"""Runs whose data have moved, grown or changed, and runs that begin from the weights of others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import checkpoint
from diffusion.config import Config, ConfigError
from diffusion.errors import InputError
from diffusion.model import clocks, load
from diffusion.model.origin import EXAMPLES, RESOLVED, SOURCES
from diffusion.training import train
from diffusion.training.report import Reporter, Validation
from diffusion.training.run import best_line
from tests.conftest import tiny
from tests.training.test_trainer import assert_equal, go, losses, weights


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the last pictures and numbers of a run."""
    monkeypatch.setattr(Reporter, "finish", lambda self, model: None)
    monkeypatch.setattr(Reporter, "samples", lambda self, model: None)
    monkeypatch.setattr(Reporter, "validation", lambda self, model, losses: Validation())


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "images"))


def experiment(folder: Path | str, steps: int = 2, **sections: dict[str, object]) -> Config:
    return tiny(Path(folder), training={"steps": steps, **sections.pop("training", {})}, **sections)


def at(config: Config, path: str) -> Config:
    return replace(config, data=replace(config.data, path=path))


def add(folder: Path, name: str, shade: int = 40) -> None:
    Image.fromarray(np.full((8, 8, 3), (shade, 80, 120), np.uint8)).save(folder / name)


def stored_path(run: Path) -> str:
    return str(json.loads((run / RESOLVED).read_text())["data"]["path"])


def test_another_spelling_of_the_path_goes_on_without_a_word(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("images")
    run = tmp_path / "run"
    assert train(at(experiment(folder), "images"), run) == 0
    capsys.readouterr()
    for steps, spelling in enumerate(("images/", "./images", str(folder), "link"), 3):
        assert train(at(experiment(folder, steps), spelling), run) == 0
        assert checkpoint.newest(run)[0] == run / "checkpoints" / f"step-{steps:08d}"
        assert stored_path(run) == spelling
        out = capsys.readouterr().out
        assert "data have changed" not in out and "data.path" not in out


def test_a_run_keeps_the_clocks_of_the_examples_that_it_began_with(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(experiment(folder), run) == 0
    found, content = clocks.read(run), (run / clocks.CLOCKS).read_bytes()
    assert found is not None and found.count == 29 and "collapse" in found.marks
    add(folder / "square", "new.png")
    assert train(experiment(folder, 3), run) == 0
    assert (run / clocks.CLOCKS).read_bytes() == content
    (run / clocks.CLOCKS).unlink()
    assert train(experiment(folder, 4), run) == 0
    assert clocks.marks(run)


def test_what_keeps_the_clocks_from_a_run_is_said_and_changes_nothing_that_it_learns(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_clocks, without = tmp_path / "with", tmp_path / "without"
    assert train(experiment(folder), with_clocks) == 0

    def fail(*args: object, **options: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(clocks, "measure", fail)
    assert train(experiment(folder), without) == 0
    assert f"{without / clocks.CLOCKS}: not written (no room); the run goes on without it" in capsys.readouterr().out
    assert_equal(weights(with_clocks), weights(without))


def test_data_that_were_moved_are_known_by_content_and_the_new_place_is_stored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(experiment(folder), run)
    folder.rename(tmp_path / "moved")
    capsys.readouterr()
    assert train(experiment(tmp_path / "moved", 3), run) == 0
    line = f"data.path: '{folder}' -> '{tmp_path / 'moved'}': the same 40 examples by content; stored"
    assert line in capsys.readouterr().out.splitlines()
    assert stored_path(run) == str(tmp_path / "moved") and load(run).step == 3
    assert train(experiment(tmp_path / "moved", 4), run) == 0
    assert "data.path" not in capsys.readouterr().out


def test_a_run_whose_data_moved_ends_as_if_they_had_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(experiment(folder, 4), whole) == 0
    assert go(experiment(folder, 4), parts, monkeypatch, stop=2).exit_code == 130
    for name in (RESOLVED, EXAMPLES, SOURCES):  # These a run has from its beginning.
        shutil.copy(whole / name, parts)
    folder.rename(tmp_path / "moved")
    assert train(experiment(tmp_path / "moved", 4), parts) == 0
    assert_equal(weights(whole), weights(parts))


def test_other_images_at_another_place_are_refused_with_what_differs(folder: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    train(experiment(folder), run)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    shutil.copytree(folder, other)
    for name in ("00.png", "01.png", "02.png"):
        (other / "disk" / name).unlink()
    add(other / "square", "new.png")
    with pytest.raises(ConfigError) as caught:
        train(experiment(other, 3), run)
    assert str(caught.value) == (
        f"{run}: 1 more and 3 fewer examples than the run was trained on, of which 37 are there:\n"
        f"  data.path: '{folder}' -> '{other}'\n"
        f"Choose another folder with --out; to begin there from the weights of this run, set training.init={run}"
    )
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_images_of_another_class_are_other_examples(folder: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    train(experiment(folder), run)
    shutil.copytree(folder, other)
    (other / "disk" / "00.png").rename(other / "square" / "disk.png")
    with pytest.raises(ConfigError, match="1 more and 1 fewer examples than the run was trained on, of which 39"):
        train(experiment(other, 3), run)


def test_a_folder_that_has_grown_goes_on_and_says_so_wherever_it_lies(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(experiment(folder), run)
    add(folder / "square", "new.png")
    capsys.readouterr()
    assert train(experiment(folder, 3), run) == 0
    assert "data have changed: 1 more and 0 fewer examples than at the last training, now 41" in capsys.readouterr().out
    folder.rename(tmp_path / "moved")
    add(tmp_path / "moved" / "disk", "newer.png", 200)
    assert train(experiment(tmp_path / "moved", 4), run) == 0
    text = capsys.readouterr().out
    assert f"'{tmp_path / 'moved'}': 1 more and 0 fewer examples than at the last training, now 42; stored" in text
    assert train(experiment(tmp_path / "moved", 5), run) == 0
    assert "more and" not in capsys.readouterr().out


def test_images_that_went_from_the_folder_of_a_run_are_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(experiment(folder), run)
    (folder / "disk" / "00.png").unlink()
    assert train(experiment(folder, 3), run) == 0
    assert "data have changed: 0 more and 1 fewer examples than at the last training, now 39" in capsys.readouterr().out


def test_renamed_files_are_the_same_examples_in_another_order(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(experiment(folder), run)
    (folder / "disk" / "00.png").rename(folder / "disk" / "z.png")
    assert train(experiment(folder, 3), run) == 0
    expected = "the same 40 examples by content, in another order, so that batches are others than they would have been"
    assert f"data have changed: {expected}" in capsys.readouterr().out


def test_refused_data_do_not_replace_the_record_of_those_before(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(experiment(folder), run)
    before = (run / EXAMPLES).read_bytes(), (run / SOURCES).read_bytes()
    (folder / "ring").mkdir()
    add(folder / "ring", "0.png")
    with pytest.raises(InputError, match="was trained on examples of classes"):
        train(experiment(folder, 3), run)
    assert ((run / EXAMPLES).read_bytes(), (run / SOURCES).read_bytes()) == before


def test_a_run_of_an_earlier_version_knows_its_data_by_mean_and_deviation(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    train(experiment(folder), run)
    (run / EXAMPLES).unlink()
    (run / SOURCES).unlink()
    shutil.copytree(folder, moved)
    (moved / "disk" / "00.png").unlink()
    with pytest.raises(
        ConfigError, match="other data than the run was trained on, by their mean and standard deviation"
    ):
        train(experiment(moved, 3), run)
    shutil.copy(folder / "disk" / "00.png", moved / "disk")
    assert train(experiment(moved, 3), run) == 0
    assert "the same 40 examples, by their mean and standard deviation; stored" in capsys.readouterr().out
    assert (run / EXAMPLES).exists()


def test_a_table_of_labels_may_move_where_it_says_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "\n".join(f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.png")))
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(f"file,label\n{rows}\n")
    run = tmp_path / "run"

    def labeled(name: str, steps: int) -> Config:
        return experiment(folder, steps, data={"labels": str(tmp_path / name)})

    train(labeled("one.csv", 2), run)
    capsys.readouterr()
    assert train(labeled("two.csv", 3), run) == 0
    assert "two.csv': the same 40 examples by content; stored" in capsys.readouterr().out
    (tmp_path / "three.csv").write_text((tmp_path / "two.csv").read_text().replace("00.png,disk", "00.png,square"))
    with pytest.raises(ConfigError, match="1 more and 1 fewer examples"):
        train(labeled("three.csv", 4), run)
    assert train(experiment(folder, 4), run) == 0, "the folders say the same as the table"


def test_a_change_of_path_beside_another_change_is_refused_as_one_configuration(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(experiment(folder), run)
    with pytest.raises(ConfigError) as caught:
        train(experiment(tmp_path / "none", 3, training={"lr": 0.5}), run)
    lines = str(caught.value).splitlines()
    assert lines[1:3] == [f"  data.path: '{folder}' -> '{tmp_path / 'none'}'", "  training.lr: 0.01 -> 0.5"]
    assert lines[3].endswith(f"choose another folder and set training.init={run}")


def test_a_run_begins_from_the_averaged_weights_of_another(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    # With a rate of almost zero its first step leaves the weights where they began.
    start = experiment(shapes, 1, training={"init": str(trained), "lr": 1e-9, "batch": 4, "seed": 9})
    assert train(start, run) == 0
    found, old = (checkpoint.read(checkpoint.find(path)[0], "model").tensors for path in (run, trained))
    assert found.keys() == old.keys()
    for name in old:
        direction = torch.nn.functional.cosine_similarity(found[name].flatten(), old[name].flatten(), dim=0)
        assert direction > 0.999 or not old[name].any(), name
    text = capsys.readouterr().out
    count = len([name for name in old if not name.endswith(".rms")])
    assert f"training.init: {count} of {count} tensors taken" in text
    assert "training.init: classes taken: disk, square" in text
    assert text.index("tensors taken") < text.index("training 0.0")


def test_a_run_that_began_from_another_goes_on_exactly_when_that_is_gone(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(trained, tmp_path / "source"))
    start = experiment(shapes, 4, training={"init": str(source)})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(start, whole) == 0
    assert go(start, parts, monkeypatch, stop=2).exit_code == 130
    for name in (RESOLVED, EXAMPLES, SOURCES):
        shutil.copy(whole / name, parts)
    shutil.rmtree(source)
    assert train(start, parts) == 0
    assert_equal(weights(whole), weights(parts))
    assert losses(whole) == losses(parts)


def test_a_run_begins_with_other_images_classes_and_sizes_in_the_units_of_the_old_one(
    trained: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "disk").rename(folder / "ring")
    add(folder / "square", "bright.png", 255)
    old = load(trained, device="cpu").spec
    run = tmp_path / "run"
    assert train(experiment(folder, 2, data={"size": [8, 12]}, training={"init": str(trained)}), run) == 0
    spec = load(run, device="cpu").spec
    assert (spec.mean, spec.std) == (old.mean, old.std) and spec.shape == (3, 8, 12)
    text = capsys.readouterr().out
    assert "training.init: classes taken: square; new, at the mean of the old: ring; dropped: disk" in text
    assert f"keeps the units of {trained}, which its weights know: mean {old.mean:.6g}, std {old.std:.6g}" in text
    assert train(experiment(folder, 3, data={"size": [8, 12]}, training={"init": str(trained)}), run) == 0
    text = capsys.readouterr().out
    assert "taken" not in text and "keeps the units" not in text, "weights are taken once"
    assert "statistics" not in text, "nothing has changed"
    assert load(run, device="cpu").spec == spec


def test_the_start_may_be_spelled_otherwise_or_moved_but_not_changed(
    trained: Path, shapes: Path, tmp_path: Path
) -> None:
    source, run = Path(shutil.copytree(trained, tmp_path / "source")), tmp_path / "run"
    assert train(experiment(shapes, 1, training={"init": str(source)}), run) == 0
    assert train(experiment(shapes, 2, training={"init": f"{source}/"}), run) == 0
    source.rename(tmp_path / "moved")
    assert train(experiment(shapes, 3, training={"init": str(tmp_path / "moved")}), run) == 0
    with pytest.raises(ConfigError, match=r"training\.init: '.*moved' -> ''"):
        train(experiment(shapes, 4), run)
    other = trained / "checkpoints" / "step-00000020"
    with pytest.raises(ConfigError, match=r"training\.init: '.*moved' -> '.*step-00000020'"):
        train(experiment(shapes, 4, training={"init": str(other)}), run)


def test_a_start_that_does_not_fit_is_refused_before_data_are_read(trained: Path, tmp_path: Path) -> None:
    wrong = tiny(tmp_path / "none", backbone={"channels": [8, 8]}, training={"init": str(trained)})
    with pytest.raises(InputError, match=r"training\.init: .* has another network"):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / RESOLVED).exists()


def test_the_checkpoint_with_the_lowest_bound_is_named_at_the_end(run: Path) -> None:
    rows = [{"step": step, "held_out/total_bits_per_dim": bound} for step, bound in ((20, 3.25), (40, 3.5))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = run / "checkpoints" / "step-00000020"
    assert best_line(run, 40) == (
        f"the held-out bound was lowest at step 20: 3.2500, and 3.5000 at step 40; commands take {best} for a run"
    )
    assert load(best).step == 20
    shutil.rmtree(best)
    assert best_line(run, 40) == "", "it was not kept"
    (run / "metrics.jsonl").write_text("")
    assert best_line(run, 40) == ""


def test_the_end_of_a_run_says_where_the_lowest_bound_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [Validation({"held_out/total_bits_per_dim": 1.0 + step}) for step in range(4)]
    monkeypatch.setattr(Reporter, "validation", lambda self, model, losses: numbers[model.step])
    report: dict[str, object] = {"checkpoint": 1, "evaluate": 1}
    assert train(experiment(folder, 3, report=report), tmp_path / "run") == 0
    assert "the held-out bound was lowest at step 1: 2.0000, and 4.0000 at step 3" in capsys.readouterr().out
