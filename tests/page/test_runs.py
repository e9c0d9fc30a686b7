from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

from diffusion.page.app import application
from tests.page.calls import call, make_run

RUNS = "/api/v1/runs"


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        run = make_run(tmp_path / name)
        for path in (run, *run.rglob("*")):
            os.utime(path, (2e9 - age, 2e9 - age))
    found = call(application(tmp_path), "GET", RUNS).json["runs"]
    assert [(one["name"], one["updated"]) for one in found] == [("new", 2e9), ("old", 2e9 - 1)]


def test_a_folder_without_runs_has_none(tmp_path: Path) -> None:
    assert call(application(tmp_path / "none"), "GET", RUNS).json == {"runs": []}


def test_a_run_with_what_can_be_chosen_and_without_paths_of_this_machine(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "deep" / "a",
        data={"path": "/home/jane/photos", "size": 8},
        sampler={"name": "ddim"},
        sampling={"steps": 9, "guidance": 2.0},
    )
    (run / "sources.json").write_text(json.dumps({"data": {"path": str(tmp_path / "images"), "examples": 3}}))
    for address in (f"{RUNS}/deep/a", f"{RUNS}/deep%2Fa"):
        found = call(application(tmp_path), "GET", address)
        assert found.json["name"] == "deep/a" and found.json["config"]["data"]["path"] == "photos"
        assert found.json["sources"]["data"] == {"path": "images", "examples": 3}
        assert found.json["sampling"] == {"sampler": "ddim", "steps": 9, "guidance": 2.0}
        assert (found.json["grid_steps"], found.json["pictures"]) == ([10], ["film.png"])
        assert "heun" in found.json["samplers"] and "auto" in found.json["methods"]
        assert str(tmp_path).encode() not in found.body


def test_curves(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    found = call(application(tmp_path), "GET", f"{RUNS}/a/curves").json
    assert found["loss"] == {"x": [10, 20, 30], "y": [1, 1 / 2, 1 / 3]} and found["bits"]["x"] == []


def test_a_training_is_asked_and_nothing_else(tmp_path: Path) -> None:
    run, app = make_run(tmp_path / "a"), application(tmp_path)
    refused = call(app, "POST", f"{RUNS}/a/requests", b'{"do": "stop"}')
    assert refused.status == 409 and "is not being trained" in refused.error
    assert not (run / "request.json").exists()
    with (run / ".lock").open("w") as lock:
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        for what in ("sample", "stop"):
            found = call(app, "POST", f"{RUNS}/a/requests", json.dumps({"do": what}).encode())
            assert (found.status, found.json) == (202, {"do": what})
            assert json.loads((run / "request.json").read_text()) == {"do": what}


@pytest.mark.parametrize("body", [b"", b"{}", b'{"do": "format"}', b'{"do": ["stop"]}', b'{"do": "\\ud800"}'])
def test_what_cannot_be_asked_for(tmp_path: Path, body: bytes) -> None:
    make_run(tmp_path / "a")
    found = call(application(tmp_path), "POST", f"{RUNS}/a/requests", body)
    assert found.status == 400 and '{"do": "sample"}' in found.error
