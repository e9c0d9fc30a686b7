"""A lock tells whether somebody trains, without being taken; a lock of the dead tells how they ended."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from diffusion.reporting import state
from diffusion.training import lock
from tests.training.test_lock import hold


def test_a_lock_that_is_held_is_seen_and_stays_held(tmp_path: Path) -> None:
    assert state.is_training(tmp_path, 0.0) is False
    with lock.held(tmp_path, print):
        assert [state.is_training(tmp_path, 0.0) for _ in range(3)] == [True] * 3
    assert state.is_training(tmp_path, 0.0) is False and list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_ended_without_releasing_its_lock(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        assert state.is_training(tmp_path, 0.0) is True
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert state.is_training(tmp_path, time.time()) is None


def test_a_look_does_not_keep_a_training_from_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever begins while a page shares the lock asks again."""
    (tmp_path / lock.LOCK).write_text("process 1 on elsewhere")
    looks: list[bool] = []
    with (tmp_path / lock.LOCK).open("rb") as file:
        state.fcntl.flock(file, state.fcntl.LOCK_SH)
        monkeypatch.setattr(lock.time, "sleep", lambda _: looks.append(True) or file.close())  # type: ignore[func-returns-value]
        with lock.held(tmp_path, print):
            assert state.is_held(tmp_path / lock.LOCK)
    assert looks == [True]


def test_a_lock_of_another_machine_that_cannot_be_seen_goes_by_what_the_run_writes(tmp_path: Path) -> None:
    (tmp_path / lock.LOCK).write_text("process 1 on elsewhere")
    assert state.is_training(tmp_path, time.time()) is True
    assert state.is_training(tmp_path, time.time() - 2 * state.SILENCE_S) is None


def test_without_locks_the_process_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError("No locks available")

    monkeypatch.setattr(state.fcntl, "flock", no_locks)
    for process, training in ((os.getpid(), True), (2**22 + 1, None), (10**30, True)):
        (tmp_path / lock.LOCK).write_text(f"process {process} on {socket.gethostname()}")
        assert state.is_training(tmp_path, 0.0) is training


def test_a_round_is_trained_under_the_lock_of_its_run(tmp_path: Path) -> None:
    inner = tmp_path / "em-1"
    inner.mkdir()
    with lock.held(tmp_path, print):
        assert state.is_training(inner, 0.0) is True and state.lock_of(inner) == tmp_path / lock.LOCK
        assert state.is_training(tmp_path / "other", 0.0) is False
    with lock.held(inner, print):
        assert state.lock_of(inner) == inner / lock.LOCK
