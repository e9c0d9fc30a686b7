"""What is asked of a training, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffusion.errors import InputError
from diffusion.reporting.requests import ask, request_of, take
from diffusion.reporting.run_folder import RunFolder
from diffusion.training import lock


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    path = request_of(tmp_path)
    assert path == tmp_path / "request.json" and take(path) is None
    with lock.held(tmp_path, print):
        ask(RunFolder(tmp_path), "sample")
        assert json.loads(path.read_text()) == {"do": "sample"}
        assert [take(path), take(path)] == ["sample", None]
        assert [each.name for each in tmp_path.iterdir()] == [lock.LOCK]


def test_a_request_to_stop_is_not_taken_back(tmp_path: Path) -> None:
    with lock.held(tmp_path, print):
        for what in ("sample", "stop", "sample"):
            ask(RunFolder(tmp_path), what)
        assert take(request_of(tmp_path)) == "stop"


def test_nothing_is_asked_of_nobody(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path.name}: is not being trained \(it is empty\)"):
        ask(run, "stop")
    with lock.held(tmp_path, print), pytest.raises(InputError, match="do: must be one of sample, stop, got 'spot'"):
        ask(run, "spot")
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_took_is_not_asked_of_the_next_training(tmp_path: Path) -> None:
    with lock.held(tmp_path, print):
        ask(RunFolder(tmp_path), "stop")
    assert list(tmp_path.iterdir()) == []
    request_of(tmp_path).write_text('{"do": "stop"}')
    with lock.held(tmp_path, print):
        assert take(request_of(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "{", "3", "[]", '{"do": 3}', '{"do": "erase"}', "\0", "[" * 100_000])
def test_what_is_no_request_is_removed(text: str, tmp_path: Path) -> None:
    path = request_of(tmp_path)
    path.write_text(text)
    assert take(path) is None and list(tmp_path.iterdir()) == []


def test_a_request_that_cannot_be_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be met at every step."""
    path = request_of(tmp_path)
    path.write_text('{"do": "sample"}')

    def refused(self: Path, target: object) -> Path:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "replace", refused)
    assert take(path) is None


def test_a_request_to_a_round_goes_to_its_run(tmp_path: Path) -> None:
    (tmp_path / "em-1").mkdir()
    with lock.held(tmp_path, print):
        ask(RunFolder(tmp_path / "em-1"), "sample")
        assert take(tmp_path / "request.json") == "sample"
