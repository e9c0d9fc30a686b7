"""A small folder of images, and one run trained on it, that many tests look at and none changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion import cli, config
from diffusion.config import Config
from diffusion.training import train

ROOT = Path(__file__).parents[1]
SIDE = 8
PER_CLASS = 20

# Processes of tests share the cores.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def draw_shapes(folder: Path, per_class: int = PER_CLASS, side: int = SIDE) -> Path:
    """Writes disks and squares of random color and place, each kind in a subfolder of its own."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    for name in ("disk", "square"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            top, left = rng.integers(2, side - 2, 2)
            down, right = abs(rows - top), abs(columns - left)
            inside = down**2 + right**2 <= 4 if name == "disk" else np.maximum(down, right) <= 1
            colors = rng.integers(0, 256, (2, 3), dtype=np.uint8)
            Image.fromarray(np.where(inside[..., None], colors[0], colors[1])).save(folder / name / f"{i:02d}.png")
    return folder


def tiny(folder: Path, **sections: dict[str, object]) -> Config:
    """Returns a configuration that trains in a second, with sections merged into it."""
    tree: dict[str, dict[str, object]] = {
        "data": {"path": str(folder), "size": SIDE, "labels": True, "held_out": 0.2},
        "backbone": {"name": "unet", "channels": [8, 16], "blocks": 1, "attention": [1]},
        "training": {"steps": 12, "batch": 8, "precision": "fp32", "warmup": 2},
        "report": {"log": 1, "pictures": 4, "images": 4, "draws": 2, "restored": 1},
        "sampling": {"steps": 4, "precision": "fp32"},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return config.from_dict(tree)


def torchrun(count: int) -> list[str]:
    return ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]


def start(launcher: list[str], *arguments: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    """Starts a Python program by a launcher, whose processes have one thread each."""
    command = [sys.executable, "-m", *launcher, *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=folder, env=variables)


def finish(launched: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Waits for a process and returns its exit code, output and errors."""
    try:
        out, err = launched.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        launched.terminate()  # Unlike when it is killed, it takes its processes with it.
        out, err = launched.communicate()
    return launched.returncode, out, err


def image_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs a command that must end with exit code 2 and one message, and returns the message."""
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 2
    text = capsys.readouterr().err
    message = text[text.index("error: ") :]
    assert "Traceback" not in text
    return message


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("shapes") / "images")


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 steps, which no test may change; `run` is a copy."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    experiment = tiny(shapes, training={"steps": 40}, report={"checkpoint": 20, "samples": 20, "evaluate": 20})
    assert train(experiment, run) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
