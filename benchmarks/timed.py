"""Training for a given time.

The schedule of the learning rate needs the number of steps beforehand, so a short trial measures how many fit.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.training import seconds_per_step
from diffusion import config
from diffusion.config import Config
from diffusion.data import Dataset, identity
from diffusion.files import write_text
from diffusion.model import Model, load
from diffusion.training.trainer import Trainer

TRIAL = 40
# Training stops at the deadline; this share of the time is kept for a machine that slows down after the trial.
RESERVE = 0.06
# The record of a finished run: its settings, and the seconds that it took.
RECORD = "benchmark.json"


def train(experiment: Config, data: Dataset, run: Path, seconds: float = math.inf) -> tuple[Model, float]:
    """Trains for `seconds`, trial included, but for one step at least; without a limit, for the steps of `experiment`.

    Returns the model with averaged weights and the seconds that training took. Leaves a checkpoint in the run folder,
    in place of whatever an earlier benchmark left there.
    """
    # Training would continue from an earlier checkpoint.
    shutil.rmtree(run, ignore_errors=True)
    start, steps = time.perf_counter(), experiment.training.steps

    def trainer(steps: int) -> Trainer:
        return Trainer(config.override(experiment, [f"training.steps={steps}"]), data, data.subset([]), run)

    if seconds < math.inf:
        each = seconds_per_step(trainer(TRIAL), TRIAL)
        left = seconds - (time.perf_counter() - start)
        steps = max(1, int(left * (1 - RESERVE) / each))
    final = trainer(steps)
    with tqdm(total=steps, desc=run.name) as bar:
        while final.step < steps:
            final.update(final.maker(final.step))
            bar.update()
            if time.perf_counter() - start >= seconds:
                break
    elapsed = time.perf_counter() - start
    final.save()
    return final.model, elapsed


def once(experiment: Config, data: Dataset, run: Path, seconds: float, *, again: bool = False) -> tuple[Model, float]:
    """Trains as `train` does, unless the run folder holds a finished run of the same settings and the same data."""
    contents = identity.digest(identity.hashes_of(data))
    settings = {"config": config.to_dict(experiment), "data": contents, "seconds": seconds}
    return reused(run, settings, lambda: train(experiment, data, run, seconds), again=again)


def reused(
    run: Path, settings: Mapping[str, Any], make: Callable[[], tuple[Model, float]], *, again: bool = False
) -> tuple[Model, float]:
    """Returns the model of a run and its seconds: as `make` makes them in the run folder, or as they were made there.

    A run is made again where it was not finished, where its `settings`, plain values, were others, and with `again`.
    """
    record, plain = run / RECORD, json.loads(json.dumps(settings))
    found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() and not again else {}
    if found.get("settings") == plain:
        return load(run), float(found["seconds"])
    record.unlink(missing_ok=True)
    model, seconds = make()
    write_text(record, json.dumps({"settings": plain, "seconds": seconds}, indent=1))
    return model, seconds
