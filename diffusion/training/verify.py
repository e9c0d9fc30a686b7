"""A proof of exact resumption: a run of a configuration that is interrupted, on this machine, ends as if it had not
been.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor

from diffusion import checkpoint, config, launched
from diffusion.config import Config
from diffusion.errors import require
from diffusion.training.metrics import METRICS
from diffusion.training.run import train

# Pictures and evaluations are made small, because they are not compared.
BRIEF = (
    "report.pictures=1",
    "report.images=2",
    "report.draws=2",
    "report.restored=0",
    "sampling.steps=1",
    "report.tracker=''",
    # Without it a GPU need not take the same step twice.
    "training.deterministic=true",
)
# Logged numbers that are measured with a clock.
TIMED = ("images_per_s", "data_wait")


def verify_resume(experiment: Config, steps: int) -> list[str]:
    """Trains for `steps` steps, then again from the checkpoint in their middle, in folders that are removed.

    Both are deterministic (`training.deterministic`), as no GPU would take the same steps twice otherwise.

    Returns a line for each tensor and logged number that is not the same to the last bit. Raises InputError unless
    steps >= 2, and in one of several processes.
    """
    require(steps >= 2, "steps", "at least 2", steps)
    require(not launched.several(), "processes", "1 for verify-resume, which trains twice", launched.processes())
    middle = steps // 2
    brief = config.override(
        experiment,
        [*BRIEF, f"training.steps={steps}", "report.log=1", f"report.checkpoint={middle}", f"report.keep={steps}"],
    )
    with tempfile.TemporaryDirectory(prefix="diffusion-") as folder:
        whole, again = Path(folder, "whole"), Path(folder, "again")
        _train(brief, whole)
        shutil.copytree(whole, again)
        for later in checkpoint.folders(again):
            if checkpoint.step_of(later) > middle:
                shutil.rmtree(later)
        _train(brief, again)
        return [*_compare_tensors(whole, again), *_compare_rows(whole, again)]


def _train(experiment: Config, run: Path) -> None:
    # The progress bar is shown, on stderr; the lines that the run prints are not.
    with redirect_stdout(io.StringIO()):
        code = train(experiment, run)
    if code:
        raise SystemExit(code)  # A signal ended it.


def _compare_tensors(whole: Path, again: Path) -> list[str]:
    one, two = (_state(run) for run in (whole, again))
    return [
        f"{name}: differs by up to {float((one[name].double() - two[name].double()).abs().max()):.3g}"
        for name in one
        if not torch.equal(one[name], two[name])
    ]


def _state(run: Path) -> dict[str, Tensor]:
    folder, _ = checkpoint.find(run)
    parts = {name: checkpoint.read(folder, name) for name in ("model", "training")}
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.tensors.items()}


def _compare_rows(whole: Path, again: Path) -> list[str]:
    one, two = ((run / METRICS).read_text(encoding="utf-8").splitlines() for run in (whole, again))
    found = [] if len(one) == len(two) else [f"{METRICS}: {len(one)} rows and {len(two)}"]
    for rows in zip(one, two, strict=False):
        mine, theirs = map(json.loads, rows)
        found += [
            f"step {mine['step']}: {name} {mine[name]} and {theirs.get(name)}"
            for name in mine
            if name not in TIMED and mine[name] != theirs.get(name)
        ]
    return found
