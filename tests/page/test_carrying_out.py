"""The process that carries out jobs: what it tells, and how a job ends in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from diffusion.files import TEMPORARY
from diffusion.page.carrying_out import Lines, Reporter
from diffusion.page.job import Job, folder_of
from tests.conftest import ROOT
from tests.page.bench import Bench, give, give_mask, until
from tests.page.work.images import photograph

STEPS = 1000


def sampling(bench: Bench, folder: Path) -> dict[str, object]:
    return {"kind": "sample", "n": 64}


def inpainting(bench: Bench, folder: Path) -> dict[str, object]:
    upload = give(bench.run, photograph(folder / "photo.png", (24, 24)))
    known = Image.new("1", (24, 24), 1)
    known.paste(0, (6, 6, 14, 14))
    return {"kind": "inpaint", "upload": upload, "mask": give_mask(bench.run, upload, known), "n": 8}


def restoring(bench: Bench, folder: Path) -> dict[str, object]:
    upload = give(bench.run, photograph(folder / "photo.png", (8, 8)))
    return {"kind": "restore", "upload": upload, "operator": "blur:sigma=1", "damage": True, "noise": 0.1, "n": 8}


@pytest.mark.parametrize("work", [sampling, inpainting, restoring])
def test_a_cancelled_job_ends_within_one_step_and_the_next_one_is_carried_out(
    bench: Bench, tmp_path: Path, work: Callable[[Bench, Path], dict[str, object]]
) -> None:
    options = work(bench, tmp_path)
    job, after = bench.add(str(options.pop("kind")), steps=STEPS, **options), bench.add("sample", n=1, steps=1)
    until(lambda: bench.now(job).preview and bench.now(job).done)
    process = bench.queue._worker
    at_cancel = bench.now(job)
    bench.queue.cancel(job.id)
    ended = bench.ended(job)
    assert ended.state == "cancelled" and ended.error is None
    assert at_cancel.total is not None
    # One step, and those whose events came while the signal went its way.
    assert ended.done - at_cancel.done <= 20 / STEPS * at_cancel.total, "it did not work on"
    left = [path for path in folder_of(bench.run, job.id).rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.startswith(TEMPORARY)]
    assert {path.name for path in left} <= {"job.json", "preview.png", "samples.json"}
    with Image.open(folder_of(bench.run, job.id) / "preview.png") as preview:
        preview.load()
    assert bench.ended(after).state == "done"
    assert bench.queue._worker is process, "it ended by itself, and the process goes on"


def test_a_job_that_is_cancelled_before_it_begins_does_nothing(bench: Bench) -> None:
    job = bench.add("sample", n=64, steps=STEPS)
    until(lambda: bench.now(job).state == "running")
    bench.queue.cancel(job.id)
    assert bench.ended(job).state == "cancelled"


def test_lines_that_commands_print_are_lines_of_the_job(bench: Bench) -> None:
    job = bench.do("sample", n=2, steps=2)
    assert len(job.lines) == 1 and job.lines[0].startswith("result: 2 samples of step 40 in ")


def test_lines_end_where_they_end_and_bars_are_their_last_state() -> None:
    told: list[str] = []
    lines = Lines(told.append)
    for text in ("one\ntw", "o\n\n", "10%\r20%\r30%\n", "rest"):
        assert lines.write(text) == len(text)
    assert told == ["one", "two", "30%"] and not lines.isatty()


def test_pictures_are_made_now_and_then(tmp_path: Path) -> None:
    import torch

    sent: list[dict[str, object]] = []
    reporter = Reporter(tmp_path, sent.append)
    reporter.looked(lambda: torch.rand(20, 3, 700, 40))
    reporter.looked(lambda: pytest.fail("too early"))
    reporter.moved("sampling", 0, 4, "image")
    reporter.moved("sampling", 1, 4, "image")
    reporter.moved("sampling", 4, 4, "image")
    assert sent == [
        {"preview": 1},
        {"title": "sampling", "done": 0, "total": 4, "unit": "image"},
        {"title": "sampling", "done": 4, "total": 4, "unit": "image"},
    ]
    with Image.open(tmp_path / "preview.png") as picture:
        assert max(picture.size) < 2000


def test_a_process_whose_page_is_gone_ends_with_its_job(restorer: Path, tmp_path: Path) -> None:
    """As when the page is killed: nobody reads, and nothing more comes."""
    job = Job("0" * 16, "run", "sample", {"n": 64, "steps": STEPS})
    what = {"job": job.id, "run": str(restorer), "folder": str(tmp_path), "kind": job.kind, "options": job.options}
    command = [sys.executable, "-m", "diffusion.page.carrying_out"]
    pipe, env = subprocess.PIPE, {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, env=env) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{json.dumps(what)}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"\n" and "title" in json.loads(process.stdout.readline())
        process.stdin.close()
        process.stdout.close()
        assert process.wait(60) == 0
    assert not [*tmp_path.rglob(f"{TEMPORARY}*")]
