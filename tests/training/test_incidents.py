"""What goes wrong is found in the run folder, without the place of the run."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusion.reporting.run_folder import RunFolder
from diffusion.training import incidents


def test_lines_leave_out_the_place_of_the_run(tmp_path: Path) -> None:
    incidents.note(tmp_path, 3, f"{tmp_path}: process 1 ended; see {tmp_path}/failure.json")
    assert RunFolder(tmp_path).incidents == ["process 1 ended; see failure.json"]


def test_an_end_belongs_to_the_checkpoint_that_the_run_goes_on_from(run: Path) -> None:
    incidents.note_end(run, "step 55: ended by an error")
    shutil.rmtree(run / "checkpoints")
    incidents.note_end(run, "nothing was saved")
    path = run / "incidents.jsonl"
    assert path.read_text().count('"step": 40') == path.read_text().count('"step": 0') == 1


def test_left_out_files_are_named_once(tmp_path: Path) -> None:
    incidents.note_left_out(tmp_path, [])
    assert RunFolder(tmp_path).incidents == []
    for _ in range(2):
        incidents.note_left_out(tmp_path, [("a.png", "truncated"), ("b.png", "empty")])
    assert RunFolder(tmp_path).incidents == ["left out 2 files: a.png (truncated), b.png (empty)"]
    incidents.note_left_out(tmp_path, [(f"{i}.png", "empty") for i in range(incidents.NAMED + 5)])
    assert RunFolder(tmp_path).incidents[-1].endswith(f"{incidents.NAMED - 1}.png (empty) and 5 more")


def test_a_line_is_added_once(tmp_path: Path) -> None:
    assert [incidents.note_once(tmp_path, step, f"{tmp_path}: remembers") for step in (1, 2)] == [True, False]
    assert incidents.note_once(tmp_path, 2, "forgets") and RunFolder(tmp_path).incidents == ["remembers", "forgets"]


def test_a_disk_that_cannot_be_written_to_ends_no_run(tmp_path: Path) -> None:
    incidents.note(tmp_path / "gone", 1, "lost")
    assert not (tmp_path / "gone").exists()
