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
from diffusion.data.observing import Holes
from diffusion.errors import InputError
from diffusion.interrupt import Interrupt, Stopped
from diffusion.model.origin import spec_of
from diffusion.model.transfer import in_units_of, open_start
from diffusion.training import determinism, em, lock, metrics
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
                    stack.enter_context(lock.held(run, distributed.say))
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
    dataset = in_units_of_start(dataset, experiment, run)
    dataset = in_original_units(dataset, run, start=experiment.training.start)
    training, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
    em.check(experiment, run, training, held_out)
    if distributed.is_main():
        follow(experiment, run, dataset)

    def round_of(learning: Config, folder: Path, completed: Dataset, holes: Holes) -> int:
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
    holes: Holes | None = None,
) -> int:
    """Takes the steps that are left, makes the last pictures and numbers, and returns the exit code."""
    trainer = Trainer(experiment, training, held_out, run, holes)
    trained = trainer.step < experiment.training.steps
    if not trained:
        if not (holes or experiment.training.em):
            trainer.say(f"{run}: already at step {trainer.step}; to go on, raise training.steps")
        trainer.catch_up()
        outcome = Outcome(trainer.model, 0)
    else:
        outcome = trainer.train(interrupt)
    if outcome.exit_code == 0 and (trained or not distributed.largest(trainer.reporter.finished(trainer.step))):
        trainer.reporter.finish(outcome.model)
        if line := best_line(run, trainer.step):
            trainer.say(line)
    distributed.barrier()
    trainer.tracker.close()
    return outcome.exit_code


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


def in_original_units(dataset: Dataset, run: Path, *, start: str = "") -> Dataset:
    """Returns the examples in the units in which the run began.

    A folder that has grown since has another mean and standard deviation, which the weights do not know. So has every
    folder for a run of a version that measured them on held-out examples too, and one that began from the weights of
    `start`.

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
    if start:  # Its units were never those of its own data.
        return replace(dataset, spec=before)
    distributed.say(
        f"the statistics of the data have changed: mean {before.mean:.6g} -> {now.mean:.6g}, std {before.std:.6g} -> "
        f"{now.std:.6g}; the run goes on in the units that it began with"
    )
    return replace(dataset, spec=before)


def in_units_of_start(dataset: Dataset, experiment: Config, run: Path) -> Dataset:
    """Returns the examples of a run that is about to begin in the units of the model whose weights it begins from."""
    if not experiment.training.start or checkpoint.folders(run):
        return dataset
    now, source = dataset.spec, open_start(experiment).spec
    spec = in_units_of(source, now)
    if spec != now:
        distributed.say(
            f"training.start: the run keeps the units of {experiment.training.start}, which its weights know: "
            f"mean {spec.mean:.6g}, std {spec.std:.6g}; those of these data are {now.mean:.6g} and {now.std:.6g}"
        )
    return replace(dataset, spec=spec)
