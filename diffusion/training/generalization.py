"""Sees when a model begins to remember the examples that it learns from.

Each validation measures as many training examples as held-out ones, without augmentation and under the same noise as
the validations before. With L the bound of an example and D = L(earlier validation) - L(this one),

    gap    = mean L(held-out) - mean L(training)
    growth = mean D(training) - mean D(held-out)

As examples are held out by a hash, both sets are alike for a model that remembers neither. The growth is then zero but
for chance, and most of the spread between examples cancels in D. The standard errors are those of differences between
two independent means.

Examples improve unequally, most of all at the beginning, so that their bounds at the first validation soon say little
of those now. Validation k is therefore compared with the largest power of two that is at most k/2. Before the first one
nothing was remembered: its growth is the gap.

A model remembers if at validation k the growth is above zero by Student's t at the level 2 · 0.05/((k + 1) (k + 2)).
These levels add up to 0.05 over any number of validations. So a run of any length is wrongly said to remember with a
probability of at most 5 %, however much its validations depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.evaluation import Estimate, LikelihoodEvaluation
from diffusion.evaluation.intervals import student_t
from diffusion.reporting.names import GAP_PICTURE
from diffusion.training.metrics import STANDARD_ERROR
from diffusion.training.patience import bytes_of

# Keys of metrics.jsonl, followed by a unit: the gap and its growth.
GAP, GROWTH = "gap/total_", "gap/growth_"
# The key of the step at which the gap opened.
OPENED = "gap/opened"
# The probability that a run which remembers nothing is said to.
LEVEL = 0.05
# The share of the growth that lies at the log-SNRs which a line names.
MOST = 2 / 3

Rows = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Gap:
    """A validation of both sets of examples: the bound of each in `unit`, and the gap by log-SNR.

    `by_log_snr` has an entry (log-SNR, gap in `unit` per unit of log-SNR, standard error) for each bin. `examples` is a
    digest of the examples.
    """

    unit: str
    training: tuple[float, ...]
    held_out: tuple[float, ...]
    by_log_snr: Rows = ()
    examples: str = ""

    @classmethod
    def of(cls, training: LikelihoodEvaluation, held_out: LikelihoodEvaluation, examples: str) -> Gap:
        """The gap between two evaluations by the same method."""
        rows = tuple(
            (log_snr, high - low, math.hypot(one, two))
            for (log_snr, low, one), (_, high, two) in zip(training.by_log_snr, held_out.by_log_snr, strict=True)
        )
        return cls(held_out.unit, training.values, held_out.values, rows, examples)

    @property
    def total(self) -> Estimate:
        """The gap: the mean of the held-out bounds minus that of the training bounds."""
        return difference(_tensor(self.held_out), _tensor(self.training))

    @property
    def numbers(self) -> dict[str, float]:
        """The gap as rows of metrics.jsonl have it."""
        return _numbers(GAP, self.unit, self.total)


@dataclass(frozen=True)
class Moment:
    """What later validations are compared with: the bounds of a validation, and the gap by bins of log-SNR."""

    training: Tensor
    held_out: Tensor
    gaps: Tensor
    step: Tensor

    @classmethod
    def of(cls, gap: Gap, step: int) -> Moment:
        """The validation of a step."""
        gaps = _tensor([value for _, value, _ in gap.by_log_snr])
        return cls(_tensor(gap.training), _tensor(gap.held_out), gaps, torch.tensor(step))


@dataclass(frozen=True)
class Growth:
    """The growth of the gap until the validation of a `step`, `since` that of an earlier one, None for the first one.

    `where` are the log-SNRs between which most of it lies, None where there is none.
    """

    step: int
    since: int | None
    unit: str
    size: Estimate
    where: tuple[float, float] | None

    @property
    def numbers(self) -> dict[str, float]:
        """The growth as rows of metrics.jsonl have it, none for the first validation."""
        return {} if self.since is None else _numbers(GROWTH, self.unit, self.size)

    def __str__(self) -> str:
        size = f"{abs(self.size.mean):.4f} ± {'?' if self.size.half_width is None else f'{self.size.half_width:.4f}'}"
        where = "" if self.where is None else ", most of it at log-SNRs from {:.1f} to {:.1f}".format(*self.where)
        grew = self.size.mean > 0
        if self.since is None:
            what = f"is {size} {self.unit} {'below' if grew else 'above'} that of held-out ones"
        else:
            what = f"has fallen by {size} {self.unit} {'more' if grew else 'less'} than that of held-out ones"
        return (
            f"{'' if self.since is None else f'since step {self.since} '}the bound of training examples {what}{where}"
        )


class Generalization:
    """Judges the validations of a run; all processes must call its methods together, with the same values.

    `opened` is the step at which the gap opened and `judged` that of the last validation, -1 before. `growth` is that
    of the gap until the last validation, and `whole` the gap itself; both are None before one in this process.
    Checkpoints hold the rest.
    """

    opened: int
    judged: int
    moments: tuple[Moment, ...]
    examples: Tensor

    def __init__(self) -> None:
        self.growth: Growth | None = None
        self.whole: Growth | None = None
        self.load_state_dict({})

    def judge(self, step: int, gap: Gap) -> bool:
        """Judges the validation of a step; returns whether the gap opens with it.

        The first validation of other examples than before is taken for the first one of a run. One that is made again
        changes nothing.
        """
        if step == self.judged:
            return False
        now, digest = Moment.of(gap, step), bytes_of(gap.examples)
        if not torch.equal(digest, self.examples):
            self.moments, self.examples, self.count = (), digest, 0
        self.judged, self.count = step, self.count + 1
        if self.count & (self.count - 1) == 0:  # A power of two.
            self.moments = (*self.moments[-1:], now)
        self.growth, self.whole = grown(gap, now, self.moments[0] if self.count > 1 else None), grown(gap, now)
        degrees = len(now.training) + len(now.held_out) - 2
        sure = False
        if self.growth.size.half_width is not None:
            level = 2 * LEVEL / ((self.count + 1) * (self.count + 2))
            sure = self.growth.size.mean > student_t(degrees, 1 - 2 * level) * self.growth.size.standard_error
        # Processes on unlike machines might round a mean in unlike ways.
        opens = bool(distributed.largest(int(sure and self.opened < 0)))
        self.opened = step if opens else self.opened
        return opens

    @property
    def numbers(self) -> dict[str, float]:
        """The growth at the last validation and the step of the opening, as rows of metrics.jsonl have them."""
        opened = {OPENED: float(self.opened)} if self.opened >= 0 else {}
        return opened if self.growth is None else {**self.growth.numbers, **opened}

    def said(self) -> str:
        """Says that the gap opened at the last validation, and what helps."""
        return (
            f"step {self.opened}: the model begins to remember: {self.growth} ({GAP_PICTURE}); more images, "
            "augmentation or fewer steps help"
        )

    def end(self) -> str:
        """Says at the end of a run when the gap opened and what it is; empty if it did not."""
        if self.opened < 0 or self.whole is None:
            return ""
        return f"the model began to remember at step {self.opened}; at step {self.whole.step} {self.whole}"

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what later validations are compared with, and the numbers of the last one; empty before the first."""
        if self.judged < 0:
            return {}
        state = {"numbers": torch.tensor([self.judged, self.count, self.opened]), "examples": self.examples}
        for i, moment in enumerate(self.moments):
            state |= {f"{i}/{field.name}": getattr(moment, field.name) for field in fields(Moment)}
        return state

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the state that `state_dict` returned; an empty one is the beginning of a run."""
        self.judged, self.count, self.opened = map(int, tensors.get("numbers", (-1, 0, -1)))
        self.examples = tensors.get("examples", bytes_of(""))
        self.moments = tuple(
            Moment(**{field.name: tensors[f"{i}/{field.name}"] for field in fields(Moment)})
            for i in range(2)
            if f"{i}/step" in tensors
        )


def grown(gap: Gap, now: Moment, since: Moment | None = None) -> Growth:
    """The growth of a gap until `now`, since an earlier validation, or since nothing was remembered."""
    log_snrs, step = [log_snr for log_snr, _, _ in gap.by_log_snr], int(now.step)
    if since is None:
        return Growth(step, None, gap.unit, gap.total, most(log_snrs, now.gaps))
    size = difference(since.training - now.training, since.held_out - now.held_out)
    return Growth(step, int(since.step), gap.unit, size, most(log_snrs, now.gaps - since.gaps))


def difference(one: Tensor, two: Tensor) -> Estimate:
    """Estimates mean(one) - mean(two) of independent examples, (N,) and (M,).

    The 95 % interval is that of Student's t with N + M - 2 degrees of freedom. With one example on a side there is
    none.
    """
    mean = float(one.mean() - two.mean())
    if min(len(one), len(two)) < 2:
        return Estimate(mean, None, {})
    errors = {
        name: math.sqrt(float(values.var()) / len(values)) for name, values in (("training", one), ("held-out", two))
    }
    return Estimate(mean, student_t(len(one) + len(two) - 2) * math.hypot(*errors.values()), errors)


def most(log_snrs: Sequence[float], values: Tensor) -> tuple[float, float] | None:
    """Returns the ends of the fewest adjacent bins that have `MOST` of the sum of `values` (BINS,).

    `log_snrs` are the middles of the bins, at equal distances. Returns None where the sum is not positive.
    """
    total = float(values.sum()) if len(values) > 1 else 0.0
    if total <= 0:
        return None
    half = (log_snrs[1] - log_snrs[0]) / 2
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)]).tolist()
    count = len(values)
    found = ((j - i, sums[i] - sums[j], i, j) for i in range(count) for j in range(i + 1, count + 1))
    _, _, first, last = min(each for each in found if -each[1] >= MOST * total * (1 - 1e-9))
    return log_snrs[first] - half, log_snrs[last - 1] + half


def key_unit(unit: str) -> str:
    """Returns a unit as keys of metrics.jsonl have it."""
    return unit.replace("/", "_per_")


def _numbers(key: str, unit: str, value: Estimate) -> dict[str, float]:
    """An estimate as rows of metrics.jsonl have it, with its standard error where it is known."""
    name = f"{key}{key_unit(unit)}"
    error = {} if value.half_width is None else {f"{name}{STANDARD_ERROR}": value.standard_error}
    return {name: value.mean, **error}


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
