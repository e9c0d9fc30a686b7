"""The value of every example as a table, and the least and the most likely images as a picture (`--per-image`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffusion import checkpoint, distributed, figures
from diffusion.commands.measured import open_examples
from diffusion.commands.options import Evaluate
from diffusion.data import Dataset
from diffusion.data.sources import DataOptions
from diffusion.errors import InputError, require
from diffusion.evaluation import Evaluation, Evaluator, Setting, ranks
from diffusion.evaluation.ranks import HeldOut
from diffusion.files import write_text
from diffusion.model import Model

SUFFIX, PICTURE = ".csv", ".png"
# The key of the metadata by which a picture is known as one of this command.
MADE = "per_image"


def check(options: Evaluate) -> None:
    """Raises InputError for a file that is no table, or whose folder does not exist, and where it or the picture beside
    it would replace what this command did not write.
    """
    path = options.per_image
    if path is not None:
        require(path.suffix.lower() == SUFFIX, "--per-image", f"a file that ends with {SUFFIX}", path)
        require(path.parent.is_dir(), "--per-image", "in a folder that exists", path)
        for each in (path, path.with_suffix(PICTURE)):
            rule = "a name of its own, as what is there was not written by this option"
            require(not each.exists() or _own(each), "--per-image", rule, each)


def _own(path: Path) -> bool:
    """Whether this command wrote a table or a picture."""
    try:
        if path.suffix.lower() == PICTURE:
            return bool(figures.read_info(path).get(MADE))
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip().endswith(",".join(ranks.HEAD))
    except (OSError, ValueError, LookupError):
        return False


def held_out_of(
    options: Evaluate, model: Model, evaluator: Evaluator, setting: Setting, data: DataOptions
) -> HeldOut | None:
    """Returns what the held-out examples of a run cost: by its own evaluation where that was made alike, else measured.

    None where they cannot be opened, which is said.
    """
    run = checkpoint.run_of(options.run)
    stored = HeldOut.stored(run)
    if stored is not None and stored.alike(evaluator, setting, model.step):
        return stored
    try:
        with distributed.main_first():
            _, held_out = open_examples(model, data, run, pairs=options.condition)
    except InputError as error:
        distributed.say(f"--per-image: without ranks, as there are no held-out examples: {error}")
        return None
    return HeldOut.of(evaluator(model, held_out, setting), model.step) if len(held_out) else None


def write(path: Path, model: Model, result: Evaluation, examples: Dataset, held_out: HeldOut | None) -> list[str]:
    """Writes the table of an evaluation of `examples`, and a picture of images beside it; returns a line about them.

    Raises InputError for an evaluation that has no value of each example.
    """
    if len(result.names) != len(examples):
        raise InputError(f"--per-image: has no effect with {result.method}, which has no number for each example")
    write_text(path, ranks.table(result, held_out))
    written = [path.name]
    if model.spec.is_image:
        least, most = (_images(model, examples, numbers) for numbers in ranks.ends(result))
        picture = path.with_suffix(PICTURE)
        info = {MADE: True, "step": model.step, "unit": result.unit, "files": [result.names[i] for i in result.order]}
        figures.save_png(ranks.picture(result, least, most, held_out), picture, info)
        written.append(picture.name)
    return [f"{path.parent}: {', '.join(written)}"]


def _images(model: Model, examples: Dataset, numbers: list[int]) -> Tensor:
    """The images of some examples in [0, 1], (N, C, H, W); none for no numbers."""
    if not numbers:
        return torch.zeros(0, *model.spec.shape)
    values, _ = examples.batch(numbers)
    return model.spec.decode(model.spec.encode(examples.center(values)))
