"""`diffusion evaluate`: measures a run's model on examples and writes the numbers into the run folder."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from diffusion import checkpoint, distributed
from diffusion.commands import per_image
from diffusion.commands.measured import data_options, open_examples
from diffusion.commands.options import Evaluate
from diffusion.errors import InputError, require
from diffusion.evaluation import EVALUATORS, Evaluation, Evaluator, Setting, results
from diffusion.evaluation.ranks import HeldOut
from diffusion.model import load
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
    "known",
    "samples",
    "features",
    "weights",
    "flagged",
)
# The flags that are short for a method.
METHODS = ("quality", "memorization", "thermodynamics")
# The number of examples that are printed, those of the largest values for most evaluators.
SHOWN = 3


def evaluate(options: Evaluate) -> int:
    """Prints the numbers with their intervals, and writes them into the run folder, with a table and a figure."""
    distributed.join()
    evaluator = chosen(options)
    refuse_without_effect(options, evaluator)
    per_image.check(options)
    model = load(options.run)
    evaluator.check(model)
    if not (options.condition or model.config.conditioned):
        raise InputError(f"--no-condition: has no effect on {options.run}, whose network is told nothing of an image")
    data = data_options(options, model)
    with distributed.main_first():
        run = checkpoint.run_of(options.run)
        training, examples = open_examples(model, data, run, options.data, pairs=options.condition)
    dtype = torch.float64 if options.float64 else torch.float32
    main = distributed.is_main()
    setting = Setting(options.limit, options.guidance, dtype, True, main, options.condition, training)
    held_out = None
    if options.per_image is not None and options.data is not None:
        held_out = per_image.held_out_of(options, model, evaluator, setting, data)
    result, compared = evaluator(model, examples, setting), None
    if training is not None and options.compare and evaluator.compares:
        chosen_examples = training.evenly(result.examples)
        compared = results.named(evaluator(model, chosen_examples, setting), chosen_examples, setting, model.spec)
    if not main:
        return 0
    result = results.named(result, examples, setting, model.spec)
    name = results.HELD_OUT if options.data is None else _name(options.data)
    print(result.table(name))
    if compared is not None:
        total = list(compared.terms.values())[-1]
        print(f"{'training':16s}{total.mean:12.4f}{total.half_width or 0:12.4f}")
    for line in largest(result):
        print(line)
    if examples.left_out:
        count = len(examples.left_out)
        print(f"left out: {count:,} of {count + len(examples):,} files, named in the results with the reasons")
    source = data if options.data is None else replace(data, path=str(options.data))
    made = results.Made.of(evaluator, setting, examples, source, model.step, name)
    for line in results.write(options.run, result, made, compared):
        print(line)
    if options.per_image is not None:
        among = HeldOut.of(result, model.step) if options.data is None else held_out
        for line in per_image.write(options.per_image, model, result, setting.select(examples, model.spec), among):
            print(line)
    return 0


def _name(data: Path) -> str:
    """The name of other examples than the run's: that of their folder, or of their file without its suffix."""
    return data.resolve().stem if data.is_file() else data.resolve().name


def largest(result: Evaluation) -> list[str]:
    """A line about the examples that come first in their order, among several."""
    if len(result.names) < 2:
        return []
    shown = ", ".join(f"{result.names[i]} {result.values[i]:.4f}" for i in result.order[:SHOWN])
    return [f"{result.foremost}: {shown}"]


def chosen(options: Evaluate) -> Evaluator:
    """The evaluator that the options choose, with the values that they set.

    Raises InputError for a method that does not exist, and for an option that the method does not have.
    """
    require(options.steps is None or options.steps >= 1, "steps", "at least 1", options.steps)
    evaluator = parse_one(method_of(options), EVALUATORS, "--method")
    given = _given(options)
    known = [field.name for field in fields(evaluator)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in known]
    if unknown:
        flag = f"--{unknown[0].replace('_', '-')}"
        raise InputError(f"{flag}: is no option of {evaluator.name}, which takes {', '.join(known)}")
    return replace(evaluator, **given)  # type: ignore[type-var]


def method_of(options: Evaluate) -> str:
    """The method that the options name, by --method or by the flag that is short for it.

    Raises InputError for several methods.
    """
    flags = [name for name in METHODS if getattr(options, name)]
    default = Evaluate.method
    if not flags:
        return options.method
    if options.method != default or len(flags) > 1:
        first, second = f"--{flags[0]}", f"--{flags[1]}" if len(flags) > 1 else f"--method {options.method}"
        raise InputError(f"{first}: is a method, and so is {second}; give one of them")
    return flags[0]


def _given(options: Evaluate) -> dict[str, Any]:
    """The options of evaluators that are set beside --method, 0 included, by their names."""
    values = {name: getattr(options, name) for name in EVALUATOR_OPTIONS}
    return {name: value for name, value in values.items() if value is not None and value is not False}


def refuse_without_effect(options: Evaluate, evaluator: Evaluator) -> None:
    """Raises InputError for an option that changes nothing beside the others, or that is given twice."""
    given = _given(options)
    twice = [name for name in parse_fields(method_of(options), EVALUATORS, "--method")[1] if name in given]
    if twice:
        raise InputError(f"--{twice[0].replace('_', '-')}: is given in --method {method_of(options)} too; give it once")
    if not options.compare and options.data is not None:
        raise InputError("--no-compare: has no effect with --data, whose images are compared with no others")
    if not options.compare and not evaluator.compares:
        raise InputError(f"--no-compare: has no effect with {evaluator.name}, which compares with no other examples")
    if options.per_image is not None and not evaluator.of_examples:
        raise InputError(f"--per-image: has no effect with {evaluator.name}, whose values are those of samples")
    if options.steps is not None and getattr(evaluator, "continuous", False):
        raise InputError("--steps: has no effect with --continuous, which stands for infinitely many")
    if options.tolerance is not None and getattr(evaluator, "solver_steps", False):
        raise InputError("--tolerance: has no effect with --solver-steps, whose steps do not adapt to it")
