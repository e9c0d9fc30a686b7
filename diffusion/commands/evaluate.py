"""`diffusion evaluate`: measures a run's model on examples and writes the numbers into the run folder."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion import distributed
from diffusion.commands.options import Evaluate
from diffusion.data import Dataset, open_source
from diffusion.data.sources import SOURCES
from diffusion.errors import InputError, require
from diffusion.evaluation import EVALUATORS, Evaluator, Setting
from diffusion.files import write_text
from diffusion.model import Model, load
from diffusion.registries import parse_fields, parse_one

# The options of the command that are fields of some of the evaluators.
EVALUATOR_OPTIONS = (
    "draws",
    "steps",
    "continuous",
    "paths",
    "probes",
    "tolerance",
    "dequantization",
    "solver_steps",
    "seed",
)


def evaluate(options: Evaluate) -> int:
    """Prints the numbers with their intervals, and writes them and a figure into the run folder."""
    distributed.join()
    evaluator = chosen(options)
    refuse_without_effect(options, evaluator)
    model = load(options.run)
    with distributed.main_first():
        training, examples = open_examples(model, options.data)
    dtype = torch.float64 if options.float64 else torch.float32
    main = distributed.is_main()
    setting = Setting(options.limit, options.guidance, dtype, shared=True, progress=main)
    result, compared = evaluator(model, examples, setting), None
    if training is not None and options.compare and evaluator.compares:
        compared = evaluator(model, training.evenly(result.examples), setting)
    if not main:
        return 0
    name = "held-out" if options.data is None else options.data.resolve().name
    print(result.table(name))
    written = result.to_dict()
    if compared is not None:
        total = list(compared.terms.values())[-1]
        print(f"{'training':16s}{total.mean:12.4f}{total.half_width or 0:12.4f}")
        written["training"] = compared.to_dict()
    parts = ("" if result.method == "bound" else result.method), ("" if options.data is None else name)
    stem = "-".join(["evaluation", *filter(None, parts)])
    options.run.mkdir(exist_ok=True)  # The place of the results of a checkpoint may not exist yet.
    result.draw(options.run / f"{stem}.png", name, compared)
    write_text(options.run / f"{stem}.json", json.dumps(written, indent=1, allow_nan=False))
    print(f"{options.run}: {stem}.json, {stem}.png")
    return 0


def chosen(options: Evaluate) -> Evaluator:
    """The evaluator that the options choose, with the values that they set.

    Raises InputError for a method that does not exist, and for an option that the method does not have.
    """
    require(options.steps is None or options.steps >= 1, "steps", "at least 1", options.steps)
    evaluator = parse_one(options.method, EVALUATORS, "--method")
    values = {name: getattr(options, name) for name in EVALUATOR_OPTIONS}
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None and value is not False}
    known = [field.name for field in fields(evaluator)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in known]
    if unknown:
        flag = f"--{unknown[0].replace('_', '-')}"
        raise InputError(f"{flag}: is no option of {evaluator.name}, which takes {', '.join(known)}")
    return replace(evaluator, **given)  # type: ignore[type-var]


def refuse_without_effect(options: Evaluate, evaluator: Evaluator) -> None:
    """Raises InputError for an option that changes nothing beside the others, or that is given twice."""
    twice = [name for name in parse_fields(options.method, EVALUATORS, "--method")[1] if getattr(options, name, None)]
    if twice:
        raise InputError(f"--{twice[0].replace('_', '-')}: is given in --method {options.method} too; give it once")
    if not options.compare and options.data is not None:
        raise InputError("--no-compare: has no effect with --data, whose images are compared with no others")
    if not options.compare and not evaluator.compares:
        raise InputError(f"--no-compare: has no effect with {evaluator.name}, which compares with no other examples")
    if options.steps is not None and getattr(evaluator, "continuous", False):
        raise InputError("--steps: has no effect with --continuous, which stands for infinitely many")
    if options.tolerance is not None and getattr(evaluator, "solver_steps", 0):
        raise InputError("--tolerance: has no effect with --solver-steps, whose steps do not adapt to it")


def open_examples(model: Model, folder: Path | None) -> tuple[Dataset | None, Dataset]:
    """Opens the training examples of a model and the examples to measure.

    These are its held-out examples or, given a folder, all images in it; the training examples are then None.

    Raises InputError for classes that the model does not know, FolderError for a folder that cannot be used.
    """
    options, classes = model.config.data, model.spec.classes
    if folder is None:
        examples = relabel(open_source(options, distributed.say, model.spec), classes, "data.path")
        return examples.split(options.held_out, options.seed)
    if not model.spec.is_image:
        raise InputError(f"--data: this model was trained on points, got the folder {folder}")
    # Opened as a source, the folder gets no mean and deviation of its own. They are the model's, and those of a folder
    # of a single color could not be used.
    labels = options.labels if classes and isinstance(options.labels, str) else bool(classes)
    source = replace(options, source="folder", path=str(folder), labels=labels, min_images=1)
    return None, relabel(SOURCES["folder"](source, distributed.say, model.spec), classes, "--data")


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
