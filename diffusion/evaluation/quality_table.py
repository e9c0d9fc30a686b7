"""The numbers of a comparison of samples with real examples, as a table, as JSON and as a picture.

value     the distance of n samples from n real examples
floor     the distance of n real examples from n others
excess    value - floor: 0 where samples cannot be told from real examples
all       the distance of all samples from all real examples
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from diffusion import figures, plots
from diffusion.data import DataSpec
from diffusion.distances import Interval
from diffusion.evaluation.comparing import Comparing, Row
from diffusion.evaluation.evaluator import Evaluation
from diffusion.evaluation.intervals import CONFIDENCE, Estimate, student_t

PERCENT = f"{CONFIDENCE:.0%}".replace("%", " %")
COLUMNS = ("value", f"± {PERCENT}", "floor", "excess", f"{PERCENT} of the excess", "all")
# The width of a column of numbers, and that of an interval.
NARROW, WIDE = 11, 24
READING = (
    "floor: the same distance between real examples; excess: value - floor, whose interval holds 0 where samples "
    "cannot be told from real ones"
)
# The n below which a note says that it is small.
FEW = 200
# The most images of each kind in the picture, and the length of its sides in inches.
SHOWN, PANEL, LINE = 36, 2.6, 0.62
# The most points of each kind, and the part of the largest coordinate that the edge of their plot lies at.
POINTS, EDGE = 1000, 1.05
TOLD, SAME, GRAY = "#b3261e", "#1f5fa8", "0.6"


@dataclass(frozen=True)
class Pictures:
    """What the picture shows of the samples and of the real examples: images (N, C, H, W) in [0, 1], or points."""

    samples: Tensor
    real: Tensor

    @staticmethod
    def most(spec: DataSpec) -> int:
        """The most examples of each kind that are shown."""
        return SHOWN if spec.is_image else POINTS


@dataclass(frozen=True)
class QualityEvaluation(Evaluation):
    """The distances of samples from real examples: `distances` by name, and `classes`, those of each class by one.

    `terms` has the values. `size` is n, and `samples` and `real` are the numbers of all. `network` says which one
    computed features, and by which weights.
    """

    distances: dict[str, Row] = field(default_factory=dict)
    classes: dict[str, Row] = field(default_factory=dict)
    samples: int = 0
    real: int = 0
    network: dict[str, str] = field(default_factory=dict)
    pictures: Pictures | None = field(default=None, compare=False, repr=False)

    def with_notes(self, lines: Iterable[str]) -> Self:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *lines))

    @property
    def size(self) -> int:
        """The size n of the sets that are compared."""
        return next(iter(self.distances.values())).comparison.size

    def table(self, examples: str = "held-out") -> str:
        """The distances, those of each class, and what has to be known to read them."""
        lines = [f"{self.method}: {self.kind}, n = {self.size:,}", *rows([*self.distances.values()])]
        if self.classes:
            first = next(iter(self.classes.values()))
            named = {f"{name} (n = {row.comparison.size:,})": row for name, row in self.classes.items()}
            lines += ["", f"by class: {first.name}", *rows([*named.values()], [*named])]
        return "\n".join([*lines, *self.footers])

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for JSON, without the pictures."""
        kept = {**super().to_dict(), "size": self.size, "confidence": CONFIDENCE}
        del kept["pictures"]
        return kept

    def draw(self, path: Path, examples: str, compared: Self | None = None) -> None:
        """Draws the distances beside their floors, the classes if there are any, and samples beside real examples."""
        picture(self, path, examples)


def notes(comparing: Comparing, result: QualityEvaluation) -> list[str]:
    """The sentences without which the distances could be misread."""
    lines = [READING]
    if result.size < FEW:
        lines.append(f"n = {result.size:,} is small: only large differences show; take more samples and real examples")
    if len(comparing.shape) == 3:
        lines.append("distances of patches see color, contrast and texture, and not what is depicted")
    network = comparing.network
    if network is None:
        return lines
    lines.append(network.note)
    left_out = comparing.distances.keys() - comparing.possible(result.samples, result.real).keys()
    lines += [f"left out: {comparing.name(key)}, which needs n of {comparing.least(key):,}" for key in sorted(left_out)]
    if network.is_fid:
        lines.append("FID of papers is that of 50,000 samples: compare numbers of as many alone, in the column all")
    return lines


def terms(distances: Mapping[str, Row]) -> dict[str, Estimate]:
    """The values of distances as estimates; their standard errors are those of their intervals."""
    return {
        key: Estimate(value.value, value.half_width, {"choice": value.half_width / student_t(10**6)})
        for key, value in ((key, row.comparison.value) for key, row in distances.items())
    }


def rows(found: Sequence[Row], names: Sequence[str] | None = None) -> list[str]:
    """The lines of a table of distances, under their names or others, with its head."""
    names = names or [row.name for row in found]
    width = max(map(len, names)) + 2
    head = " " * width + "".join(f"{name:>{WIDE if name == COLUMNS[4] else NARROW}}" for name in COLUMNS)
    return [head, *(f"{name:{width}}{_line(row)}" for name, row in zip(names, found, strict=True))]


def _line(row: Row) -> str:
    found = row.comparison
    ends = f"[{found.excess.low:.3g}, {found.excess.high:.3g}]"
    numbers = (found.value.value, found.value.half_width, found.floor.value, found.excess.value)
    better = "  larger is better" if row.better == "larger" else ""
    return "".join(f"{number:>{NARROW}.4g}" for number in numbers) + f"{ends:>{WIDE}}{row.whole:>{NARROW}.4g}{better}"


def picture(result: QualityEvaluation, path: Path, examples: str) -> Path:
    """Draws an evaluation into a PNG, whose metadata have its distances."""
    from matplotlib.figure import Figure

    found = [*result.distances.values()]
    height = max(PANEL + 0.5, LINE * len(found) + 0.8, 0.2 * len(result.classes) + 1.0)
    widths = [1.5, *([1.0] if result.classes else []), 1.0, 1.0]
    figure: Any = Figure(figsize=(PANEL * sum(widths), height), dpi=130, layout="constrained")
    parts = [*figure.subfigures(1, len(widths), width_ratios=widths)]
    _draw_distances(parts.pop(0), found, result.size)
    if result.classes:
        _draw_classes(parts.pop(0), result.classes)
    if result.pictures is not None:
        both = result.pictures.samples, result.pictures.real
        limit = EDGE * max(float(x.abs().max()) for x in both)
        for part, title, x in zip(parts, ("samples", examples), both, strict=True):
            _draw_examples(part, title, x, limit)
    info = {"size": result.size, "distances": {key: asdict(row) for key, row in result.distances.items()}}
    return figures.save_png(figures.rendered(figure), path, info)


def _draw_distances(part: Any, found: Sequence[Row], size: int) -> None:  # noqa: ANN401, matplotlib has no types
    """Draws each distance on an axis of its own: samples in color, real examples in gray."""
    all_axes = part.subplots(len(found), 1, squeeze=False)[:, 0]
    for axes, row in zip(all_axes, found, strict=True):
        color = TOLD if row.told_apart else SAME
        for place, interval, shade in ((1, row.comparison.value, color), (0, row.comparison.floor, GRAY)):
            _draw_interval(axes, interval, place, shade)
        ends = (0.0, *(end for each in (row.comparison.value, row.comparison.floor) for end in (each.low, each.high)))
        margin = 0.06 * (max(ends) - min(ends))
        axes.set(xlim=(min(ends) - margin, max(ends) + margin), ylim=(-0.7, 1.7))
        axes.axvline(0, color=GRAY, linewidth=0.5)
        axes.set_yticks([0, 1], ["real", "samples"], fontsize=7)
        axes.set_title(row.name + (", larger is better" if row.better == "larger" else ""), fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    part.suptitle(f"{size:,} samples from {size:,} real, ± {PERCENT}; red: told apart", fontsize=8)


def _draw_classes(part: Any, classes: Mapping[str, Row]) -> None:  # noqa: ANN401
    axes = part.subplots()
    for place, row in enumerate(classes.values()):
        _draw_interval(axes, row.comparison.excess, place, TOLD if row.told_apart else SAME)
    axes.axvline(0, color=GRAY, linewidth=0.8)
    axes.set_yticks(range(len(classes)), [plots.plain(name) for name in classes], fontsize=7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    name = next(iter(classes.values())).name
    part.suptitle(f"excess by class: {name}", fontsize=8)


def _draw_examples(part: Any, title: str, x: Tensor, limit: float) -> None:  # noqa: ANN401
    axes = part.subplots()
    axes.set_anchor("N")
    if x.ndim == 4:
        axes.imshow(figures.to_image(figures.tile(x)), interpolation="nearest")
        axes.set_axis_off()
    else:
        figures.scatter(axes, x, limit)
    part.suptitle(title, fontsize=8)


def _draw_interval(axes: Any, interval: Interval, place: float, color: str) -> None:  # noqa: ANN401
    axes.plot([interval.low, interval.high], [place, place], color=color, linewidth=1.5)
    axes.plot([interval.value], [place], "o", color=color, markersize=5)
