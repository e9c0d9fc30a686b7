"""A run: opens the data of a configuration, refuses a run folder that does not fit it, trains, and writes the final
pictures and numbers. Rounds that complete its images follow (`em.py`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

from diffusion import checkpoint, distributed
from diffusion.config import Config
from diffusion.data import Dataset, open_source
from diffusion.data.observing import Given
from diffusion.errors import InputError
from diffusion.interrupt import Interrupt, Stopped
from diffusion.model import clocks
from diffusion.model.origin import spec_of
from diffusion.reporting.names import PICTURES, REAL
from diffusion.training import determinism, em, incidents, lock, metrics, patience
from diffusion.training.beginning import in_units_of_init
from diffusion.training.distill import in_units_of_teacher
from diffusion.training.prepare import follow, prepare
from diffusion.training.trainer import Outcome, Trainer, join


def train(experiment: Config, run: Path, *, strict: bool = False) -> int:
    """Trains in a run folder, going on from its newest checkpoint, and returns the exit code.

    Raises ConfigError when the folder holds another experiment, InputError while another process trains in it,
    FolderError for data that cannot be used, CheckpointError when all its checkpoints are damaged or, if `strict`, when
    a damaged one is newer than all whole ones, InputError for a device that this process cannot have, and
    ConnectionError when another process of the run is lost.
    """
    try:
        with determinism.chosen(experiment.training.deterministic), Interrupt() as interrupt, ExitStack() as stack:
            join()
            # The first process packs the images; the others then find them in the cache.
            with distributed.main_first():
                if distributed.is_main():
                    stack.enter_context(lock.held(run, lambda left: _say_end(run, left)))
                    prepare(experiment, run, strict=strict)
                dataset = open_source(experiment.data, distributed.say, spec_of(run))
            return _train(experiment, run, dataset, interrupt, strict=strict)
    except Stopped as stopped:
        saved = next(iter(checkpoint.folders(run)), None)
        so_far = f"saved to step {checkpoint.step_of(saved)} in {run}" if saved else "before the first step was saved"
        distributed.say(f"stopped, {so_far}; the same command goes on from here")
        return 128 + stopped.number
    except RuntimeError as error:
        if not distributed.lost(error):
            raise
        raise ConnectionError(
            f"{run}: process {distributed.rank()} of {distributed.count()} does not reach another one any more "
            f"({error}); the checkpoints are whole: start all processes again by the same command"
        ) from error


def _train(experiment: Config, run: Path, dataset: Dataset, interrupt: Interrupt, *, strict: bool) -> int:
    dataset = in_units_of_teacher(in_units_of_init(dataset, experiment, run), experiment)
    dataset = in_original_units(dataset, run, init=experiment.training.init)
    training, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
    em.check(experiment, run, training, held_out)
    patience.check(experiment, held_out)
    if distributed.is_main():
        follow(experiment, run, dataset)
        incidents.note_left_out(run, dataset.left_out)
        if not (clocks.read(run) and checkpoint.folders(run)) and (line := clocks.record(run, training)):
            distributed.say(line)

    def round_of(learning: Config, folder: Path, completed: Dataset, holes: Given) -> int:
        if distributed.is_main():
            prepare(learning, folder, strict=strict)
            follow(learning, folder, dataset)
        distributed.barrier()
        return _steps(learning, folder, completed, held_out, interrupt, holes)

    # After its rounds a run is not trained by itself any more.
    begun = bool(em.rounds(run))
    code = 0 if begun else _steps(experiment, run, training, held_out, interrupt)
    if code == 0 and (begun or experiment.training.em):
        code = em.improve(experiment, run, training, held_out, round_of)
    distributed.barrier()
    PartialState().destroy_process_group()
    return code


def _steps(
    experiment: Config,
    run: Path,
    training: Dataset,
    held_out: Dataset,
    interrupt: Interrupt,
    holes: Given | None = None,
) -> int:
    """Takes the steps that are left, makes the last pictures and numbers, and returns the exit code."""
    trainer = Trainer(experiment, training, held_out, run, holes)
    trained = trainer.step < experiment.training.steps and not trainer.patience.over
    if not trained:
        if trainer.patience.over:
            trainer.say(f"{run}: ended at step {trainer.step}; to go on, raise training.patience, or set it to 0")
        elif not (holes or experiment.training.em):
            trainer.say(f"{run}: already at step {trainer.step}; to go on, raise training.steps")
        trainer.catch_up()
        outcome = Outcome(trainer.model, 0)
    else:
        try:
            outcome = trainer.train(interrupt)
        except Exception as error:
            if distributed.is_main():
                incidents.note_end(run, f"step {trainer.step}: ended by an error: {error}")
            raise
    if outcome.exit_code == 0 and (trained or not distributed.largest(trainer.reporter.finished(trainer.step))):
        trainer.reporter.finish(outcome.model)
        files = {Path(name).stem: run / name for name in PICTURES if name != REAL and (run / name).exists()}
        trainer.tracker.pictures({f"final/{name}": path for name, path in files.items()}, trainer.step)
        if line := best_line(run, trainer.step):
            trainer.say(line)
    distributed.barrier()
    trainer.tracker.close()
    return outcome.exit_code


def _say_end(run: Path, text: str) -> None:
    """Says how an earlier training in a run folder ended, and notes it there."""
    distributed.say(text)
    incidents.note_end(run, text)


def best_line(run: Path, last: int) -> str:
    """Names the checkpoint with the lowest held-out bound, if that is not the `last` one; empty if it is."""
    folders = {checkpoint.step_of(folder): folder for folder in checkpoint.folders(run)}
    step, bounds = metrics.best(run / metrics.METRICS, folders), metrics.bounds(run / metrics.METRICS)
    if step is None or step == last or last not in bounds:
        return ""
    return (
        f"the held-out bound was lowest at step {step}: {bounds[step]:.4f}, and {bounds[last]:.4f} at step {last}; "
        f"commands take {folders[step]} for a run"
    )


def in_original_units(dataset: Dataset, run: Path, *, init: str = "") -> Dataset:
    """Returns the examples in the units in which the run began.

    A folder that has grown since has another mean and standard deviation, which the weights do not know. So has every
    folder for a run of a version that measured them on held-out examples too, and one that began from the weights of
    `init`.

    Raises InputError for examples of another shape or number of gray levels, or of other classes, than the run was
    trained on.
    """
    before, now = spec_of(run), dataset.spec
    if before is None:
        return dataset
    for name in ("shape", "levels", "value_range", "classes"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise InputError(
                f"data.path: {run} was trained on examples of {name} {old}, got {new}; choose another folder with --out"
            )
    if before == now:
        return dataset
    if init:  # Its units were never those of its own data.
        return replace(dataset, spec=before)
    distributed.say(
        f"the statistics of the data have changed: mean {before.mean:.6g} -> {now.mean:.6g}, std {before.std:.6g} -> "
        f"{now.std:.6g}; the run goes on in the units that it began with"
    )
    return replace(dataset, spec=before)
