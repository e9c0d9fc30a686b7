"""Starts Python programs as forks of a process that has imported what they need, as importing torch takes seconds.

A program runs as `python PROGRAM` would run it, in a process of its own with its own output, environment and folder,
and ends as a process of Python ends. The server computes nothing and has a single thread, so that a fork lacks nothing.
Processes that torchrun starts are forks of torchrun, which is a fork of the server.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "accelerate.commands.launch",
    "diffusion.commands.evaluate",
    "diffusion.commands.restore",
    "diffusion.commands.sample",
    "diffusion.cli",
    "diffusion.training",
    "matplotlib.backends.backend_agg",
    "torch._dynamo",  # An optimizer needs it.
    "torch.distributed.run",
)
MESSAGE_BYTES = 1 << 20


class Forked:
    """A program that was started by `launch`: what the tests use of `subprocess.Popen`."""

    def __init__(self, report: socket.socket, out: Any, err: Any) -> None:  # noqa: ANN401, files of tempfile
        self._report, self._out, self._err = report, out, err
        self.pid = int(self._report.recv(64))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code, or minus the signal that ended the program; raises TimeoutExpired after a timeout."""
        if self.returncode is None:
            self._report.settimeout(timeout)
            try:
                self.returncode = int(self._report.recv(64))
            except (TimeoutError, BlockingIOError) as error:
                raise subprocess.TimeoutExpired("fork", timeout or 0.0) from error
        return self.returncode

    def poll(self) -> int | None:
        """Returns the exit code of a program that has ended, and None before."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end and returns what the program has printed, and its errors."""
        self.wait(timeout)
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode())
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Sends a signal to a program that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def launch(program: Sequence[str], *, folder: Path = ROOT, env: dict[str, str] | None = None) -> Forked:
    """Starts a program: a script or `-m` and a module with a function `main`, and its arguments."""
    report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115, they are read when it has ended
    message = json.dumps([list(program), str(folder), dict(os.environ if env is None else env)]).encode()
    socket.send_fds(_server(), [message], [out.fileno(), err.fileno(), theirs.fileno()])
    theirs.close()
    return Forked(report, out, err)


@cache
def _server() -> socket.socket:
    """Returns the connection to the server of this process, which ends when the connection does."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.forkserver", str(theirs.fileno())]
    subprocess.Popen(command, cwd=ROOT, env=variables, pass_fds=[theirs.fileno()])
    theirs.close()
    return mine


def serve(control: socket.socket) -> list[str]:
    """Forks a process for each program, and returns in that process the program that it is to run."""
    while True:
        message, files, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    out, err, report = files
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        os.write(report, str(pid).encode())
        os.write(report, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    for file, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(file, number)
        os.close(file)
    os.close(report)
    program, folder, variables = json.loads(message)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    return program


def run(program: Sequence[str]) -> None:
    """Runs a program in this process as its main module."""
    if program[0] == "-m":
        sys.argv = list(program[1:])
        sys.path[0] = os.getcwd()
        importlib.import_module(program[1]).main()
    else:
        sys.argv = list(program)
        sys.path[0] = str(Path(program[0]).resolve().parent)
        runpy.run_path(program[0], run_name="__main__")


def _run_unbuffered(option: str, *program: str) -> None:
    """Runs what torchrun would start as `python -u PROGRAM`."""
    assert option == "-u"
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    run(program)


def main() -> None:
    """Imports, serves, and in each fork runs the program that was asked for."""
    for name in IMPORTED:
        importlib.import_module(name)
    from torch.distributed import run as torchrun
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    def forking(config: LaunchConfig, entrypoint: str) -> elastic_launch:
        config.start_method = "fork"
        return elastic_launch(config, _run_unbuffered)

    torchrun.elastic_launch = forking  # type: ignore[attr-defined]
    gc.freeze()  # A collection would copy the memory that forks share.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run(program)


if __name__ == "__main__":
    main()
