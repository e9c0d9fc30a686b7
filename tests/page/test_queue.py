"""One queue: in order, with cancel, found again after a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diffusion.errors import InputError
from diffusion.page import queue as module
from diffusion.page.job import Job, folder_of
from tests.page.bench import Bench, give, until
from tests.page.pretended_worker import DEAF, DIES, FAILS, TELLS, WORKS

WHOLE = {"name": "result/00000.png", "role": "sample", "index": 0}


def running(bench: Bench, job: Job) -> None:
    until(lambda: bench.now(job).state == "running" and bench.now(job).done)


def test_jobs_are_carried_out_in_order_and_told(pretended: Bench) -> None:
    jobs = [pretended.add("sample", n=n) for n in (1, 2, 3)]
    ended = [pretended.ended(job) for job in jobs]
    assert [job.state for job in ended] == ["done"] * 3
    assert ended[0].files == (WHOLE,) and ended[0].numbers == {"seed": 0}
    assert (ended[0].title, ended[0].done, ended[0].total, ended[0].unit) == ("sampling", 0.5, 2, "sample")
    states = [(job["options"]["n"], job["state"]) for job in pretended.told]
    assert [state for state in states if state[1] == "done"] == [(1, "done"), (2, "done"), (3, "done")]
    assert states.index((1, "done")) < states.index((2, "running")) < states.index((2, "done"))
    assert [job.id for job in pretended.queue.jobs()] == [job.id for job in jobs[::-1]]
    record = json.loads((folder_of(pretended.run, jobs[0].id) / "job.json").read_text())
    assert record == ended[0].to_dict()


def test_a_waiting_job_leaves_the_queue_and_a_running_one_ends(pretended: Bench) -> None:
    first, second, third = pretended.add("sample", seed=WORKS), pretended.add("sample"), pretended.add("sample")
    running(pretended, first)
    assert pretended.queue.cancel(second.id) == pretended.now(second)
    assert pretended.now(second).state == "cancelled"
    pretended.queue.cancel(first.id)
    assert pretended.ended(first).state == "cancelled" and pretended.now(first).files == (WHOLE,)
    assert pretended.ended(third).state == "done"
    assert pretended.queue.cancel(first.id) == pretended.now(first) and pretended.queue.cancel("0" * 16) is None
    assert pretended.now(second).state == "cancelled" and not (folder_of(pretended.run, second.id) / "result").exists()


@pytest.mark.parametrize("again", [True, False])
def test_what_does_not_hear_is_ended_by_a_second_cancel_or_in_time(
    pretended: Bench, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 60 if again else 0.1)
    deaf, after = pretended.add("sample", seed=DEAF), pretended.add("sample")
    running(pretended, deaf)
    for _ in range(1 + again):
        pretended.queue.cancel(deaf.id)
    ended = pretended.ended(deaf)
    assert (ended.state, ended.error, ended.files) == ("cancelled", None, (WHOLE,))
    names = {path.name for path in folder_of(pretended.run, deaf.id).rglob("*")}
    assert names == {"job.json", "result", "00000.png"}, "what was half written is gone"
    assert pretended.ended(after).state == "done"


def test_a_process_that_dies_fails_its_job_and_the_next_one_has_a_new_one(pretended: Bench) -> None:
    dies, after = pretended.add("sample", seed=DIES), pretended.add("sample")
    assert pretended.ended(dies).state == "failed" and "memory" in str(pretended.now(dies).error)
    assert pretended.ended(after).state == "done"


def test_no_folder_of_this_machine_is_told(pretended: Bench) -> None:
    job = pretended.do("sample", seed=TELLS)
    assert job.lines == ("result: is in run, beside passwd",)
    assert pretended.fails("sample", seed=FAILS) == "x.png: cannot be read"


def test_after_a_restart_what_waited_goes_on_and_what_was_running_has_failed(
    pretended: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pretended.do("sample")
    running_then, waiting = (
        replace(done, id=f"{number:016x}", state=state, made=done.made + number)
        for number, state in ((1, "running"), (2, "waiting"))
    )
    for job in (running_then, waiting):
        folder = folder_of(pretended.run, job.id)
        folder.mkdir()
        replace(job, files=()).write(folder)
    half = folder_of(pretended.run, running_then.id) / "result" / ".tmp-result-1"
    half.mkdir(parents=True)
    (half / "x.png").write_bytes(b"half")
    again = Bench(pretended.run)
    try:
        assert again.now(done) == done
        assert (again.now(running_then).state, again.now(running_then).error) == ("failed", "the page ended")
        assert not half.exists()
        assert again.ended(waiting).state == "done"
    finally:
        again.queue.close()


def test_closing_cancels_what_runs_and_keeps_what_waits(pretended: Bench) -> None:
    first, second = pretended.add("sample", seed=WORKS), pretended.add("sample")
    running(pretended, first)
    pretended.queue.close()
    assert pretended.now(first).state == "cancelled" and pretended.now(second).state == "waiting"
    record = Job.read(folder_of(pretended.run, second.id))
    assert record is not None and record.state == "waiting"


def test_too_many_and_what_cannot_be_written_are_refused(pretended: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 1)
    first = pretended.add("sample", seed=WORKS)
    running(pretended, first)
    pretended.add("sample")
    with pytest.raises(InputError, match="1 jobs wait already"):
        pretended.add("sample")
    monkeypatch.undo()
    (pretended.run.parent / "other").mkdir()
    (pretended.run.parent / "other" / "page").write_text("")
    with pytest.raises(InputError, match="nothing can be written"):
        pretended.queue.add("other", pretended.run.parent / "other", "sample", {})


def test_a_new_preview_of_damage_takes_the_place_of_the_last_one_and_comes_first(
    pretended: Bench, tmp_path: Path
) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    upload = give(pretended.run, tmp_path / "x.png")
    first, sample = pretended.add("sample", seed=WORKS), pretended.add("sample")
    running(pretended, first)
    old, new = (pretended.add("degrade", upload=upload, operator=name) for name in ("gray", "blur"))
    assert pretended.now(old).state == "cancelled"
    pretended.queue.cancel(first.id)
    assert pretended.ended(sample).state == pretended.ended(new).state == "done"
    ended = [job["id"] for job in pretended.told if job["state"] == "done"]
    assert ended == [new.id, sample.id]


def test_the_last_previews_of_damage_stay_for_browsers_that_still_ask_for_them(
    pretended: Bench, tmp_path: Path
) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    upload = give(pretended.run, tmp_path / "x.png")
    jobs = [pretended.do("degrade", upload=upload, operator="gray") for _ in range(module.PASSED + 2)]
    there = [pretended.queue.job(job.id) is not None for job in jobs]
    assert there == [False] + [True] * (module.PASSED + 1)
    assert [folder_of(pretended.run, job.id).exists() for job in jobs] == there


def test_only_listed_files_are_there(pretended: Bench) -> None:
    job = pretended.do("sample")
    assert pretended.path(job, "result/00000.png").read_bytes() == b"whole"
    for name in ("job.json", "../../../config.json", "", "result", "/etc/passwd", "result/../result/00000.png"):
        assert pretended.queue.file(job.id, name) is None
    assert pretended.queue.file("0" * 16, "result/00000.png") is None
