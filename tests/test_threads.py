"""Cores, and calls that are spread over threads."""

from __future__ import annotations

import os
import threading

import pytest

from diffusion import threads
from diffusion.threads import cores, spread


def test_the_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(11)), raising=False)
    assert cores() == 11
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert cores() == 1
    monkeypatch.delattr(threads.os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize(("n", "most", "used"), [(7, 1, 1), (7, 3, 3), (2, 5, 2), (0, 3, 1)])
def test_every_number_is_in_one_part_and_every_part_in_a_thread(n: int, most: int, used: int) -> None:
    together, parts = threading.Barrier(used), {}

    def call(numbers: range) -> None:
        together.wait(10)  # All of them run at once.
        parts[threading.get_ident()] = numbers

    spread(call, n, most)
    assert len(parts) == used and sorted(i for part in parts.values() for i in part) == list(range(n))
    assert (threading.get_ident() in parts) == (used == 1)


def test_the_error_of_a_part_is_raised_as_it_is() -> None:
    error = OSError("the file")

    def call(numbers: range) -> None:
        if 5 in numbers:
            raise error

    for most in (1, 3):
        with pytest.raises(OSError, match="the file") as caught:
            spread(call, 6, most)
        assert caught.value is error
