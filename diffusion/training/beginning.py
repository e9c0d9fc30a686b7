"""What a run begins from: new weights, or the averaged weights of another run that `training.init` names.

A run says it in its first line and records it (`model/origin.py`). What of the weights is taken is decided by
`model/transfer.py`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from diffusion import checkpoint, distributed
from diffusion.config import Config
from diffusion.data import Dataset
from diffusion.data.sources import POINTS
from diffusion.errors import InputError, require
from diffusion.exchange import kept, resolve
from diffusion.files import is_address
from diffusion.model import Model, load, origin
from diffusion.model.transfer import in_units_of

INIT = "training.init"
# What must be that of the model whose weights are taken.
SECTIONS = ("backbone", "model", "parameterization")


def records(experiment: Config, run: Path) -> dict[str, dict[str, Any]]:
    """Returns the records of the models whose weights a run begins from or learns from, by the keys that name them."""
    known = origin.recorded(run).get("models", {}) if checkpoint.folders(run) else {}
    # The weights to begin from are read before the first step alone, and may be gone afterwards.
    return {
        key: known[key] if key == INIT and key in known else record_of(path)
        for key, path in origin.models_of(experiment).items()
    }


def record_of(path: str) -> dict[str, Any]:
    """Returns the record of the model of a run, or of an address with its commit (`origin.model_at`).

    Raises InputError for an address that cannot be had.
    """
    record = origin.model_at(path, folder := folder_of(path))
    return {**record, "commit": kept.commit_of(folder)} if is_address(path) else record


@cache
def folder_of(path: str) -> Path:
    """Returns the folder on this machine of a run, or of an address: the same commit for as long as this process runs.

    Raises InputError for an address that cannot be had.
    """
    return resolve.local(path) if is_address(path) else Path(path)


def first_line(experiment: Config, run: Path) -> str:
    """Says what a run begins from, or began from if it goes on."""
    verb = "began" if checkpoint.folders(run) else "begins"
    return f"{run}: {verb} from {origin.said_of_models(records(experiment, run))}"


def check_init(experiment: Config) -> None:
    """Raises InputError where `training.init` names no model, or one whose weights suit another network."""
    if not experiment.training.init:
        return
    if experiment.distillation.teacher:
        raise InputError("training.init: must be empty for a student, which begins from its teacher's weights")
    open_init(experiment)


def open_init(experiment: Config) -> Model:
    """Loads the model from whose weights an experiment begins. Raises InputError as `check_init` does."""
    path, data = experiment.training.init, experiment.data
    try:
        source = load(folder_of(path), device="cpu")
    except InputError as error:
        raise InputError(f"training.init: {error}") from None
    if source.teacher:
        raise InputError(
            f"training.init: {path} was distilled for one grid of few steps; begin from its teacher, {source.teacher}"
        )
    lines = [
        f"{section}.{key}: {old!r}, here {new!r}"
        for section in SECTIONS
        for key, (old, new) in _pairs(getattr(source.config, section), getattr(experiment, section)).items()
        if old != new and not (section == "backbone" and key in experiment.backbone.free)
    ]
    if lines:
        listing = "".join(f"\n  {line}" for line in lines)
        raise InputError(f"training.init: {path} has another network, whose weights fit no other:{listing}")
    channels = source.spec.shape[0]
    if source.spec.is_image and data.source not in POINTS:
        rule = f"{channels}, for which the first and the last layer of training.init = {path} were trained"
        require(data.channels == channels, "data.channels", rule, data.channels)
    return source


def _pairs(old: object, new: object) -> dict[str, tuple[object, object]]:
    """The values of two components by their keys, under "name" their kinds."""
    values = [{"name": type(each).__name__, **asdict(each)} for each in (old, new)]  # type: ignore[call-overload]
    return {key: (values[0].get(key, "unset"), values[1].get(key, "unset")) for key in values[0] | values[1]}


def in_units_of_init(dataset: Dataset, experiment: Config, run: Path) -> Dataset:
    """Returns the examples of a run that is about to begin in the units of the model whose weights it begins from."""
    if not experiment.training.init or checkpoint.folders(run):
        return dataset
    now, source = dataset.spec, open_init(experiment).spec
    spec = in_units_of(source, now)
    if spec != now:
        distributed.say(
            f"training.init: the run keeps the units of {experiment.training.init}, which its weights know: "
            f"mean {spec.mean:.6g}, std {spec.std:.6g}; those of these data are {now.mean:.6g} and {now.std:.6g}"
        )
    return replace(dataset, spec=spec)
