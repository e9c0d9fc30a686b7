"""The handle of the process that carries out jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion.page import worker
from diffusion.page.job import Job
from diffusion.page.worker import Worker
from tests.page.bench import until
from tests.page.pretended_worker import DEAF, DIES, WORKS


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(worker, "PROGRAM", "tests.page.pretended_worker")
    made = Worker()
    yield made
    made.kill()
    assert not made.alive


def job(folder: Path, seed: int) -> Job:
    folder.mkdir()
    return Job(f"{seed:016x}", "run", "sample", {"seed": seed})


def test_events_come_until_the_state_and_jobs_follow_each_other(process: Worker, tmp_path: Path) -> None:
    for name in ("a", "b"):
        events = [*process.begin(job(tmp_path / name, 0), tmp_path, tmp_path / name)]
        assert events[0] == {"title": "sampling", "done": 0.5, "total": 2, "unit": "sample"}
        assert events[-1]["state"] == "done" and process.alive


def test_a_job_is_cancelled_by_its_id(process: Worker, tmp_path: Path) -> None:
    events = process.begin(job(tmp_path / "a", WORKS), tmp_path, tmp_path / "a")
    next(events)
    process.cancel("another")
    process.cancel(f"{WORKS:016x}")
    assert [event.get("state") for event in events] == ["cancelled"] and process.alive


def test_the_death_of_the_process_is_the_last_event(process: Worker, tmp_path: Path) -> None:
    *_, last = process.begin(job(tmp_path / "a", DIES), tmp_path, tmp_path / "a")
    assert last["state"] == "failed" and "SIGKILL" in last["error"] and "memory" in last["error"]
    until(lambda: not process.alive)
    process.cancel("x")


def test_closing_ends_the_process_and_what_it_does_not_hear_is_killed(process: Worker, tmp_path: Path) -> None:
    events = process.begin(job(tmp_path / "a", DEAF), tmp_path, tmp_path / "a")
    next(events)
    process.close(0.2)
    assert not process.alive and "SIGKILL" in next(events)["error"]
