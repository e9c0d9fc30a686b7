"""A run: opens the data of a configuration, refuses a run folder that does not fit it, trains, and writes the final
pictures and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from diffusion import checkpoint, config, distributed
from diffusion.checkpoint import CheckpointError
from diffusion.config import Config, ConfigError
from diffusion.data import Dataset, DataSpec, open_source
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.interrupt import Interrupt, Stopped
from diffusion.training import lock
from diffusion.training.trainer import Outcome, Trainer

RESOLVED = "config.json"
# Keys that may change between two parts of a run: how long it is and what it shows, not what the network learns.
CHANGEABLE = (
    "data.max_bad",
    "report.",
    "sampler.",
    "grid.",
    "sampling.",
    "training.steps",
    "training.accumulate",
    "training.precision",
    "training.compile",
    "training.gradient_checkpointing",
)
# Keys among these that may not change for a student, because it learns the steps of one timestep grid.
STUDENT = ("grid.", "sampling.steps")


def train(experiment: Config, run: Path, *, strict: bool = False) -> int:
    """Trains in a run folder, going on from its newest checkpoint, and returns the exit code.

    Raises ConfigError when the folder holds another experiment, InputError while another process trains in it,
    FolderError for data that cannot be used, CheckpointError when all its checkpoints are damaged or, if `strict`, when
    a damaged one is newer than all whole ones, and ConnectionError when another process of the run is lost.
    """
    # Without `cpu`, accelerate takes each of several processes on CPUs for a run of its own.
    PartialState(cpu=distributed.device().type == "cpu")
    try:
        with Interrupt() as interrupt, ExitStack() as stack:
            # The first process packs the images; the others then find them in the cache.
            with distributed.main_first():
                if distributed.is_main():
                    stack.enter_context(lock.held(run, distributed.say))
                    prepare(experiment, run, strict=strict)
                dataset = open_source(experiment.data, distributed.say, spec_of(run))
            return _train(experiment, run, dataset, interrupt)
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


def _train(experiment: Config, run: Path, dataset: Dataset, interrupt: Interrupt) -> int:
    dataset = in_original_units(dataset, run)
    training, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
    trainer = Trainer(experiment, training, held_out, run)
    trained = trainer.step < experiment.training.steps
    if not trained:
        trainer.say(f"{run}: already at step {trainer.step}; to go on, raise training.steps")
        trainer.catch_up()
        outcome = Outcome(trainer.model, 0)
    else:
        outcome = trainer.train(interrupt)
    if outcome.exit_code == 0 and (trained or not distributed.largest(trainer.reporter.finished(trainer.step))):
        trainer.reporter.finish(outcome.model)
    trainer.accelerator.wait_for_everyone()
    trainer.tracker.close()
    trainer.accelerator.end_training()
    return outcome.exit_code


def spec_of(run: Path) -> DataSpec | None:
    """Returns the spec of the examples that a run was begun with, from its newest checkpoint; None without one."""
    found, _ = checkpoint.newest(run)
    return None if found is None else DataSpec.from_dict(checkpoint.read(found, "model").description["spec"])


def in_original_units(dataset: Dataset, run: Path) -> Dataset:
    """Returns the examples in the units in which the run began.

    A folder that has grown since has another mean and standard deviation, which the weights do not know. So has every
    folder for a run of a version that measured them on held-out examples too.

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
    distributed.say(
        f"the statistics of the data have changed: mean {before.mean:.6g} -> {now.mean:.6g}, std {before.std:.6g} -> "
        f"{now.std:.6g}; the run goes on in the units that it began with"
    )
    return replace(dataset, spec=before)


def prepare(experiment: Config, run: Path, *, strict: bool) -> None:
    """Writes the resolved configuration into the run folder.

    Raises ConfigError where the folder has checkpoints of another experiment, and for a new run whose objective cannot
    be estimated; if `strict`, CheckpointError where a damaged checkpoint would have to be passed over.
    """
    if strict and (problems := checkpoint.newest(run)[1]):
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise CheckpointError(f"{run}: --strict refuses to go on from an older checkpoint than the newest:{listing}")
    begun = bool(checkpoint.folders(run))
    if not begun and not experiment.distillation.teacher:
        config.refuse_undrawn_tails(experiment)
        config.refuse_guidance_of_nothing(experiment)
    tree = config.to_dict(experiment)
    path = run / RESOLVED
    # Before the first checkpoint there is nothing to protect: a mistyped path or a batch too large may be corrected.
    if path.exists() and begun:
        # Read as a configuration, so that keys that came later have their defaults, and renamed ones their new names.
        before = config.to_dict(config.from_dict(_read(path), where=str(path)))
        fixed, changes = STUDENT if experiment.distillation.teacher else (), difference(before, tree)
        changes = [line for line in changes if line.startswith(fixed) or not line.startswith(CHANGEABLE)]
        if changes:
            listing = "".join(f"\n  {line}" for line in changes)
            raise ConfigError(
                f"{run}: holds a run of another configuration; choose another folder with --out, or undo:{listing}"
            )
    write_text(path, json.dumps(tree, indent=1))


def _read(path: Path) -> Any:  # noqa: ANN401, JSON may hold anything
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: damaged ({error}); if its run was begun with this configuration, delete the file and go on"
        ) from None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line "section.key: old -> new" for every value that differs between two resolved configurations."""
    flat = [
        {f"{s}.{k}": json.loads(json.dumps(v)) for s, values in tree.items() for k, v in values.items()}
        for tree in (old, new)
    ]
    return [
        f"{key}: {flat[0].get(key, 'unset')!r} -> {flat[1].get(key, 'unset')!r}"
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    ]
