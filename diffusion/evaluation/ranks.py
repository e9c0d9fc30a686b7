"""The bound of every example and its rank among the held-out ones: a table and a picture of the ends.

The rank of an example is one more than the number of held-out examples with fewer bits: 1 is that of an example more
likely than all of them. Held-out examples are ranked among themselves likewise. Few bits do not mean a good image:
a flat one is likelier than those that a model learned from.
"""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image
from torch import Tensor

from diffusion import figures
from diffusion.evaluation import results
from diffusion.evaluation.evaluator import Evaluation, Evaluator, Setting

# The columns beside those of an evaluation.
HEAD = ("rank among held-out", "held-out")
# Images in each row of the picture, and the letters of the longest name that is shown whole.
SHOWN, LETTERS = 6, 24


# Settings of an evaluation that change how well a value is known, and not what it is.
PRECISION = ("limit", "draws", "repeats", "seed", "probes", "tolerance")


@dataclass(frozen=True)
class HeldOut:
    """What held-out examples cost: `values` in a unit, increasing, by which settings, and of which step of a model."""

    values: tuple[float, ...]
    unit: str
    settings: dict[str, Any]
    step: int | None = None

    @classmethod
    def of(cls, result: Evaluation, step: int) -> Self:
        """Takes the values of an evaluation of held-out examples."""
        return cls(tuple(sorted(result.values)), result.unit, {}, step)

    @classmethod
    def stored(cls, run: Path) -> Self | None:
        """Reads those that the evaluation in a run folder found; None where there is none that has values."""
        try:
            found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
            values = sorted(float(value) for value in found["values"])
            settings = {**found.get("settings", {}), "method": found["method"]}
            return cls(tuple(values), str(found["unit"]), settings, found.get("step")) if values else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def alike(self, evaluator: Evaluator, setting: Setting, step: int) -> bool:
        """Whether the values are what an evaluator would find of the model of a step, up to their precision."""
        asked = {**results.settings_of(evaluator, setting), "method": evaluator.name}
        first, second = ({k: v for k, v in each.items() if k not in PRECISION} for each in (self.settings, asked))
        return step == self.step and first == second

    def rank(self, value: float) -> int:
        """Returns one more than the number of examples with fewer bits."""
        return 1 + bisect_left(self.values, value)


def table(result: Evaluation, held_out: HeldOut | None) -> str:
    """Returns a CSV table of the examples, those of the most bits first, with their ranks where there are any."""
    text, (head, rows) = io.StringIO(), result.listing
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *HEAD])
    for i, row in zip(result.order, rows, strict=True):
        among = (held_out.rank(result.values[i]), len(held_out.values)) if held_out else (None, None)
        writer.writerow([*row, *among])
    return text.getvalue()


def ends(result: Evaluation) -> tuple[list[int], list[int]]:
    """Returns the numbers of the least likely examples and of the most likely ones, the last of all last."""
    ordered = result.order
    count = min(SHOWN, (len(ordered) + 1) // 2)
    return ordered[:count], ordered[count:][-SHOWN:]


def picture(result: Evaluation, least: Tensor, most: Tensor, held_out: HeldOut | None) -> Image.Image:
    """Draws images in [0, 1] of the examples that `ends` names, (N, C, H, W) each: the least likely in the first row.

    Above each are its name, its bits and its rank.
    """
    rows = []
    for name, numbers, images in zip(("least likely", "most likely"), ends(result), (least, most), strict=True):
        panels = [_panel(result, i, x, held_out) for i, x in zip(numbers, images, strict=True)]
        rows += [figures.captioned([(name, figures.captioned(panels))])] if panels else []
    return figures.stack(rows)


def _panel(result: Evaluation, i: int, x: Tensor, held_out: HeldOut | None) -> tuple[str, Image.Image]:
    """The name of an example, and its image below its bits and its rank."""
    name, said = Path(result.names[i]).name, f"{result.values[i]:.3f} {result.unit}"
    among = f", {held_out.rank(result.values[i])} of {len(held_out.values)}" if held_out else ""
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…", figures.captioned(
        [(said + among, figures.to_image(figures.tile(x[None])))]
    )
