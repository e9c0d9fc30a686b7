"""A run folder is read in every state, and whatever is missing or damaged is as if it were not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion import checkpoint
from diffusion.model import load
from diffusion.reporting.run_folder import RunFolder, list_runs
from diffusion.reporting.summary import curves, summary
from diffusion.training import lock
from tests.conftest import ROOT


def test_a_finished_run_says_what_it_is(trained: Path) -> None:
    run, model = RunFolder(trained), load(trained)
    assert (run.name, run.state, run.step, run.steps) == ("trained", "finished", 40, 40)
    assert run.shape == [3, 8, 8] == [*model.spec.shape] and run.classes == ["disk", "square"]
    assert run.spec["mean"] == model.spec.mean
    # A machine that is slow makes a first one by the clock.
    assert run.grids[-2:] == [20, 40] and run.grid(20) == trained / "samples" / "step-00000020.png"
    assert run.grid(39) is None and run.checkpoints == [20, 40] and run.has_model
    pictures = ["real.png", "film.png", "restoration.png", "samples.png", "loss_by_log_snr.png", "gap_by_log_snr.png"]
    assert run.pictures == pictures
    assert run.picture("real.png") == trained / "samples" / "real.png"
    assert run.picture("film.png") == trained / "film.png"
    assert run.config["training"]["steps"] == 40 and run.option("data", "held_out") == 0.2
    assert run.option("nothing", "there") is None
    assert run.incidents == [] and run.machine["precision"] == "fp32"
    assert run.evaluation is not None and run.evaluation["step"] == 40
    assert run.sources is not None and run.sources["data"]["examples"] == 40
    assert run.updated == pytest.approx((trained / "samples.png").stat().st_mtime)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "../trained/film.png", "", ".", "samples/real.png"])
def test_only_pictures_are_given(name: str, trained: Path) -> None:
    assert RunFolder(trained).picture(name) is None


def test_states(run: Path) -> None:
    found = RunFolder(run)
    assert found.state == "finished"
    with lock.held(run, print):
        assert found.state == "training"
    (run / lock.LOCK).touch()
    assert found.state == "ended abruptly"
    (run / lock.LOCK).unlink()
    (run / "samples.png").unlink()
    assert found.state == "stopped"
    shutil.rmtree(run / "checkpoints")
    assert found.state == "empty" and not found.has_model and found.step == 40


@pytest.mark.parametrize(("change", "state"), [({"steps": 80}, "stopped"), ({"steps": 80, "patience": 3}, "finished")])
def test_a_run_with_more_steps_to_go_is_stopped_unless_it_ended_by_its_patience(
    change: dict[str, int], state: str, run: Path
) -> None:
    found = RunFolder(run)
    tree = found.config
    tree["training"] |= change
    (run / "config.json").write_text(json.dumps(tree))
    assert found.state == state and found.steps == 80


def test_pictures_of_an_earlier_step_are_not_the_last_ones(run: Path) -> None:
    shutil.copyfile(run / "samples" / "step-00000020.png", run / "samples.png")
    assert RunFolder(run).state == "stopped"


def test_before_its_first_checkpoint_a_run_is_known_by_its_configuration(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    found = RunFolder(run)
    assert (found.shape, found.classes, found.spec) == ([3, 8, 8], [], {})
    (run / "config.json").write_text('{"data": {"size": [4, 6], "channels": 1}}')
    assert found.shape == [1, 4, 6]


def test_an_empty_folder_says_nothing_and_fails_nowhere(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    parts = run.config, run.rows, run.incidents, run.shape, run.classes, run.grids, run.pictures, run.machine
    assert not any(parts)
    assert (run.step, run.steps, run.updated, run.evaluation, run.sources) == (None,) * 5
    assert run.state == "empty"
    assert RunFolder(tmp_path / "gone").state == "empty"


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[1]", b"\xff\xd8\xff", b"[" * 100_000, b'{"data": 3}'])
def test_damaged_files_are_as_if_they_were_not_there(content: bytes, run: Path) -> None:
    for path in [*run.rglob("*.*")]:
        if path.is_file():
            path.write_bytes(content)
    found = RunFolder(run)
    text = json.dumps([summary(found), curves(found), found.config, found.incidents, found.sources], allow_nan=False)
    assert str(run) not in text
    assert (found.shape, found.classes, found.rows) == ([], [], ()) and found.state == "stopped"


def test_runs_are_found_below_a_folder_and_not_within_each_other(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for name in ("b", "a", "deep/er/c", "too/deep/for/d", ".hidden", "b/page/jobs", "b/em-1", "b/checkpoints/x"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    (folder / "photos").mkdir()
    assert [path.relative_to(folder).as_posix() for path in list_runs(folder)] == ["a", "b", "b/em-1", "deep/er/c"]
    assert list_runs(run) == [run] and list_runs(tmp_path / "gone") == []


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert list_runs(tmp_path) == []


def test_a_run_that_trains_is_seen_to_grow(run: Path) -> None:
    found = RunFolder(run)
    before = len(found.rows)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "loss": 0.25}\n')
    assert len(found.rows) == before + 1 and found.step == 50
    shutil.copyfile(run / "samples" / "step-00000040.png", run / "samples" / "step-00000050.png")
    assert found.grids[-3:] == [20, 40, 50]
    (run / "incidents.jsonl").write_text('{"step": 3, "line": "step 3: skipped"}\n{"step": 4}\n')
    assert found.incidents == ["step 3: skipped"]


def test_a_checkpoint_in_the_place_of_another_is_read(run: Path) -> None:
    found = RunFolder(run)
    assert found.classes == ["disk", "square"]
    folder = checkpoint.folders(run)[0]
    part = checkpoint.read(folder, "model")
    description = {**part.description, "spec": {**part.description["spec"], "classes": ["a", "b"]}}
    shutil.rmtree(folder)
    parts = {"model": checkpoint.Part(part.tensors, description)}
    checkpoint.write(run, 40, parts, keep=checkpoint.Retention(3))
    assert found.classes == ["a", "b"]


def test_nothing_here_loads_torch(trained: Path) -> None:
    program = """
import sys
from pathlib import Path
from diffusion.reporting import requests, run_folder, summary
run = run_folder.RunFolder(Path(sys.argv[1]))
assert summary.summary(run)["state"] == "finished" and summary.curves(run)["loss"]["x"]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, trained], check=True, cwd=ROOT)
