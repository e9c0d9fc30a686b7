"""What a run learns from, known by content: its examples, and the models whose weights it begins with.

    RUN/examples.npy    a hash of each example, in the order of the data
    RUN/sources.json    where the examples lie, how many they are and a hash of all of them; the weights of other runs

With them data that were moved are known again, and whatever changed is said. Runs of earlier versions have neither.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion import checkpoint, config
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec, identity
from diffusion.data.identity import Change, Hashes
from diffusion.data.images import mask_law
from diffusion.data.images.mask_law import read_masks
from diffusion.data.sources import DataOptions
from diffusion.errors import InputError
from diffusion.files import replacing, sync, write_text

RESOLVED, EXAMPLES, SOURCES = "config.json", "examples.npy", "sources.json"
# Keys that name other runs, whose weights this one begins with or learns from.
MODELS = ("training.init", "distillation.teacher")
# The file of averaged weights in a checkpoint.
WEIGHTS = "model.safetensors"
# The digits of a hash by which a person knows weights again.
DIGITS = 12


def models_of(experiment: Config) -> dict[str, str]:
    """Returns the paths of the other runs that an experiment names, by their keys."""
    paths = experiment.training.init, experiment.distillation.teacher
    return {key: path for key, path in zip(MODELS, paths, strict=True) if path}


def record(run: Path, experiment: Config, dataset: Dataset, models: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes what a run learns from into its folder, in place of an earlier record.

    `models` are records of the other runs that it names (`model_at`) by their keys. One that is not given stays.
    """
    hashes, known = identity.hashes_of(dataset), recorded(run).get("models", {})
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
    observed = masks_of(experiment)
    found = {"data": data, "models": {**known, **models}, **({"observed": observed} if observed else {})}
    write_text(run / SOURCES, json.dumps(found, indent=1))


def masks_of(experiment: Config) -> dict[str, str]:
    """Returns where the masks of `observed.folder` lie and a hash of them; empty where there are none."""
    folder = experiment.observed.folder
    if not folder:
        return {}
    return {"path": identity.place(folder), "hash": mask_law.digest(read_masks(folder, experiment.data.shape))}


def recorded(run: Path) -> dict[str, Any]:
    """Returns what `record` wrote into SOURCES; empty for a run without it."""
    try:
        found = json.loads((run / SOURCES).read_text(encoding="utf-8"))
        models = {config.name_of_today(key): model for key, model in found.get("models", {}).items()}
        return {**found, "models": models}
    except (OSError, ValueError, AttributeError):
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


def model_at(path: str, folder: Path | None = None) -> dict[str, Any]:
    """Returns the record of a model whose weights a run takes: its place, step, and the sha256 of its file of weights.

    `folder` is the run or the checkpoint that the path stands for, where that is an address. Where it has no model
    there is no step.
    """
    record: dict[str, Any] = {"path": identity.place(path), "sha256": ""}
    try:
        found, _ = checkpoint.find(Path(path) if folder is None else folder)
        step, hashes = checkpoint.hashes(found)
        return {**record, "step": step, "sha256": hashes[WEIGHTS]}
    except (InputError, OSError, KeyError):
        return record


def said_of_models(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Says what weights a run begins from, by the records of the models that it names, by their keys."""
    for key, whose in zip(MODELS, ("", "its teacher "), strict=True):
        if key in models:
            record = models[key]
            step = f", step {record['step']:,}" if "step" in record else ""
            commit = f", commit {record['commit']}" if record.get("commit") else ""
            digits = f" (sha256 {record['sha256'][:DIGITS]})" if record.get("sha256") else ""
            return f"the weights of {whose}{record['path']}{commit}{step}{digits}"
    return "new weights"


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of the weights of a model in memory, by their names and values, whatever file they were in."""
    found = hashlib.sha256()
    for name in sorted(weights):
        values = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        found.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return found.hexdigest()


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
