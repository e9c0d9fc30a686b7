"""Training for a given time.

The schedule of the learning rate needs the number of steps beforehand, so a short trial measures how many fit.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.training import seconds_per_step
from diffusion import config
from diffusion.config import Config
from diffusion.data import Dataset
from diffusion.model import Model
from diffusion.training.trainer import Trainer

TRIAL = 40
# Training stops at the deadline; this share of the time is kept for a machine that slows down after the trial.
RESERVE = 0.06


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
