"""The clocks of the examples of a dataset (`diffusion.clocks`), and those that a run keeps in RUN/clocks.json.

A run's are measured once, before its first step, on a part of its training examples, without crops and flips.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from diffusion import clocks
from diffusion.clocks import Recognition
from diffusion.data import Dataset
from diffusion.data.dataset import CHUNK
from diffusion.errors import require
from diffusion.files import write_text

CLOCKS = "clocks.json"
# The most examples that are compared, and the most values of all of them together, in a report and as training begins.
EXAMPLES, VALUES, AT_BEGINNING = 2000, 2**26, 2**25
# The comparisons in a training's record and in a report: a second and some seconds on one core. There are more where
# LEAST examples take more.
BRIEF, THOROUGH = 2**25, 2**28
LEAST, PROBES, DRAWS = 64, 1024, 4
# With fewer examples, which stand for more, nothing is recorded.
ENOUGH = 100
# The eigenvalues that are kept, the most classes that are told apart, and the examples named as first or last.
AXES, CLASSES, NAMED = 4, 100, 3


@dataclass(frozen=True)
class ClassPair:
    """Two classes by name, the log-SNR at which they separate, None if at none, and what is decided at the collapse.

    `decided` is the probability that two reverse paths that part at the collapse end in the same of the two.
    """

    names: tuple[str, str]
    level: float | None
    decided: float | None


@dataclass(frozen=True)
class Clocks:
    """The clocks of `count` examples, measured on `measured` of them: log-SNRs, in the units of the model.

    `speciation` has the levels of the first principal axes. `classes` is that of the direction that tells classes apart
    best, `first` and `last` the pairs that separate at the most and at the least noise; None without classes.
    `collapse` is the level with its 95 % interval; None if there is none. `tenfold` is that of ten times as many
    examples, and `factor` how many times as many moved it by 1 to where it is. `recognized` are the 5 %, 50 %
    and 95 % quantiles of the levels at which `probes` examples are recognized, `earliest` and `latest` the names and
    levels at both ends, and `copies` the number of those that never are. `noise` is σ/α at log-SNR 0 in gray levels of
    255, and in the units of the data for those without gray levels.
    """

    count: int
    measured: int
    probes: int
    shape: tuple[int, ...]
    noise: float
    speciation: tuple[float, ...]
    collapse: tuple[float, float, float] | None
    tenfold: float | None
    factor: float | None
    recognized: tuple[float | None, float | None, float | None]
    earliest: tuple[tuple[str, float], ...]
    latest: tuple[tuple[str, float], ...]
    copies: int
    classes: float | None = None
    first: ClassPair | None = None
    last: ClassPair | None = None

    @property
    def marks(self) -> dict[str, float]:
        """The levels that plots over log-SNR mark, by name."""
        found = {
            "speciation": self.speciation[0],
            "classes": self.classes,
            "collapse": self.collapse and self.collapse[0],
        }
        return {name: value for name, value in found.items() if value is not None}


def measure(dataset: Dataset, *, count: int | None = None, limit: int = EXAMPLES, effort: int = THOROUGH) -> Clocks:
    """Measures the clocks of examples on at most `limit` evenly spaced ones, which stand for `count`, by default all.

    `effort` bounds the comparisons of two examples at one level.

    Raises InputError for images of which nobody has seen some pixels, for fewer than 3 examples, and for equal ones.
    """
    require(dataset.seen is None, "clocks", "of images that were seen as a whole", "images with masks")
    some = dataset.evenly(max(3, min(limit, VALUES // dataset.spec.dim)))
    x, labels = _values(some)
    whole = count or len(dataset)
    compared = DRAWS * max(len(x), 1) * int(clocks.SPAN / clocks.STEP)
    found = clocks.recognition(x, probes=max(LEAST, min(PROBES, effort // compared)), draws=DRAWS, count=whole)
    crossing = found.collapse
    collapse = None if crossing is None else (crossing.value, crossing.low, crossing.high)
    levels = [clocks.speciation(v) for v in clocks.top_variances(x, AXES).tolist()]
    earliest, latest, copies = ends(found, some)
    spec = dataset.spec
    classes, first, last = told_apart(x, labels, spec.classes, crossing.value if crossing else None)
    return Clocks(
        count=whole,
        measured=len(x),
        probes=len(found.numbers),
        shape=spec.shape,
        noise=spec.std / spec.top * (255 if spec.is_image else 1),
        speciation=tuple(level for level in levels if math.isfinite(level)),
        collapse=None if collapse is None or not all(map(math.isfinite, collapse)) else collapse,
        tenfold=_finite(found.collapse_at(10)),
        factor=None if crossing is None else found.factor(crossing.value),
        recognized=quantiles(found.levels),
        earliest=earliest,
        latest=latest,
        copies=copies,
        classes=classes,
        first=first,
        last=last,
    )


def _values(some: Dataset) -> tuple[Tensor, Tensor | None]:
    """The examples in the units of the model, flattened, and their labels."""
    chunks = [range(start, min(start + CHUNK, len(some))) for start in range(0, len(some), CHUNK)]
    parts = [some.spec.encode(some.center(some.batch(numbers)[0])).flatten(1) for numbers in chunks]
    labels = None if some.labels is None else torch.from_numpy(some.labels)
    return torch.cat(parts), labels


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def quantiles(levels: Tensor) -> tuple[float | None, float | None, float | None]:
    """The 5 %, 50 % and 95 % quantiles of levels (P,), each that of one of the examples; None where it is infinite."""
    ordered = levels.sort().values
    low, middle, high = (_finite(float(ordered[round(q * (len(ordered) - 1))])) for q in (0.05, 0.5, 0.95))
    return low, middle, high


def ends(found: Recognition, some: Dataset) -> tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...], int]:
    """The names and levels of the examples recognized first and, the last of all first, last; the number never."""
    order = found.levels.argsort()
    ordered = [(some.names[int(found.numbers[i])], float(found.levels[i])) for i in order]
    known = [each for each in ordered if math.isfinite(each[1])]
    return tuple(known[:NAMED]), tuple(known[: -NAMED - 1 : -1]), len(ordered) - len(known)


def told_apart(
    x: Tensor, labels: Tensor | None, names: tuple[str, ...], collapse: float | None
) -> tuple[float | None, ClassPair | None, ClassPair | None]:
    """The level of the direction that tells classes apart best, and the pairs that separate first and last.

    Of more than `CLASSES` the most frequent are taken. All are None where fewer than two have examples.
    """
    if labels is None or len(names) < 2:
        return None, None, None
    frequent = (
        torch.bincount(labels[labels >= 0], minlength=len(names)).argsort(descending=True)[:CLASSES].sort().values
    )
    chosen = torch.isin(labels, frequent)
    found = clocks.between_classes(x[chosen], torch.searchsorted(frequent, labels[chosen]))
    if found is None:
        return None, None, None
    squares = found.squares.masked_fill(torch.eye(len(found.squares), dtype=torch.bool), math.nan)
    pairs = [divmod(int(i), len(squares)) for i in squares.flatten().argsort() if squares.flatten()[i].isfinite()]

    def of(i: int, j: int) -> ClassPair:
        square, within = float(squares[i, j]), float(found.within[i, j])
        decided = None if collapse is None else clocks.cloning_probability(torch.tensor(collapse), square, within)
        both = names[int(frequent[min(i, j)])], names[int(frequent[max(i, j)])]
        return ClassPair(both, _finite(clocks.speciation(square)), None if decided is None else float(decided))

    return _finite(clocks.speciation(found.variance)), of(*pairs[-1]), of(*pairs[0])


def record(run: Path, training: Dataset) -> str:
    """Writes the clocks of a run's training examples into its folder, and returns what kept it from that.

    Of images that were seen in part there are none. Nothing that fails here may end a training.
    """
    if training.seen is not None:
        return ""
    try:
        limit = min(EXAMPLES, AT_BEGINNING // training.spec.dim)
        if limit < ENOUGH and limit < len(training):
            return f"{run / CLOCKS}: not written, as so few of such large images, {limit}, say little of all"
        found = measure(training, limit=limit, effort=BRIEF)
        write_text(run / CLOCKS, json.dumps(asdict(found), indent=1, allow_nan=False))
    except Exception as error:
        return f"{run / CLOCKS}: not written ({error}); the run goes on without it"
    return ""


def read(run: Path) -> Clocks | None:
    """Reads the clocks that a run keeps; None where it has none, or none that can be read."""
    try:
        return from_json((run / CLOCKS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def from_json(text: str) -> Clocks:
    """Returns the clocks of a record. Raises ValueError for anything else."""
    found = TypeAdapter(Clocks).validate_json(text)
    if not found.speciation:
        raise ValueError("speciation: must have a level, got none")
    return found


def marks(run: Path) -> dict[str, float]:
    """Returns the log-SNRs that plots of a run mark, by name; empty where it has no clocks."""
    found = read(run)
    return {} if found is None else found.marks
