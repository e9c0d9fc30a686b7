"""Signals while a run starts, samples, evaluates and ends: what was saved is whole, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import digest
from diffusion import checkpoint, samplers
from diffusion.config import Config
from diffusion.evaluation import BoundEstimator
from diffusion.interrupt import Interrupt, Stopped, limited
from diffusion.training import run as runs
from diffusion.training import state, train
from diffusion.training.report import Reporter
from tests.conftest import tiny

# The owner and the name of a function, the number of the call in which the signal comes, and the step saved by then.
MOMENTS: dict[str, tuple[object, str, int, int]] = {
    "opening the data": (runs, "open_source", 1, 0),
    "loading the state": (state, "load_state", 1, 0),
    "sampling": (samplers.SDESolver, "step", 2, 2),
    "evaluating": (BoundEstimator, "measure", 1, 2),
    "the last grid": (Reporter, "samples", 2, 4),
    "the last pages": (Reporter, "finish", 1, 4),
}


def experiment(shapes: Path) -> Config:
    report = {"samples": 2, "evaluate": 2, "checkpoint": 100, "pictures": 2, "restored": 0}
    return tiny(shapes, training={"steps": 4}, report=report, sampling={"steps": 2})


@pytest.fixture(scope="module")
def expected(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of a run that no signal came to."""
    whole = tmp_path_factory.mktemp("whole")
    assert train(experiment(shapes), whole) == 0
    return digest(whole)


def signalled(real: Callable[..., Any], at: int, number: int) -> Callable[..., Any]:
    """Wraps a function so that its call number `at` sends a signal to this process."""
    calls = []

    def wrapped(*values: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return real(*values, **options)

    return wrapped


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_ends_at_once_and_loses_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    expected: str, moment: str,
) -> None:  # fmt: skip
    owner, name, at, saved = MOMENTS[moment]
    number, code = (signal.SIGINT, 130) if moment == "sampling" else (signal.SIGTERM, 143)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, signalled(getattr(owner, name), at, number))
        assert train(experiment(shapes), tmp_path) == code
    assert [checkpoint.step_of(folder) for folder in checkpoint.folders(tmp_path)][:1] == ([saved] if saved else [])
    so_far = f"saved to step {saved} in {tmp_path}" if saved else "before the first step was saved"
    assert f"stopped, {so_far}; the same command goes on from here" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and not (tmp_path / ".lock").exists()
    assert train(experiment(shapes), tmp_path) == 0
    assert digest(tmp_path) == expected


def test_a_signal_within_a_step_is_noted_and_heeded_where_all_is_saved() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt, interrupt.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before, "a second one acts as it would have"
        with pytest.raises(Stopped), interrupt.immediate():
            pytest.fail("it was to be heeded")
    with Interrupt() as interrupt, interrupt.deferred():
        with pytest.raises(Stopped) as caught, interrupt.immediate():
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.number == signal.SIGINT
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_does_not_come_back_is_left() -> None:
    with pytest.raises(TimeoutError), limited(0.01):
        time.sleep(60)
    with limited(0.01):
        pass
    time.sleep(0.02)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
