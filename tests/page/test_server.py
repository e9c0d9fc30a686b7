from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from diffusion.commands.options import Page
from diffusion.errors import InputError
from diffusion.page import server
from tests.conftest import HANGS_S, ROOT, alone, fails
from tests.page.calls import make_run


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("box.lan", False),
    ],
)
def test_only_this_machine_needs_no_token(host: str, alone: bool) -> None:
    assert server.is_loopback(host) == alone
    token = server.token_of(Page(host=host))
    assert token is None if alone else token is not None and len(token) >= 32
    assert server.token_of(Page(host=host)) != token or alone
    assert server.token_of(Page(host=host, token="correct-horse")) == "correct-horse"


@pytest.mark.parametrize("token", ["", "short", "with space", "with/slash", "naïve-token", "a&b=c&d=e"])
def test_a_token_goes_into_a_url_as_it_is(token: str) -> None:
    with pytest.raises(InputError, match="--token"):
        server.token_of(Page(token=token))


def test_hosts_as_they_are_in_urls() -> None:
    assert server.shown("::1") == "[::1]" and server.shown("127.0.0.1") == "127.0.0.1"
    assert server.shown("0.0.0.0") == socket.gethostname() and server.is_wide("::") and not server.is_wide("box")


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with server.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port: {port} is taken; leave it out"):
            server.listening("127.0.0.1", port)
        monkeypatch.setattr(server, "PORT", port)
        with server.listening("127.0.0.1", None) as free:
            assert port < free.getsockname()[1] < port + server.TRIED
        monkeypatch.setattr(server, "TRIED", 1)
        with pytest.raises(InputError, match="all taken"):
            server.listening("127.0.0.1", None)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [("203.0.113.1", 0, "--host"), ("127.0.0.1", 65536, "--port"), ("127.0.0.1", -1, "--port")],
)
def test_an_address_that_is_not_ours(host: str, port: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        server.listening(host, port)


def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "PATH: must be a run or a folder of runs" in fails(capsys, "page", tmp_path / "none")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else real(name, *rest)
    )
    expected = "error: diffusion page: needs uvicorn: pip install 'reverse-diffusion[page]'\n"
    assert fails(capsys, "page", tmp_path) == expected


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A page on a free port, with the URL that it printed."""
    command = [sys.executable, "-m", "diffusion", "page", str(folder), "--port", "0", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=alone()) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def ask(url: str, address: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANGS_S)
    connection.request(method, address, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def test_it_serves_refuses_strangers_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    before = {*tmp_path.rglob("*")}
    with serving(tmp_path) as (process, url):
        assert urlsplit(url).hostname == "127.0.0.1" and urlsplit(url).query == ""
        assert ask(url, "/api/v1/runs")[0] == 200
        status, _, body = ask(url, "/api/v1/runs", Host="evil.com")
        assert status == 403 and b"Host" in body
        assert ask(url, "/api/v1/runs/a/requests", "POST", Origin="http://evil.com")[0] == 403
        listening = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANGS_S)
        listening.request("GET", "/api/v1/events")
        stream = listening.getresponse()
        assert stream.headers["content-type"].startswith("text/event-stream") and stream.readline() == b"retry: 1000\n"
        # What a listener is told of a run comes without being asked for again.
        while b'"name": "a"' not in (line := stream.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANGS_S)
    assert (process.returncode, out, err) == (130, "", "")
    assert {*tmp_path.rglob("*")} == before
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/")


def test_the_url_with_a_token_opens_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--token", "correct-horse") as (process, url):
        assert urlsplit(url).query == "token=correct-horse"
        assert ask(url, "/api/v1/runs")[0] == ask(url, "/?token=wrong-horse")[0] == 401
        status, headers, _ = ask(url, "/?token=correct-horse")
        cookie = headers["set-cookie"].partition(";")[0]
        assert status == 200 and ask(url, "/api/v1/runs", Cookie=cookie)[0] == 200
        assert ask(url, "/api/v1/runs", Authorization="Bearer correct-horse")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=HANGS_S) == -signal.SIGTERM


def test_looking_at_runs_imports_no_torch(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    program = """
import sys
from pathlib import Path
from diffusion.page import server
from diffusion.page.app import application
from tests.page.calls import call
app = application(Path(sys.argv[1]))
codes = [call(app, "GET", f"/api/v1/runs{each}").status for each in ("", "/a", "/a/curves", "/a/grids/10")]
print(codes, "torch" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ},
        check=True,
    )
    assert found.stdout == "[200, 200, 200, 200] False\n"
