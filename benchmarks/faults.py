"""The parts of a campaign of faults: work in child processes that are killed, a watch over file changes, code execution
and connections, and random mutations of files.

Work is forked from this process, which has imported everything and computes nothing itself: a child starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusion import checkpoint
from diffusion.data.images.decoding import FORMATS

PATIENCE_S = 120.0
KILLED = -signal.SIGKILL
# Audit events of Python (PEP 578) that change files; "open" counts if it is for writing.
CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
# Audit events that run code which a file may have chosen, or that open a connection.
RUNS = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"}


@dataclass(frozen=True)
class Outcome:
    """The outcome of one kind of fault: how often it was tried, and a line for each time that it was not survived."""

    fault: str
    tried: int
    lost: tuple[str, ...] = ()

    def row(self) -> dict[str, object]:
        """Returns the row of the table."""
        return {
            "fault": self.fault,
            "tried": self.tried,
            "survived": max(0, self.tried - len(self.lost)),
            "lost": len(self.lost),
        }


def forked(
    work: Callable[[], int | None], errors: Path, *, after: float | None = None, number: int = signal.SIGKILL
) -> int:
    """Runs `work` in a child process and returns its exit code, or minus the number of the signal that ended it.

    The exit code is the number that `work` returned, 0 for None, or 1 if it raised. Output and traceback are appended
    to the file `errors`. The child gets the signal `number` after `after` seconds, unless that is None, and is killed
    if it does not end within PATIENCE_S then.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = sys.stderr = os.fdopen(log, "w")
            code = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(code)
    for seconds, sent in ((after, number), (PATIENCE_S, signal.SIGKILL)):
        end = time.monotonic() + (seconds or 0.0)
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        if seconds is not None:
            os.kill(pid, sent)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def writes(event: str, arguments: Sequence[Any]) -> bool:
    """Whether an audit event with its arguments changes a file."""
    if event != "open":
        return event in CHANGES
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


@contextmanager
def watched(allowed: Path) -> Iterator[list[str]]:
    """Yields a list that receives a line for each forbidden event meanwhile: a file changed outside of the folder
    `allowed`, code chosen by a file, a connection.

    Python cannot remove the audit hook that this adds, so it is for a child process.
    """
    seen: list[str] = []
    on = True

    def note(event: str, arguments: Sequence[Any]) -> None:
        if on and event in RUNS:
            seen.append(f"{event}: {arguments!r:.80}")
        elif on and writes(event, arguments) and isinstance(arguments[0], str | bytes):
            # Removing a tree names files relative to an open folder, whose descriptor is the last argument.
            folder = arguments[-1] if event in ("os.remove", "os.rmdir") and arguments[-1] >= 0 else None
            base = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
            place = os.path.normpath(os.path.join(base, os.fsdecode(arguments[0])))
            if not place.startswith((str(allowed), os.devnull)):
                seen.append(f"{event}: {place}")

    sys.addaudithook(note)
    try:
        yield seen
    finally:
        on = False


def digest(run: Path) -> str:
    """Returns a hash of the results of a run: weights, their EMA, optimizer moments, logged numbers and pictures."""
    found = hashlib.sha256()
    folder, _ = checkpoint.find(run)
    for name in ("model", "training"):
        for key, tensor in sorted(checkpoint.read(folder, name).tensors.items()):
            found.update(key.encode() + tensor.contiguous().numpy().tobytes())
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.update(repr([(k, v) for k, v in sorted(row.items()) if k not in ("images_per_s", "data_wait")]).encode())
    for path in sorted(run.rglob("*.png")):
        found.update(path.name.encode() + np.asarray(Image.open(path)).tobytes())
    return found.hexdigest()


def state_of(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Returns the size, modification time and hash of every file in a folder."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def pictures(folder: Path) -> list[Path]:
    """Writes a small image file of every format in every mode that the format has, and returns their paths."""
    folder.mkdir(parents=True)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    gray16 = Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32) * 80)
    modes = {"RGB": photo, "L": photo.convert("L"), "1": photo.convert("1"), "P": photo.convert("P"), "I;16": gray16}
    modes |= {"RGBA": photo.convert("RGBA"), "LA": photo.convert("LA"), "CMYK": photo.convert("CMYK")}
    for kind in FORMATS:
        for mode, image in modes.items():
            path = folder / f"{mode.replace(';', '')}.{kind.lower()}"
            try:
                image.save(path, format=kind, **({"save_all": True, "append_images": [image]} if kind == "GIF" else {}))
            except (OSError, ValueError, KeyError):  # Not every format has every mode.
                path.unlink(missing_ok=True)
    return sorted(folder.iterdir())


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Returns `data` with bytes flipped, removed, repeated, replaced, inserted or taken from `other`, or cut short."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(changed) + 1) if rng.random() < 0.5 else rng.randrange(min(64, len(changed)) + 1)
        length = rng.choice((1, 2, 4, 16, 256))
        action = rng.randrange(6)
        if action == 0 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif action == 1:
            del changed[start : start + length]
        elif action == 2:
            changed[start:start] = changed[start : start + length]
        elif action == 3:
            changed[start : start + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"9")) * length
        elif action == 4:
            changed[start:start] = rng.randbytes(length)
        else:
            begin = rng.randrange(len(other) + 1)
            changed[start : start + length] = other[begin : begin + length]
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.2 else changed)


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 2**70, -(10**40), 0.5, -1e308, float("inf"), float("nan"), "", "os.system",
    "\0", "é" * 300, "../../etc/passwd", [], [[]], [0] * 40, [2**40], {}, {"name": "unet"}, {"name": {}},
    {"_target_": "os.system", "_args_": ["touch canary"]}, {"__reduce__": "x"},
)  # fmt: skip


def mutated_tree(tree: Any, rng: random.Random) -> Any:  # noqa: ANN401, whatever JSON holds
    """Returns a copy of nested plain values in which one is replaced, removed or new."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.15:
        return rng.choice(VALUES)
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    action = rng.random()
    if action < 0.1:
        del copy[key]  # type: ignore[arg-type]
    elif action < 0.2 and isinstance(copy, dict):
        copy[rng.choice(("_target_", "__class__", "name", "", "é", str(key) + "x"))] = rng.choice(VALUES)
    else:
        copy[key] = mutated_tree(copy[key], rng)  # type: ignore[index]
    return copy


def single_threaded() -> None:
    """Keeps this process from starting compute threads, which a forked child would miss."""
    torch.set_num_threads(1)
