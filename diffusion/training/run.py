"""From a configuration to a run folder: opening the data, refusing what does not fit, training, and the figures at
the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from diffusion import checkpoint, config, processes
from diffusion.config import Config, ConfigError
from diffusion.data import open_source
from diffusion.files import write_text
from diffusion.training.trainer import Outcome, Trainer

RESOLVED = "config.json"
# What may change between two parts of a run: how long it is and what it shows, not what is learned.
FREE = (
    "report.",
    "sampler.",
    "grid.",
    "sampling.",
    "training.steps",
    "training.precision",
    "training.compile",
    "training.gradient_checkpointing",
)
# What a distilled model learns: the steps of one grid.
STUDENT = ("grid.", "sampling.steps")


def train(experiment: Config, run: Path) -> int:
    """Trains in a run folder, going on from its newest checkpoint, and returns the exit code.

    Raises ConfigError when the folder holds another experiment, FolderError for data that cannot be used,
    CheckpointError when all its checkpoints are damaged.
    """
    # Without being told, it takes processes on CPUs for strangers, each with a run of its own.
    PartialState(cpu=processes.device().type == "cpu")
    # The first process packs the images; the others then find them in the cache.
    with processes.main_first():
        if processes.is_main():
            prepare(experiment, run)
        dataset = open_source(experiment.data, processes.say)
    training, held_out = dataset.split(experiment.data.held_out, experiment.data.seed)
    trainer = Trainer(experiment, training, held_out, run)
    trained = trainer.step < experiment.training.steps
    if not trained:
        trainer.say(f"{run}: already at step {trainer.step}; to go on, raise training.steps")
        outcome = Outcome(trainer.model, 0)
    else:
        outcome = trainer.train()
    if outcome.exit_code == 0 and (trained or not processes.largest(trainer.reporter.finished)):
        trainer.reporter.finish(outcome.model)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return outcome.exit_code


def prepare(experiment: Config, run: Path) -> None:
    """Makes the run folder and writes the resolved configuration, or checks that the one there is of the same
    experiment.
    """
    tree = config.to_dict(experiment)
    path = run / RESOLVED
    # Before the first checkpoint there is nothing to protect: a mistyped path or a batch too large may be corrected.
    if path.exists() and checkpoint.folders(run):
        # Read as a configuration, so that an option that came later has its default.
        before = config.to_dict(config.from_dict(json.loads(path.read_text(encoding="utf-8")), where=str(path)))
        fixed = STUDENT if experiment.distillation.teacher else ()
        changes = [line for line in difference(before, tree) if line.startswith(fixed) or not line.startswith(FREE)]
        if changes:
            listing = "".join(f"\n  {line}" for line in changes)
            raise ConfigError(
                f"{run}: holds a run of another configuration; choose another folder with --out, or undo:{listing}"
            )
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(tree, indent=1))


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines "section.key: old -> new" for every value that differs between two resolved configurations."""
    flat = [
        {f"{s}.{k}": json.loads(json.dumps(v)) for s, values in tree.items() for k, v in values.items()}
        for tree in (old, new)
    ]
    return [
        f"{key}: {flat[0].get(key, 'unset')!r} -> {flat[1].get(key, 'unset')!r}"
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    ]
