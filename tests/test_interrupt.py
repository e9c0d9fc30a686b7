"""Signals and time limits; `tests/faults/test_signals.py` has runs that receive signals."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from diffusion import interrupt as module
from diffusion.interrupt import ENDING, WARNING, Interrupt, Stopped, limited


@pytest.mark.parametrize("name", [name for name in (*ENDING, *WARNING) if hasattr(signal, name)])
def test_a_signal_raises_at_once_and_carries_its_number(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, Interrupt() as interrupt:
        signal.raise_signal(number)
    assert caught.value.number == interrupt.signal == number
    assert signal.getsignal(number) == before and not isinstance(caught.value, Exception)


def test_a_deferred_signal_is_noted_and_the_block_runs_to_its_end() -> None:
    done = False
    with Interrupt() as interrupt, interrupt.deferred():
        assert interrupt.signal is None
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done and interrupt.signal == signal.SIGINT


def test_after_the_first_signal_a_second_acts_as_outside() -> None:
    with Interrupt() as interrupt, interrupt.deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_warnings_after_the_first_signal_are_ignored_until_all_is_saved(first: int) -> None:
    """A terminal that closes sends SIGHUP twice, from the kernel and from the shell."""
    before = signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt, interrupt.deferred():
        signal.raise_signal(first)
        for name in WARNING:
            signal.raise_signal(getattr(signal, name))
        assert signal.getsignal(signal.SIGTERM) == before[1], "it ends the process at once"
    assert interrupt.signal == first
    assert (signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM)) == before


def test_a_termination_that_a_launcher_passes_on_does_not_end_what_is_being_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SLURM sends SIGTERM to all processes of a step before its time is up, torchrun among them, which sends it on."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with Interrupt() as interrupt, interrupt.deferred():
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # People still can.
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_hangup_that_is_ignored_stays_so_as_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.signal is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Windows:
    """The module signal as it is on Windows, with signals that this system has under those numbers."""

    SIGINT, SIGTERM, SIGBREAK = signal.SIGINT, signal.SIGTERM, signal.SIGUSR2
    SIG_IGN = signal.SIG_IGN
    signal, getsignal = staticmethod(signal.signal), staticmethod(signal.getsignal)


def test_signals_that_a_system_does_not_have_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "signal", Windows)
    with pytest.raises(Stopped) as caught, Interrupt():
        signal.raise_signal(Windows.SIGBREAK)
    assert caught.value.number == Windows.SIGBREAK
    with limited(0.001):
        time.sleep(0.01)


def test_without_a_signal_nothing_happens() -> None:
    with Interrupt() as interrupt, interrupt.deferred(), interrupt.immediate():
        pass
    assert interrupt.signal is None


def test_in_another_thread_signals_are_left_alone_and_time_is_not_limited() -> None:
    handlers, before = [], signal.getsignal(signal.SIGINT)

    def work() -> None:
        with Interrupt(), limited(0.001):
            time.sleep(0.01)
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_call_that_does_not_return_is_left_and_the_alarm_put_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    began = time.perf_counter()
    with pytest.raises(TimeoutError, match="it does not answer"), limited(0.01):
        time.sleep(60)
    assert time.perf_counter() - began < 30 and signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
