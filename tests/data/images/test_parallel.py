"""Threads work at the same time, yet results come in order and few of them wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from diffusion.data.images.parallel import MAX_WORKERS, in_order
from tests.conftest import HANGS_S


def run(function: object, items: object, total: int | None = None) -> Iterator[object]:
    return in_order(function, items, total, title="working", progress=False)  # type: ignore[arg-type]


def test_results_come_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def slow_first(i: int) -> int:
        time.sleep(0.02 if i % 8 == 0 else 0)
        return i * i

    assert list(run(slow_first, range(100))) == [i * i for i in range(100)]
    assert list(run(slow_first, [])) == []


def test_functions_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four waits for the three others."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    barrier = threading.Barrier(4)
    assert sorted(run(lambda i: barrier.wait(timeout=HANGS_S), range(8))) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_threads_are_few_on_machines_of_many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    lock, running, most = threading.Lock(), 0, 0

    def counted(i: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return i

    assert list(run(counted, range(200))) == list(range(200))
    assert 1 < most <= MAX_WORKERS


@pytest.mark.parametrize("cores", [1, 3, None])
def test_items_are_taken_only_a_few_ahead_of_the_results(cores: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(1000):
            taken = i + 1
            yield i

    for done, result in enumerate(run(lambda i: i, items())):
        assert result == done
        assert taken <= done + 1 + 4 * (cores or 1)
    assert taken == 1000


def test_an_error_comes_in_the_place_of_its_result() -> None:
    def fails_at_five(i: int) -> int:
        if i == 5:
            raise ZeroDivisionError(i)
        return i

    results = run(fails_at_five, range(20))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError, match="5"):
        next(results)


@pytest.mark.parametrize("progress", [True, False])
def test_no_bar_is_drawn_where_there_is_no_terminal(progress: bool, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(in_order(str, range(3), 3, title="working", progress=progress)) == ["0", "1", "2"]
    assert capfd.readouterr() == ("", "")
