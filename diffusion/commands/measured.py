"""The examples that commands measure and complete: those of the run, wherever they lie now, or others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from diffusion import checkpoint, config, distributed
from diffusion.commands.options import Evaluate
from diffusion.config import ConfigError
from diffusion.data import Dataset, FolderError, open_source
from diffusion.data.identity import same_place
from diffusion.data.images.scan import blamed_on
from diffusion.data.sources import SOURCES, DataOptions
from diffusion.errors import InputError
from diffusion.files import expanded
from diffusion.model import Model, origin

# Keys of [data] that may be overridden: they say where the data are, and not what the model was trained on.
FREE = ("path", "labels", "masks", "condition", "min_images", "max_bad")


def data_options(options: Evaluate, model: Model) -> DataOptions:
    """Returns the data of the run, at the place where they were last trained on or where the options say they are.

    Raises InputError for overrides of what belongs to the model, and for a place that is given twice.
    """
    given = [text.partition("=")[0].strip() for text in options.overrides]
    data = origin.data_of(checkpoint.run_of(options.run), model.config)
    changed = config.override(replace(model.config, data=data), options.overrides)
    allowed = [f"data.{name}" for name in FREE]
    for key in given:
        if key not in allowed:
            raise ConfigError(f"{key}: belongs to the model or to its split; what may be given is {', '.join(allowed)}")
    if options.data is not None and (options.data_path is not None or "data.path" in given):
        field = "--data-path" if options.data_path is not None else "data.path"
        raise InputError(f"{field}: is the place of the run's own data, --data that of others; give one of them")
    if options.data_path is None:
        return changed.data
    if "data.path" in given:
        raise InputError("--data-path: is given as data.path too; give it once")
    return replace(changed.data, path=str(options.data_path))


def open_examples(
    model: Model,
    options: DataOptions,
    run: Path | None = None,
    other: Path | None = None,
    *,
    pairs: bool = False,
) -> tuple[Dataset | None, Dataset]:
    """Opens the training examples of a model and the examples to measure, with their `pairs` if these are asked for.

    These are its held-out examples by `options` or, given `other`, a file or folder, all images in it; the training
    examples are then None. The data of a `run` are compared with those that it was trained on. Other images have pairs
    where `options` name others than those of the model.

    Raises InputError for classes that the model does not know and for data other than the run's at a new place,
    FolderError for a folder that cannot be used.
    """
    classes = model.spec.classes
    if other is None:
        own = open_own(model, options, run, others="to measure other images, use --data", pairs=pairs)
        return own.split(options.held_out, options.seed)
    if not model.spec.is_image:
        raise InputError(f"--data: this model was trained on points, got the folder {other}")
    # Opened as a source, the folder gets no mean and deviation of its own. They are the model's, and those of a folder
    # of a single color could not be used.
    labels: bool | str = options.labels if classes else False
    if labels is True and expanded(other).is_file() and expanded(other).suffix.lower() not in (".tar", ".zip"):
        distributed.say(f"--data: {other} is one file, without a class: measured without a label")
        labels = False
    # A folder of masks is that of the run's own images, unless another one is named.
    masks = "" if options.mask_folder and options.masks == model.config.data.masks else options.masks
    # So it is with the folder of pairs.
    options = options if pairs and options.condition != model.config.data.condition else _alone(options)
    source = replace(options, source="folder", path=str(other), labels=labels, masks=masks, min_images=1)
    with blamed_on("--data"):
        examples = SOURCES["folder"](source, distributed.say, model.spec)
    return None, relabel(examples, classes, "--data")


def open_own(
    model: Model, options: DataOptions, run: Path | None = None, *, others: str, pairs: bool = False
) -> Dataset:
    """Opens the examples that a model was trained on and those held out, in their order, with their `pairs` if these
    are asked for.

    Those of a `run` are compared with what it was trained on. `others` says, in an error, what to do with other images.
    Raises what `open_examples` raises, and InputError for an imported model, which has no examples of its own.
    """
    if model.config.data.source == "folder" and not model.config.data.path:
        raise InputError(f"data.path: this model was imported and has no images of its own; {others}")
    dataset = _open(options if pairs else _alone(options), model)
    if run is not None:
        _compare(dataset, run, options, model, others)
    return relabel(dataset, model.spec.classes, "data.path")


def _open(options: DataOptions, model: Model) -> Dataset:
    try:
        return open_source(options, distributed.say, model.spec)
    except FolderError as error:
        if not options.path or "://" in options.path or expanded(options.path).exists():
            raise
        raise FolderError(f"{error}; if the data of the run were moved, say where to with --data-path") from None


def _alone(options: DataOptions) -> DataOptions:
    """The options of examples without their pairs."""
    return replace(options, condition="", condition_channels=None)


def _compare(dataset: Dataset, run: Path, options: DataOptions, model: Model, others: str) -> None:
    """Says how the data of a run have changed since it was trained.

    Raises InputError where they lie at a new place and some of those that it was trained on are missing.
    """
    known = origin.data_of(run, model.config)
    moved = any(
        not same_place(str(getattr(known, key)), str(getattr(options, key))) for key in ("path", "labels", "masks")
    )
    if not moved:
        change = origin.change_since(run, dataset)
        if change is not None and not change.same:
            distributed.say(f"data have changed: {origin.said(change, dataset)}")
        return
    try:
        distributed.say(f"data.path: {options.path}: {origin.known_again(run, dataset)}")
    except InputError as error:
        raise InputError(f"data.path: {options.path}: {error}; {others}") from None


def relabel(examples: Dataset, classes: tuple[str, ...], field: str) -> Dataset:
    """Numbers the labels of examples by the classes of a model.

    The folders may have changed since the model was trained, and with them the numbers of their classes. Labels stay as
    they are for a model without classes.

    Raises InputError that names the field for a class that the model does not know.
    """
    if examples.labels is None or not classes:
        return examples
    unknown = [name for name in examples.spec.classes if name not in classes]
    if unknown:
        raise InputError(f"{field}: must have the classes {', '.join(classes)}, got {', '.join(unknown)}")
    numbers = np.array([classes.index(name) for name in examples.spec.classes], dtype=np.int64)
    return replace(examples, labels=numbers[examples.labels], spec=replace(examples.spec, classes=classes))
