"""A run folder before training: refuses one that holds another run, and writes the resolved configuration into it.

Paths in a configuration may change where they lead to the same data or the same weights, which are known by content
(`model/origin.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion import checkpoint, config, distributed
from diffusion.checkpoint import CheckpointError
from diffusion.config import Config, ConfigError
from diffusion.data import Dataset, open_source
from diffusion.data.identity import same_place
from diffusion.data.images.mask_law import read_masks
from diffusion.errors import InputError
from diffusion.files import write_text
from diffusion.model import origin
from diffusion.model.origin import RESOLVED
from diffusion.training import beginning

# Keys that may change between two parts of a run: how long it is and what it shows, not what the network learns.
CHANGEABLE = (
    "data.max_bad",
    "report.",
    "sampler.",
    "grid.",
    "sampling.",
    "training.steps",
    "training.patience",
    "training.em:",  # With the colon that follows a key, as other keys begin like it.
    "training.em_steps",
    "training.accumulate",
    "training.precision",
    "training.compile",
    "training.deterministic",
    "training.gradient_checkpointing",
)
# Keys among these that may not change for a student, because it learns the steps of one timestep grid.
STUDENT = ("grid.", "sampling.steps")
# Keys that name data by a path.
DATA = ("data.path", "data.labels", "data.masks", "observed.folder")


def prepare(experiment: Config, run: Path, *, strict: bool) -> None:
    """Writes the resolved configuration into the run folder, and says what the run begins from.

    Raises ConfigError where the folder has checkpoints of another experiment or of other data, and for a new run whose
    objective cannot be estimated; InputError for weights that a new run cannot begin from, and for a folder of masks
    that cannot be read; if `strict`, CheckpointError where a damaged checkpoint would have to be passed over.
    """
    if strict and (problems := checkpoint.newest(run)[1]):
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise CheckpointError(f"{run}: --strict refuses to go on from an older checkpoint than the newest:{listing}")
    begun = bool(checkpoint.folders(run))
    if not begun and not experiment.distillation.teacher:
        config.refuse_undrawn_tails(experiment)
        config.refuse_guidance_of_nothing(experiment)
    if not begun:
        beginning.check_init(experiment)
    if experiment.observed.folder:
        read_masks(experiment.observed.folder, experiment.data.shape)
    path = run / RESOLVED
    # Before the first checkpoint there is nothing to protect: a mistyped path or a batch too large may be corrected.
    if path.exists() and begun:
        # Read as a configuration, so that keys that came later have their defaults, and renamed ones their new names.
        _check_same(config.from_dict(_read(path), where=str(path)), experiment, run)
    distributed.say(beginning.first_line(experiment, run))
    write_text(path, json.dumps(config.to_dict(experiment), indent=1))


def _check_same(before: Config, experiment: Config, run: Path) -> None:
    """Raises ConfigError where an experiment is not the one that a run was begun with."""
    fixed = STUDENT if experiment.distillation.teacher else ()
    observes = before.observed.share or experiment.observed.share
    # Where nothing is observed, how it would be may differ: its defaults have changed since older runs.
    free = CHANGEABLE if observes else (*CHANGEABLE, "observed.")
    lines = difference(config.to_dict(before), config.to_dict(experiment))
    changed = {line.partition(":")[0]: line for line in lines if line.startswith(fixed) or not line.startswith(free)}
    moved = {key for key in changed if key in (*DATA, *origin.MODELS) and all(_ends(before, experiment, key))}
    for key in [*moved]:
        old, new = map(str, _ends(before, experiment, key))
        if same_place(old, new) or (key in origin.MODELS and _same_weights(run, key, new)):
            del changed[key]
    if any(key not in moved or key not in DATA for key in changed):
        listing = "".join(f"\n  {line}" for line in changed.values())
        raise ConfigError(
            f"{run}: holds a run of another configuration; choose another folder with --out, or undo:{listing}\n"
            f"To begin a new run from the weights of this one, choose another folder and set training.init={run}"
        )
    if changed:
        distributed.say(_check_data(experiment, run, "\n".join(changed.values())))


def _ends(before: Config, now: Config, key: str) -> tuple[object, object]:
    section, _, name = key.partition(".")
    return getattr(getattr(before, section), name), getattr(getattr(now, section), name)


def _same_weights(run: Path, key: str, path: str) -> bool:
    """Whether the weights at another path are those that a run began with or learns from."""
    known = _known_weights(run, key)
    return bool(known) and known == beginning.record_of(path)["sha256"]


def _known_weights(run: Path, key: str) -> str:
    """The sha256 of the weights that a run learned from, under the key that names them; empty without a record."""
    return str(origin.recorded(run).get("models", {}).get(key, {}).get("sha256", ""))


def _check_data(experiment: Config, run: Path, changed: str) -> str:
    """Compares the data at a new place with those that a run was trained on; returns what is to be said of them.

    Raises ConfigError where some of these are missing.
    """
    dataset = open_source(experiment.data, lambda line: None, origin.spec_of(run))
    try:
        return f"{changed}: {origin.known_again(run, dataset)}; stored"
    except InputError as error:
        raise ConfigError(
            f"{run}: {error}:\n  {changed}\n"
            f"Choose another folder with --out; to begin there from the weights of this run, set training.init={run}"
        ) from None


def follow(experiment: Config, run: Path, dataset: Dataset) -> None:
    """Says how the examples of a run have changed since it was last trained, and records them."""
    if checkpoint.folders(run):
        change = origin.change_since(run, dataset)
        if change is not None and not (change.same and not change.reordered):
            distributed.say(f"data have changed: {origin.said(change, dataset)}")
        teacher = experiment.distillation.teacher
        if teacher and _known_weights(run, "distillation.teacher") not in ("", beginning.record_of(teacher)["sha256"]):
            distributed.say(f"distillation.teacher: {teacher} has other weights than at the last training")
        masks, before = origin.masks_of(experiment), origin.recorded(run).get("observed", {})
        if masks and before and masks["hash"] != before["hash"]:
            distributed.say("observed.folder: its masks are others than at the last training")
    origin.record(run, experiment, dataset, beginning.records(experiment, run))


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
