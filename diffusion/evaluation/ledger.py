"""The ledger of a model: the quantities of `diffusion.thermodynamics` with intervals, from measurements of examples.

Entropies and heat are those of x_t in units where α² + σ² = 1, whatever the schedule is. There the bath does no work,
and the entropy production is the fall of KL(p_t || N(0, I)): for a density it is K - L_null of 2015 (`units`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import checkpoint
from diffusion.data import DataSpec
from diffusion.evaluation import ledger_figure
from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.evaluation.ledger_work import Work
from diffusion.evaluation.likelihood import LikelihoodEvaluation, Measurements, said_of, within_examples
from diffusion.likelihood.units import DIM, VECTOR, bits, bits_per_dim
from diffusion.model import clocks
from diffusion.schedules import Schedule, VariancePreserving
from diffusion.thermodynamics.balance import balance, entropy, exchanged
from diffusion.thermodynamics.speed import Timing, largest_mismatch, timing

# Entries (log-SNR, value, standard error).
Curve = tuple[tuple[float, float, float], ...]
KIND = "the total is an upper bound on -log p"
# The rows that have an integral over the measured levels.
INTEGRALS = ("entropy", "production", "information", "total")


@dataclass(frozen=True)
class Columns:
    """Where the measurements of an example lie, for a number of `levels` and of `paths`, with `exact` ones or without.

    What some examples have alone is in one row of each: numbers by paths, then what the model misses by level.
    """

    levels: int
    paths: int
    exact: bool = False

    @property
    def of_paths(self) -> int:
        """The numbers of an example by paths: log-weights on it and on a sample, in reverse, and the grid's error."""
        return 2 * self.paths + 2 if self.paths else 0

    @property
    def of_some(self) -> int:
        """The numbers that some examples have alone."""
        return self.of_paths + self.levels * self.exact


@dataclass(frozen=True)
class Ledger(LikelihoodEvaluation):
    """Terms of the bound, both laws, the work of paths, and the speed of the grid, for a model on examples.

    `curves` has rates per unit of log-SNR, and the "entropy" of x_t, as (log-SNR, value, standard error) in `unit`.
    `work` has the numbers of the paths in nats: "dissipated", "forward" and "reverse", and `tests` the estimates that
    are 0 or 1 by theorem. `grid` has what the timestep grid of the run spends.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    work: dict[str, tuple[float, ...]] = field(default_factory=dict)
    tests: dict[str, Estimate] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)

    def draw(self, path: Path, examples: str, compared: LikelihoodEvaluation | None = None) -> None:
        """Draws rates by log-SNR, the reverse trajectory, and the work of paths into a PNG.

        The marks are those of the run in whose folder it is.
        """
        marks = clocks.marks(checkpoint.run_of(path.parent))
        ledger_figure.draw(path, self.curves, self.work, self.unit, examples, marks)


def of_measurements(
    found: Measurements,
    columns: Columns,
    schedule: Schedule,
    spec: DataSpec,
    log_snr: Tensor,
    grid: Tensor,
    steps: int,
) -> Ledger:
    """The ledger of measurements at log-SNRs (T,), for a timestep grid of the log-SNRs `grid` and paths of `steps`."""
    factor, schedule = bits_per_dim(1.0, spec.dim) if spec.levels else bits(1.0), VariancePreserving(schedule)
    moment, total = found.terms[:, 3], found.terms[:, 4]
    error, squares = found.by_log_snr.chunk(2, 1)
    terms = _terms(found, schedule, spec.dim, log_snr, error, factor)
    timed = timing(log_snr, squares.mean(0), grid)
    mismatch = largest_mismatch(math.exp(float(grid.min())), float(moment.mean()), float(moment.mean()))
    spent = _spent(timed, mismatch, spec.dim)
    some = found.log_weights[~found.log_weights[:, 0].isnan()] if columns.of_some else torch.zeros(0, 0)
    followed, missed = some[:, : columns.of_paths], some[:, columns.of_paths :]
    work = Work.of(followed[:, :-1], columns.paths) if followed.shape[1] else None
    if work is not None:
        spent["error"] = estimate(followed[:, -1], {"noise": torch.zeros(len(followed))}).scaled(spec.dim**-0.5)
    curves = _curves(found, schedule, spec.dim, log_snr, error, factor)
    if columns.exact:
        lacking = log_snr.exp() * missed / 2
        terms = _with_forward(terms, log_snr, lacking, factor)
        curves |= _forward(curves["production"], _curve(log_snr, lacking * factor))
    unit, said = DIM if spec.levels else VECTOR, _said_of_production(len(missed) * columns.exact)
    if work is not None:
        said += work.notes(factor, steps, unit)
    return Ledger(
        "thermodynamics",
        KIND,
        unit,
        len(found.terms),
        terms,
        tuple((total * factor).tolist()),
        (*said_of(spec), *said, *_said_of_grid(spent)),
        value_errors=tuple((within_examples(found) * factor).tolist()),
        curves=curves,
        work={} if work is None else work.numbers,
        tests={} if work is None else work.tests(factor),
        grid=spent,
    )


def _terms(
    found: Measurements, schedule: Schedule, dim: int, log_snr: Tensor, error: Tensor, factor: float
) -> dict[str, Estimate]:
    """The estimates of every row, with the error of the integral where there is one."""
    off = off_integral(log_snr, (log_snr.exp() * error).mean(0) / 2)
    return {
        name: estimate(values, {"noise": variance}, solver=off * (name in INTEGRALS), repeats=2).scaled(factor)
        for name, (values, variance) in _rows(found, schedule, dim).items()
    }


def off_integral(log_snr: Tensor, density: Tensor) -> float:
    """The error of the trapezoidal rule for a density at log-SNRs (T,), by leaving every other one out (Richardson).

    It is an estimate for a density that the levels resolve; the noise of the density has a part in it.
    """
    kept = torch.ones(len(log_snr), dtype=torch.bool)
    kept[1:-1:2] = False
    coarse = torch.trapezoid(density[kept], log_snr[kept])
    return abs(float(torch.trapezoid(density, log_snr) - coarse)) / 3


def _rows(found: Measurements, schedule: Schedule, dim: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The values of every row in nats, and their variances within an example: (N,) each. The total comes last."""
    prior, information, decoder, moment, total = found.terms.unbind(1)
    noise, still = found.variances[:, 0], torch.zeros(len(prior), dtype=torch.float64)
    heat, _, _ = exchanged(schedule, moment, dim)
    ends = torch.tensor([schedule.log_snr_min, schedule.log_snr_max], dtype=torch.float64)
    nothing = torch.zeros(2, dtype=torch.float64)
    system = -entropy(schedule, ends, nothing, dim).diff() - information
    return {
        "entropy": (system, noise[:, 1]),
        "heat": (heat, still),
        "production": (system + heat, noise[:, 1]),
        "prior": (prior, still),
        "information": (information, noise[:, 1]),
        "decoder": (decoder, noise[:, 2]),
        "total": (total, noise[:, 4]),
    }


def _curves(
    found: Measurements, schedule: Schedule, dim: int, log_snr: Tensor, error: Tensor, factor: float
) -> dict[str, Curve]:
    """The rates of the ledger per unit of log-SNR, and the entropy of x_t, with standard errors."""
    moment, prior = found.terms[:, 3:4], found.terms[:, :1]
    rates = balance(schedule, log_snr, error, moment, dim)
    known = prior - rates.integral(rates.information).neg()
    each = {
        "information": rates.information,
        "heat": rates.bath,
        "production": rates.production,
        "entropy": entropy(schedule, log_snr, known, dim),
        "produced": rates.integral(rates.production),
    }
    return {name: _curve(log_snr, values * factor) for name, values in each.items()}


def _with_forward(terms: dict[str, Estimate], log_snr: Tensor, lacking: Tensor, factor: float) -> dict[str, Estimate]:
    """The terms with what the learned production lacks, and that of the forward process, their sum."""
    values, learned = torch.trapezoid(lacking, log_snr), terms["production"]
    nothing, off = torch.zeros(len(values), dtype=torch.float64), off_integral(log_snr, lacking.mean(0))
    lacks = estimate(values, {"noise": nothing}, solver=off).scaled(factor)
    widths, names = (learned.half_width, lacks.half_width), ("examples", "noise", "solver")
    width = None if None in widths else math.hypot(*(each for each in widths if each is not None))
    errors = {name: math.hypot(learned.errors.get(name, 0.0), lacks.errors.get(name, 0.0)) for name in names}
    forward = Estimate(learned.mean + lacks.mean, width, errors)
    added = {"forward": forward, "difference": lacks}
    rows = {}
    for name, value in terms.items():
        rows[name] = value
        if name == "production":
            rows |= added
    return rows


def _forward(learned: Curve, lacking: Curve) -> dict[str, Curve]:
    """The curves of the difference, and of the production of the forward process."""
    both = zip(learned, lacking, strict=True)
    forward = tuple((at, own + less, math.hypot(error, other)) for (at, own, error), (_, less, other) in both)
    return {"difference": lacking, "forward": forward}


def _curve(log_snr: Tensor, rows: Tensor) -> Curve:
    errors = rows.std(0, correction=min(1, len(rows) - 1)) / math.sqrt(len(rows))
    return tuple(zip(log_snr.tolist(), rows.mean(0).tolist(), errors.tolist(), strict=True))


def _spent(timed: Timing, mismatch: float, dim: int) -> dict[str, Any]:
    """What the grid spends, in units of x per scalar (root mean square); None for an accuracy without a bound."""
    accuracy = timed.accuracy(mismatch) / math.sqrt(dim)
    return {
        "steps": timed.steps,
        "action": timed.action / dim,
        "length": timed.length / math.sqrt(dim),
        "efficiency": timed.efficiency,
        "accuracy": accuracy if math.isfinite(accuracy) else None,
    }


def _said_of_production(known: int) -> tuple[str, ...]:
    """What the integrals are, and whether the forward process is known, on a number of examples."""
    told = f"the difference, by the exact denoiser on {known} examples" if known else "which examples alone do not tell"
    return (
        "solver: the error of the integral over the levels, by leaving every other one out, added to the width",
        "production: of the learned reverse process, entropy + heat; the forward process has more by the KL that the "
        f"objective minimizes, {told}",
    )


def _said_of_grid(spent: dict[str, Any]) -> tuple[str, ...]:
    """What is said of the grid, and what is compared with what."""
    lines = [
        f"grid of {spent['steps']} steps: action {spent['action']:.4g}, length {spent['length']:.4g}, efficiency "
        f"{spent['efficiency']:.3f}, per scalar where the variance is 1"
    ]
    if "error" in spent:
        most = "an amount without a bound, as it has little noise"
        most = most if spent["accuracy"] is None else f"at most {spent['accuracy']:.2g}"
        lines.append(
            f"error of the grid: {spent['error']}, the distance of DDIM from itself on 4 times as many steps, at least "
            f"W1 of the two; the start from pure noise adds {most} on the exact flow"
        )
    return tuple(lines)
