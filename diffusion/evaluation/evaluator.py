"""The interface of all measurements of a trained model: `diffusion evaluate --method NAME` runs one.

An `Evaluator` measures a model on examples and returns an `Evaluation`: numbers with their intervals, which can be
written as a table, as JSON and as a figure. A new evaluator is one file of this folder that ends with a dict
`EVALUATORS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from diffusion import plots
from diffusion.data import Dataset, DataSpec
from diffusion.errors import require
from diffusion.evaluation.intervals import Estimate
from diffusion.model import Model


@dataclass(frozen=True)
class Setting:
    """The options that all evaluators share.

    At most `limit` examples are used, evenly spaced. `guidance` is the classifier-free guidance scale, by default none
    of a likelihood and that of the model for samples. `dtype` is the precision of the network. With `shared` the
    processes divide the examples, and all of them must make the same call. `progress` shows a bar. `condition` says
    that a network is told of an example what it learned to be told (condition.operator, data.condition). `training` are
    the examples that the model learned from, None where they are not at hand.
    """

    limit: int | None = None
    guidance: float | None = None
    dtype: torch.dtype = torch.float32
    shared: bool = False
    progress: bool = False
    condition: bool = True
    training: Dataset | None = None

    def select(self, examples: Dataset, spec: DataSpec) -> Dataset:
        """The examples to measure: all of them, or `limit` spaced evenly.

        Raises InputError for a limit below 1, where there are no examples, and where they are not of the kind and the
        classes of `spec`, the model's.
        """
        require(self.limit is None or self.limit >= 1, "limit", "at least 1", self.limit)
        require(len(examples) > 0, "data.held_out", "positive to evaluate on examples kept from training", 0)
        got = examples.spec
        require(got.shape == spec.shape, "data", f"of the model's shape {spec.shape}", got.shape)
        same = (got.levels, got.value_range) == (spec.levels, spec.value_range)
        require(same, "data", f"{_stored(spec)}, as the model's", _stored(got))
        named = examples.labels is not None and bool(spec.classes)
        rule = f"of the model's classes {spec.classes}, in their order"
        require(not named or got.classes == spec.classes, "data", rule, got.classes)
        return examples if self.limit is None else examples.evenly(self.limit)


def _stored(spec: DataSpec) -> str:
    """How examples are stored, in words for an error."""
    stored = f"of {spec.levels} levels" if spec.levels else "continuous"
    return f"{stored} from {spec.value_range[0]:g} to {spec.value_range[1]:g}" if spec.value_range else stored


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluator: estimates by name, `terms`, in `unit`, from a number of `examples`.

    `method` is the name of the evaluator and `kind` says what it measures. `values` has a number for each example, or
    is empty where examples have none. `notes` are sentences without which the numbers could be misread. `value_errors`
    has the standard error of each value, from random sources within its example, where they are known, and `names` the
    names of these examples. `foremost` says which of them come first in `order`.
    """

    foremost: ClassVar[str] = "largest"

    method: str
    kind: str
    unit: str
    examples: int
    terms: dict[str, Estimate]
    values: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    value_errors: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each term."""
        return {name: value.mean for name, value in self.terms.items()}

    @property
    def standard_error(self) -> dict[str, float]:
        """The standard error of each term, from all random sources together."""
        return {name: value.standard_error for name, value in self.terms.items()}

    @property
    def rows(self) -> dict[str, Estimate]:
        """The estimates that the table shows, by name."""
        return self.terms

    @property
    def footers(self) -> tuple[str, ...]:
        """The lines below the table."""
        return self.notes

    @property
    def order(self) -> list[int]:
        """The numbers of the examples in the order of their table, those of the largest values first."""
        return sorted(range(len(self.values)), key=lambda i: -self.values[i])

    @property
    def listing(self) -> tuple[list[str], list[list[object]]]:
        """The table of the examples that have names: its head, and a row for each."""
        errors = self.value_errors or [None] * len(self.values)
        return ["file", self.unit, "standard error"], [[self.names[i], self.values[i], errors[i]] for i in self.order]

    def table(self, examples: str = "held-out") -> str:
        """One line per row: its mean, its 95 % interval, and the standard errors by source."""
        head = f"{self.method}: {self.kind}, {self.unit}, {self.examples:,} {examples} examples"
        sources = list(next(iter(self.terms.values())).errors)
        columns = "".join(f"{name:>16s}" for name in sources)
        lines = [head, f"{'':16s}{'mean':>12s}{'± 95 %':>12s}{columns}"]
        for name, value in self.rows.items():
            width = f"{'?':>12s}" if value.half_width is None else f"{value.half_width:12.4f}"
            errors = "".join(f"{value.errors[source]:16.4f}" for source in sources)
            lines.append(f"{name:16s}{value.mean:12.4f}{width}{errors}")
        return "\n".join([*lines, *self.footers])

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON, with `mean` and `standard_error`."""
        return {**asdict(self), "mean": self.mean, "standard_error": self.standard_error}

    def draw(self, path: Path, examples: str, compared: Self | None = None) -> None:
        """Draws a histogram of the values of all examples into a PNG, where there are any.

        `examples` names the examples. `compared` is the same evaluation of training examples.
        """
        if self.values:
            plots.histogram(self.values, path, label=self.unit, title=f"{self.kind}, {examples} examples")


class Evaluator(ABC):
    """Measures a model on examples. Evaluators are frozen dataclasses with defaults.

    `name` is the key of the evaluator in `EVALUATORS`. `compares` says whether training examples are evaluated too, to
    compare the held-out ones with them, and `of_examples` whether values are those of the examples, and not of samples.
    """

    name: str
    compares: ClassVar[bool] = False
    of_examples: ClassVar[bool] = True

    @property
    def settings(self) -> dict[str, Any]:
        """The values of the fields, which name the files of a result and are written into them."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    def check(self, model: Model) -> None:  # noqa: B027, most evaluators suit any model
        """Raises InputError for options that do not suit a model, before examples are opened."""

    @abstractmethod
    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> Evaluation:
        """Evaluates a model on examples.

        Raises InputError where there are no examples, or where they are of another kind than the model's.
        """
