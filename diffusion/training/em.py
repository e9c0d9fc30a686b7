"""Expectation maximization on images with holes: what nobody has seen is completed, and the completions are learned.

    E    x ~ p_k(x | what was seen of it)          for every training image, by the network of round k
    M    the network of round k + 1 learns from these x as it would from whole images

Were both steps exact, the likelihood of what was seen would not decrease (Dempster, Laird and Rubin 1977). With a
network that restores this is DiffEM (Hosseini et al. 2025, arXiv 2510.12691): E is plain sampling, and M teaches the
same network.

In the M-step half of the images are taken as they were completed. Half of what is observed of these goes by the masks
of the data, each image by that of another one, so that the next E-step asks what was learned. By its own mask an image
would teach only what the network knew when it drew it. The other half are as they were in the run, with unseen holes:
the bound of what was seen asks for such images, and a network that meets them no more forgets them.

    RUN/em-1, RUN/em-2, ...    a round each: a run that begins from the averaged weights of the one before
    RUN/em.json                the rounds that are decided

A round is kept if the held-out bound of what was seen falls by more than the standard error of the difference, example
by example. Its model is then the newest of RUN, and the next round begins. Otherwise its weights are dropped, and no
other round follows.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from diffusion import checkpoint, distributed
from diffusion.checkpoint import Part, Retention
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec
from diffusion.data.observing import Given
from diffusion.errors import InputError, require
from diffusion.evaluation import evaluate
from diffusion.evaluation.evaluator import Evaluation
from diffusion.files import write_text
from diffusion.model import describe, load
from diffusion.model.completing import with_holes
from diffusion.training import completions, metrics
from diffusion.training.report import FINAL_IMAGES, Reporter

RECORD = "em.json"
# Trains a round in its folder, on completed examples with the holes that they had; returns the exit code.
Train = Callable[[Config, Path, Dataset, Given], int]


@dataclass(frozen=True)
class Round:
    """A round that was decided: the held-out bound before and after it in `unit`, by how much it is better, and the
    standard error of that. It `follows` a step of the run, whose last one is then `step`: the same unless it is `kept`.
    """

    number: int
    follows: int
    step: int
    unit: str
    before: float
    after: float
    better: float
    error: float
    kept: bool

    def __str__(self) -> str:
        change = f"held-out bound {self.before:.4f} -> {self.after:.4f} {self.unit}"
        which = "better" if self.better > 0 else "worse"
        by = f"{which} by {abs(self.better):.4f} with a standard error of {self.error:.4f}"
        decided = f"kept as step {self.step}" if self.kept else f"dropped; the run ends with step {self.step}"
        return f"round {self.number}: {change}, {by}: {decided}"


def rounds(run: Path) -> list[Round]:
    """Returns the rounds of a run that are decided. Raises InputError for a record that is damaged."""
    path = run / RECORD
    try:
        return [Round(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error}); restore it, or choose another folder with --out") from error


def check(experiment: Config, run: Path, training: Dataset, held_out: Dataset) -> None:
    """Raises InputError where there is nothing to complete, too little to decide by, and for other `training.steps`
    than those after which the rounds began.
    """
    if not (experiment.training.em or rounds(run)):
        return
    rule = "set with training.em, to say what of the images nobody has seen"
    require(training.seen is not None, "data.masks", rule, repr(experiment.data.masks))
    require(len(with_holes(training)), "training.em", "0, as nothing of the training images is unseen", 1)
    rule = "large enough to keep two examples for the bound by which the rounds of training.em end"
    require(len(held_out) > 1, "data.held_out", rule, experiment.data.held_out)
    for first in rounds(run)[:1]:
        rule = f"{first.follows}, after which the rounds of training.em began (training.init={run} begins a new run)"
        require(experiment.training.steps == first.follows, "training.steps", rule, experiment.training.steps)


def steps_of(experiment: Config) -> int:
    """The steps of a round."""
    return experiment.training.em_steps or experiment.training.steps


def improve(experiment: Config, run: Path, training: Dataset, held_out: Dataset, train: Train) -> int:
    """Goes through the rounds of a trained run that are left, and returns the exit code.

    All of it goes on where it was interrupted.
    """
    done = rounds(run)
    for last in done[-1:]:
        _settle(experiment, run, last)
        if not last.kept or last.number >= experiment.training.em:
            ended = "dropped" if not last.kept else "kept; to go on, raise training.em"
            distributed.say(f"{run}: already at step {last.step}, with round {last.number} {ended}")
    assert training.seen is not None
    holes = Given(training.subset(with_holes(training)).seen)  # type: ignore[arg-type]
    before: Evaluation | None = None
    while len(done) < experiment.training.em and (not done or done[-1].kept):
        number = len(done) + 1
        folder, options, model = run / f"em-{number}", experiment.training, load(run)
        seed = options.seed + number
        examples = completions.completed(folder, model, training, options.em_draws, seed)
        learning = replace(options, steps=steps_of(experiment), init=str(run), seed=seed, em=0)
        if code := train(replace(experiment, training=learning), folder, examples, holes):
            return code
        before = before or evaluate(model, held_out, limit=FINAL_IMAGES, shared=True)
        after = evaluate(load(folder), held_out, limit=FINAL_IMAGES, shared=True)
        found = decided(number, model.step, steps_of(experiment), before, after)
        done, before = [*done, found], after
        distributed.say(str(found))
        if distributed.is_main():
            write_text(run / RECORD, json.dumps([asdict(each) for each in done], indent=1))
        _settle(experiment, run, found)
    _show(experiment, run, training, held_out, done)
    return 0


def decided(number: int, step: int, steps: int, before: Evaluation, after: Evaluation) -> Round:
    """The decision about a round of `steps` that follows `step`, by evaluations of the same examples."""
    differences = torch.tensor(before.values, dtype=torch.float64) - torch.tensor(after.values, dtype=torch.float64)
    better, error = float(differences.mean()), float(differences.std()) / math.sqrt(len(differences))
    kept = better > error
    bounds = before.mean["total"], after.mean["total"]
    return Round(number, step, step + steps * kept, before.unit, *bounds, better, error, kept)


def _settle(experiment: Config, run: Path, found: Round) -> None:
    """Makes the model of a round that is kept the newest of its run, and drops what is not needed any more."""
    folder = run / f"em-{found.number}"
    if distributed.is_main():
        steps = [checkpoint.step_of(each) for each in checkpoint.folders(run)]
        if found.kept and found.step not in steps:
            _publish(experiment, run, folder, found.step)
        shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)
        completions.remove(folder)
    distributed.barrier()


def _publish(experiment: Config, run: Path, folder: Path, step: int) -> None:
    """Writes the newest checkpoint of a round as that of a step of its run."""
    found, _ = checkpoint.find(folder)
    model, state = (checkpoint.read(found, name) for name in ("model", "training"))
    spec = DataSpec.from_dict(model.description["spec"])
    parts = {
        "model": Part(model.tensors, describe(experiment, spec, step)),
        "training": Part(state.tensors, {**state.description, "step": step}),
    }
    report, steps = experiment.report, [checkpoint.step_of(each) for each in checkpoint.folders(run)]
    best = metrics.best(run / metrics.METRICS, steps) if report.keep_best else None
    checkpoint.write(run, step, parts, keep=Retention(report.keep, report.keep_every, best))


def _show(experiment: Config, run: Path, training: Dataset, held_out: Dataset, done: list[Round]) -> None:
    """Makes the last pictures and numbers of a run again, by the model of its last round that was kept."""
    reporter = Reporter(experiment, run, training, held_out, distributed.say)
    shown = [each.step for each in done if each.kept][-1:]
    for step in shown:
        if not distributed.largest(reporter.finished(step)):
            reporter.finish(load(run))
