"""One page at a time carries out jobs of a run, and others say which one it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion.errors import InputError
from diffusion.page.claims import Claims
from diffusion.page.job import FOLDER
from diffusion.page.queue import Queue
from tests.conftest import ROOT, alone
from tests.page.bench import Bench, until
from tests.page.pretended_worker import WORKS

FIRST = "http://127.0.0.1:8765/"
HOLDING = """
import sys, time
from pathlib import Path
from diffusion.page.claims import Claims
claims = Claims(sys.argv[2])
claims.take(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_another_page_is_named_by_its_address_until_the_run_is_left(tmp_path: Path) -> None:
    first, second = Claims(FIRST), Claims("http://127.0.0.1:8766/")
    first.take(tmp_path / "run")
    first.take(tmp_path / "run")
    second.take(tmp_path / "other")
    with pytest.raises(InputError, match=rf"^run: another page, {FIRST}, is carrying out jobs of this run"):
        second.take(tmp_path / "run")
    first.leave(tmp_path / "run")
    second.take(tmp_path / "run")
    with pytest.raises(InputError, match="8766"):
        first.take(tmp_path / "run")
    second.close()
    first.take(tmp_path / "run")


def test_a_page_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    command, mine = [sys.executable, "-c", HOLDING, str(tmp_path), FIRST], Claims()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=alone()) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=FIRST):
            mine.take(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
    mine.take(tmp_path)


def test_two_queues_share_a_run_and_never_a_job(pretended: Bench) -> None:
    running, waiting = pretended.add("sample", seed=WORKS), pretended.add("sample")
    until(lambda: pretended.now(running).state == "running")
    other = Queue({"run": pretended.run}, address="http://127.0.0.1:8766/")
    assert other.jobs() == []
    assert {pretended.now(job).state for job in (running, waiting)} == {"running", "waiting"}
    with pytest.raises(InputError, match="another page"):
        other.add("run", pretended.run, "sample", {})
    pretended.queue.cancel(running.id)
    assert pretended.ended(waiting).state == "done"
    added = other.add("run", pretended.run, "sample", {"seed": WORKS})
    with pytest.raises(InputError, match=r"another page, http://127\.0\.0\.1:8766/, is"):
        pretended.add("sample")
    until(lambda: (job := other.job(added.id)) is not None and job.state == "running")
    other.close()
    assert pretended.ended(pretended.add("sample")).state == "done"
    assert sorted(path.name for path in (pretended.run / FOLDER).iterdir() if path.is_file()) == [".page"]
