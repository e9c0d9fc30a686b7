"""Completing the images of a run: what is seen stays, names are kept, nothing of others is touched, and it goes on."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffusion import cli
from diffusion.commands import complete
from diffusion.commands.complete import paths
from diffusion.data import Dataset
from diffusion.data.images.encoding import read_info
from diffusion.interrupt import Stopped
from diffusion.model.completing import Completing
from diffusion.training import train
from diffusion.training.report import Reporter, Validation
from tests.conftest import fails, image_of, tiny

STEPS = ("--steps", "2")


@pytest.fixture
def run(learned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learned, tmp_path / "run"))


def go(run: Path, *options: str) -> int:
    return cli.main(["complete", str(run), *STEPS, *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_seen_stays_and_names_are_kept(run: Path, damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go(run, "--n", "2") == 0
    folder = run / "completed-0"
    assert f"{folder}: 40 images completed 2 times, 38 of them with holes, by step 2" in capsys.readouterr().out
    different = 0.0
    for path in sorted(damaged.rglob("*.png")):
        original = torch.from_numpy(np.array(Image.open(path)))
        seen = original[..., 3] == 255
        draws = [image_of(folder / f"draw-{i}" / path.relative_to(damaged)) for i in (1, 2)]
        assert all(torch.equal(x[:, seen], original[..., :3].permute(2, 0, 1)[:, seen]) for x in draws)
        different += float((draws[0] != draws[1]).any(0)[~seen].float().sum())
    assert different > 400, "of 456 pixels in holes"
    assert sorted(path.name for path in folder.iterdir()) == ["completed.png", "draw-1", "draw-2", "samples.json"]
    info = read_info(folder / "draw-2" / "disk" / "03.png")
    assert (info["image"], info["draw"], info["seed"], info["steps"], info["step"]) == ("disk/03.png", 2, 0, 2, 2)
    with Image.open(folder / "completed.png") as figure:
        assert figure.height > 4 * 96 and figure.width > 5 * 96, "damaged, two draws, their mean and deviation"


def test_the_same_command_goes_on_exactly(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert go(run, "--out", str(whole), "--batch", "7") == 0
    drawn: list[int] = []
    completing = Completing.__call__

    def counted(self: Completing, examples: Dataset, numbers: Sequence[int]) -> Tensor:
        drawn.append(len(numbers))
        if len(drawn) == 3:
            raise Stopped(signal.SIGINT)
        return completing(self, examples, numbers)

    monkeypatch.setattr(Completing, "__call__", counted)
    assert go(run, "--out", str(parts), "--batch", "7") == 130
    assert f"{parts}: stopped; the same command goes on" in capsys.readouterr().out
    assert len([*parts.rglob("draw-1/*/*.png")]) == 14
    (parts / "draw-1" / "disk" / "03.png").unlink()
    assert go(run, "--out", str(parts)) == 0, "in the batches of its beginning"
    assert "; 13 were there already" in capsys.readouterr().out
    assert contents(parts) == contents(whole)
    assert drawn[3:] == [7, 7, 7, 7, 5]
    assert go(run, "--out", str(parts)) == 0 and "all there" in capsys.readouterr().out
    assert len(drawn) == 8
    assert go(run, "--out", str(parts), "--again") == 0 and len(drawn) == 14
    assert contents(parts) == contents(whole)
    assert go(run, "--out", str(parts), "--n", "2") == 0 and len(drawn) == 20, "the first draws stay"


def test_files_of_others_stay(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    Image.new("RGB", (4, 4)).save(other / "mine.png")
    assert f"--out: {other} holds files that may not be samples" in fails(
        capsys, "complete", run, *STEPS, "--out", other
    )
    assert [*contents(other)] == ["mine.png"]
    assert go(run) == 0
    path = run / "completed-0" / "draw-1" / "disk" / "03.png"
    Image.new("RGB", (4, 4)).save(path)
    before = path.read_bytes()
    for again in ((), ("--again",)):
        message = fails(capsys, "complete", run, *STEPS, *again)
        assert f"{path}: is no completion of this command; move it, or name another folder" in message
    assert path.read_bytes() == before
    assert go(run, "--steps", "3") == 0
    assert "completed-0 holds samples of" in capsys.readouterr().out and (run / "completed-0-steps-3").is_dir()


def test_images_that_changed_or_came_are_completed_wherever_they_lie(
    run: Path, damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(damaged, tmp_path / "moved"))
    assert go(run) == 0
    before = contents(run / "completed-0" / "draw-1")
    shutil.copy(moved / "square" / "07.png", moved / "square" / "99.png")
    capsys.readouterr()
    assert go(run, f"data.path={moved}") == 0
    text = capsys.readouterr().out
    assert f"data.path: {moved}: 1 more and 0 fewer examples" in text and "; 40 were there already" in text
    after = contents(run / "completed-0" / "draw-1")
    assert after.keys() - before.keys() == {"square/99.png"} and before.items() <= after.items()
    (moved / "disk" / "05.png").unlink()
    message = fails(capsys, "complete", run, *STEPS, "--data-path", moved)
    assert "0 fewer" not in message and message.endswith("to restore other images, use diffusion inpaint\n")


def test_runs_that_cannot_complete_are_refused(trained: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "data.masks: " in fails(capsys, "complete", trained)
    assert "n: must be at least 1, got 0" in fails(capsys, "complete", run, "--n", "0")
    assert "data.size: belongs to the model" in fails(capsys, "complete", run, "data.size=16")
    assert "steps: must be a whole number, 1 or more, got 0" in fails(capsys, "complete", run, "--steps", "0")


def test_a_model_that_has_not_learned_to_restore_is_refused(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("finish", "samples"):
        monkeypatch.setattr(Reporter, name, lambda self, model: None)
    monkeypatch.setattr(Reporter, "validation", lambda self, model, losses: Validation())
    assert train(tiny(damaged, data={"masks": "alpha"}, training={"steps": 1}), tmp_path / "run") == 0
    assert "observed.share: must be above 0" in fails(capsys, "complete", tmp_path / "run")


def test_names_are_those_of_the_images_below_the_folder_and_all_different() -> None:
    names = ("a/b.png", "a/c.JPG", "stack.tif#3", "stack.tif#12", "../../up.png", "/etc/x.y.jpeg", "plain")
    assert [*map(str, paths(names, ".png"))] == [
        "a/b.png", "a/c.png", "stack-3.png", "stack-12.png", "up.png", "etc/x.y.png", "plain.png",
    ]  # fmt: skip
    assert [*map(str, paths(("a.jpg", "A.png", "b.png"), ".png"))] == ["a.jpg.png", "A.png", "b.png"]
    assert [*map(str, paths(("a#1", "a-1", "A-1"), ".tif"))] == ["a-1.tif", "a-1-2.tif", "A-1-3.tif"]


def test_images_without_holes_alone_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = complete.open_own
    monkeypatch.setattr(complete, "open_own", lambda *a, **o: replace(opened(*a, **o), seen=None))
    assert "data.masks: must be such that something of the images is unseen" in fails(capsys, "complete", run)
