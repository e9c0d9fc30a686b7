"""A job is read as it was written, and what is damaged is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffusion.page.job import Job, folder_of, jobs_in

JOB = Job("0123456789abcdef", "a/run", "sample", {"n": 3}, made=12.5, lines=("one", "two"), files=({"name": "x"},))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, JOB.id)
    folder.mkdir(parents=True)
    JOB.write(folder)
    assert Job.read(folder) == JOB and [*jobs_in(tmp_path)] == [JOB]
    assert sorted(path.name for path in folder.iterdir()) == ["job.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 3}', "null", '{"id": "0123456789abcdef", "lines": 3}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    folder = folder_of(tmp_path, JOB.id)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(text)
    assert Job.read(folder) is None and [*jobs_in(tmp_path)] == []


def test_a_record_belongs_into_the_folder_of_its_id(tmp_path: Path) -> None:
    for name, job in (("0" * 16, JOB), ("x", replace(JOB, id="x"))):
        folder = folder_of(tmp_path, name)
        folder.mkdir(parents=True)
        job.write(folder)
        assert Job.read(folder) is None


def test_files_that_lie_elsewhere_are_not_those_of_a_job(tmp_path: Path) -> None:
    """As a run that comes from elsewhere may say."""
    folder = folder_of(tmp_path, JOB.id)
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    names = ("../../../config.json", "/etc/passwd", "link/x", ".", "", "result/x.png", "x.png")
    replace(JOB, files=tuple({"name": name, "role": "sample"} for name in names)).write(folder)
    found = Job.read(folder)
    assert found is not None and [file["name"] for file in found.files] == ["result/x.png", "x.png"]


def test_what_ended_has_ended() -> None:
    states = {"waiting": False, "running": False, "done": True, "cancelled": True, "failed": True}
    assert {state: replace(JOB, state=state).ended for state in states} == states  # type: ignore[arg-type]
