"""One process trains in a run folder; the dead do not hold it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion.errors import InputError
from diffusion.training import lock, train
from tests.conftest import ROOT, tiny

HOLDER = """
import sys, time
from pathlib import Path
from diffusion.training import lock

with lock.held(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(run: Path) -> subprocess.Popen[str]:
    """A process that holds a run folder."""
    command = [sys.executable, "-c", HOLDER, str(run)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_second_run_is_refused_until_the_first_is_dead(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    holder = hold(run)
    try:
        with pytest.raises(InputError) as caught:
            train(tiny(shapes), run)
        assert f"process {holder.pid} on {socket.gethostname()} is training in this folder" in str(caught.value)
        assert [path.name for path in run.iterdir()] == [lock.LOCK]
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    said: list[str] = []
    with lock.held(run, said.append):
        assert len(said) == 1 and f"process {holder.pid} on" in said[0]
        assert (run / lock.LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert list(run.iterdir()) == []


def test_a_run_that_fails_releases_its_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match="does not exist"):
            train(tiny(tmp_path / "gone"), tmp_path / "run")
    assert not (tmp_path / "run" / lock.LOCK).exists()


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_taken_again(tmp_path: Path) -> None:
    with lock.held(tmp_path, print):
        (tmp_path / lock.LOCK).unlink()
        with lock.held(tmp_path, print):
            assert (tmp_path / lock.LOCK).exists()
