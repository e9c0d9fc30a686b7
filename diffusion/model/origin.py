"""What a run learns from, known by content: its examples, and the models whose weights it begins with.

    RUN/examples.npy    a hash of each example, in the order of the data
    RUN/sources.json    where the examples lie, how many they are and a hash of all of them; the weights of other runs

With them data that were moved are known again, and whatever changed is said. Runs of earlier versions have neither.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusion import checkpoint, config
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec, identity
from diffusion.data.identity import Change, Hashes
from diffusion.data.sources import DataOptions
from diffusion.errors import InputError
from diffusion.files import replacing, sync, write_text

RESOLVED, EXAMPLES, SOURCES = "config.json", "examples.npy", "sources.json"
# Keys that name other runs, whose weights this one begins with or learns from.
MODELS = ("training.start", "distillation.teacher")


def models_of(experiment: Config) -> dict[str, str]:
    """Returns the paths of the other runs that an experiment names, by their keys."""
    paths = experiment.training.start, experiment.distillation.teacher
    return {key: path for key, path in zip(MODELS, paths, strict=True) if path}


def record(run: Path, experiment: Config, dataset: Dataset) -> None:
    """Writes what a run learns from into its folder, in place of an earlier record."""
    hashes = identity.hashes_of(dataset)
    models = recorded(run).get("models", {})
    for key, path in models_of(experiment).items():
        # Weights are read before the first step alone, and may be gone afterwards.
        if key != "training.start" or key not in models or not checkpoint.folders(run):
            models[key] = {"path": identity.place(path), "sha256": weights_hash(path)}
    data = {
        "path": identity.place(experiment.data.path),
        **({"masks": identity.place(masks)} if (masks := experiment.data.mask_folder) else {}),
        "examples": len(dataset),
        "hash": identity.digest(hashes),
    }
    with replacing(run / EXAMPLES) as temporary, temporary.open("wb") as file:
        np.save(file, hashes)
        file.flush()
        os.fsync(file.fileno())
    sync(run)
    write_text(run / SOURCES, json.dumps({"data": data, "models": models}, indent=1))


def recorded(run: Path) -> dict[str, Any]:
    """Returns what `record` wrote into SOURCES; empty for a run without it."""
    try:
        found = json.loads((run / SOURCES).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def examples_of(run: Path) -> Hashes | None:
    """Returns the hashes of the examples that a run learns from, in their order; None without a record."""
    try:
        hashes = np.load(run / EXAMPLES, allow_pickle=False)
        whole = hashes.dtype == np.uint64 and identity.digest(hashes) == recorded(run)["data"]["hash"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return hashes if whole else None


def change_since(run: Path, dataset: Dataset) -> Change | None:
    """Compares examples with those that a run was last trained on; None where the run has no record of them."""
    before = examples_of(run)
    return None if before is None else identity.change(before, identity.hashes_of(dataset))


def known_again(run: Path, dataset: Dataset) -> str:
    """Compares data at a new place with those that a run was last trained on, and returns what is to be said of them.

    Raises InputError where some of these are missing; its message begins with what was found.
    """
    change = change_since(run, dataset)
    if change is None:
        spec = spec_of(run)
        if spec is None or (spec.mean, spec.std) != (dataset.spec.mean, dataset.spec.std):
            raise InputError(
                "other data than the run was trained on, by their mean and standard deviation (it has no record of "
                "their contents, as runs of earlier versions have none)"
            )
        return f"the same {len(dataset):,} examples, by their mean and standard deviation"
    if not change.grown:
        raise InputError(f"{change} examples than the run was trained on, of which {change.common:,} are there")
    return said(change, dataset)


def said(change: Change, dataset: Dataset) -> str:
    """Says how examples have changed."""
    order = ", in another order, so that batches are others than they would have been" if change.reordered else ""
    if change.same:
        return f"the same {len(dataset):,} examples by content{order}"
    return f"{change} examples than at the last training, now {len(dataset):,}{order}"


def spec_of(run: Path) -> DataSpec | None:
    """Returns the spec of the examples that a run was begun with, from its newest checkpoint; None without one."""
    found, _ = checkpoint.newest(run)
    return None if found is None else DataSpec.from_dict(checkpoint.read(found, "model").description["spec"])


def weights_hash(path: str) -> str:
    """Returns the sha256 of the averaged weights that a run or a checkpoint has, empty where there are none."""
    try:
        return checkpoint.file_hash(checkpoint.find(Path(path))[0] / "model.safetensors")
    except (InputError, OSError):
        return ""


def data_of(run: Path, experiment: Config) -> DataOptions:
    """Returns the data of a run at the place where they were last trained on, which a checkpoint may not know yet.

    A path that leads nowhere from the present folder, as a relative one may, is that of the record.
    """
    options = experiment.data
    try:
        tree = json.loads((run / RESOLVED).read_text(encoding="utf-8"))
        last = config.from_dict(tree, where=str(run / RESOLVED)).data
        options = replace(options, path=last.path, labels=last.labels, masks=last.masks)
    except (OSError, ValueError, RecursionError):
        pass
    known = recorded(run).get("data", {})
    masks = _at(options.masks, str(known.get("masks", ""))) if options.mask_folder else options.masks
    return replace(options, path=_at(options.path, str(known.get("path", ""))), masks=masks)


def _at(path: str, recorded: str) -> str:
    """Returns a path, or that of a record where the path leads nowhere and the recorded one does not."""
    lost = path and "://" not in path and not Path(identity.place(path)).exists()
    return recorded if lost and recorded and Path(recorded).exists() else path
