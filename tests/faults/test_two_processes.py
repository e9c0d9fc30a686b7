"""Two processes of which one has too little memory and is lost in the end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from diffusion import checkpoint, config
from tests.conftest import finish, start, torchrun
from tests.training.test_trainer import go, losses

PROGRAM = """
import os, sys
import torch
from diffusion import cli
from diffusion.objectives import Objective

real = Objective.loss

def loss(self, denoiser, batch):
    if os.environ["RANK"] == "1" and len(batch.x) > 1:
        raise torch.OutOfMemoryError("out of memory")
    return real(self, denoiser, batch)

Objective.loss = loss
sys.exit(cli.main_as("train"))
"""
TOML = """
[data]
path = {path}
size = 8
held_out = 0.0
[backbone]
channels = [8]
blocks = 1
attention = []
[training]
batch = 8
lr = 0.001
precision = "fp32"
[report]
log = 1
checkpoint = 3
"""


def test_they_agree_where_one_has_too_little_memory_and_end_when_one_is_lost(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, program, run = tmp_path / "shapes.toml", tmp_path / "program.py", tmp_path / "run"
    path.write_text(TOML.format(path=json.dumps(str(shapes))))
    program.write_text(PROGRAM)
    launched = start(torchrun(2), str(program), str(path), "--out", str(run))
    while not checkpoint.folders(run) and launched.poll() is None:
        time.sleep(0.02)
    if launched.poll() is None:
        workers = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
        os.kill(int(workers[-1]), signal.SIGKILL)
    code, out, err = finish(launched)
    assert code != 0
    assert [line for line in out.splitlines() if "out of memory" in line] == [
        f"step 1: out of memory with {before} examples at once; from here on {after}, in {4 // after} passes per "
        "step. Batches and their order stay the same"
        for before, after in ((4, 2), (2, 1))
    ], err
    assert "process 0 of 2 does not reach another one any more" in err
    assert checkpoint.newest(run)[1] == []
    go(config.load(path), tmp_path / "one", monkeypatch, stop=3)
    expected, got = ([loss for _, loss in losses(place)[:3]] for place in (tmp_path / "one", run))
    assert got == pytest.approx(expected, rel=1e-5)
