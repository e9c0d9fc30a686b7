"""The likelihood of examples by one of the methods, with the error budget of every number, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import distributed, memory
from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError, require
from diffusion.evaluation.estimators import BoundEstimator, Estimator
from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.evaluation.measurements import Measurements, gather, join
from diffusion.likelihood.importance import ENOUGH, PathWeights
from diffusion.likelihood.units import bits, bits_per_dim, bits_per_pixel, null_log_likelihood
from diffusion.model import Model
from diffusion.model.likelihood import Likelihood

# The most examples of a batch; large ones are fewer, of as many positions as suit a device.
BATCH = 128
DIM, VECTOR = "bits/dim", "bits/vector"
DENSITY = "of density at unit variance, as Sohl-Dickstein et al. (2015); larger is better"
PIXEL = "bits/pixel, all colors together"


@dataclass(frozen=True)
class Evaluation:
    """-log p of examples by one method, `kind` says what of it, in `unit`: bits/dim is of the probability of 8-bit
    images, per scalar, bits/vector of the density of the standardized values of continuous data.

    `terms` ends with the "total". `k` has the same total as K and K - L_null of the 2015 paper.
    `values` are the totals of all examples. `by_log_snr` is the KL by noise level: (log-SNR, its density in `unit` per
    unit of log-SNR, standard error). `log_weights` of the paths are in nats, a tuple for each example.
    """

    method: str
    kind: str
    unit: str
    examples: int
    terms: dict[str, Estimate]
    k: dict[str, Estimate]
    values: tuple[float, ...] = ()
    by_log_snr: tuple[tuple[float, float, float], ...] = ()
    log_weights: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> dict[str, float]:
        """By term."""
        return {name: value.mean for name, value in self.terms.items()}

    @property
    def standard_error(self) -> dict[str, float]:
        """By term, of all sources of chance together."""
        return {name: value.standard_error for name, value in self.terms.items()}

    def table(self, examples: str = "held-out") -> str:
        """One line per term: its mean, its interval, and the standard errors by source."""
        head = f"{self.method}: {self.kind}, {self.unit}, {self.examples:,} {examples} examples"
        total = {**self.terms, **self.k}
        sources = list(next(iter(self.terms.values())).errors)
        columns = "".join(f"{name:>16s}" for name in sources)
        lines = [head, f"{'':16s}{'mean':>12s}{'± 95 %':>12s}{columns}"]
        for name, value in total.items():
            width = f"{'?':>12s}" if value.half_width is None else f"{value.half_width:12.4f}"
            errors = "".join(f"{value.errors[source]:16.4f}" for source in sources)
            lines.append(f"{name:16s}{value.mean:12.4f}{width}{errors}")
        lines.append(f"{', '.join(self.k)}: {PIXEL if self.unit == DIM else VECTOR}, {DENSITY}")
        return "\n".join([*lines, *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them, with `mean` and `standard_error`."""
        return {**asdict(self), "mean": self.mean, "standard_error": self.standard_error}


def evaluate(
    model: Model,
    held_out: Dataset,
    *,
    method: Estimator | None = None,
    limit: int | None = None,
    shared: bool = False,
    guidance: float = 1.0,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> Evaluation:
    """-log p of held-out examples, by the trajectory bound unless another method is given.

    A `limit` takes examples evenly spaced over all of them. Labels are given to a model that was trained with them.
    With `shared` the processes, which must all call this alike, take some batches each. Each example's random numbers
    depend on the method's seed and the example's place among those measured alone.

    Raises InputError when nothing was held out, or the examples are not of the model's kind and classes.
    """
    require(limit is None or limit >= 1, "limit", "at least 1", limit)
    check_examples(held_out, model.spec)
    estimator = method or BoundEstimator()
    likelihood = model.likelihood(guidance=guidance, dtype=dtype)
    if limit is not None:
        held_out = held_out.evenly(limit)
    count = len(held_out)
    # A function of the examples alone, on which processes agree.
    batch = max(1, min(BATCH, memory.POSITIONS // math.prod(held_out.spec.shape[1:])))
    starts = range(0, count, batch)
    if shared:
        # Whole batches, because an adaptive solver steps alike for all examples of a batch.
        mine = distributed.share(len(starts))
        starts = starts[mine.start : mine.stop]
    parts = [estimator.empty(likelihood)]
    for start in tqdm(starts, desc="evaluating", disable=not progress):
        numbers = range(start, min(start + batch, count))
        values, label = held_out.batch(numbers)
        if held_out.spec.is_image:
            values = held_out.center(values)
        parts += measure_batch(estimator, likelihood, values, numbers, label if model.spec.classes else None)
    whole = join(parts)
    return summary(estimator, likelihood, gather(whole) if shared else whole)


def check_examples(held_out: Dataset, spec: DataSpec) -> None:
    """Raises InputError unless there are examples, of the kind and classes of a model."""
    require(len(held_out) > 0, "data.held_out", "positive to evaluate on examples kept from training", 0)
    got = held_out.spec
    require(got.shape == spec.shape, "data", f"of the model's shape {spec.shape}", got.shape)
    require(got.levels == spec.levels, "data", f"{stored(spec)}, as the model's", stored(got))
    if held_out.labels is not None and spec.classes:
        require(
            got.classes == spec.classes, "data", f"of the model's classes {spec.classes}, in their order", got.classes
        )


def measure_batch(
    method: Estimator, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None
) -> list[Measurements]:
    """The parts of a batch x (B, *): one, or more of half as many examples each while memory runs out.

    Raises InputError when it does with one example, or by a method of which fewer at once would give other numbers.
    """
    found = memory.none_if_oom(lambda: method.measure(likelihood, x, numbers, label))
    if found is not None:
        return [found]
    half = len(x) // 2
    if half == 0 or not method.independent:
        remedy = (
            "use a device with more" if method.independent else "set solver_steps, with which a batch can be halved"
        )
        raise InputError(f"evaluation: out of memory with {len(x)} examples at once, of {likelihood.device}; {remedy}")
    return [
        part
        for rows in (slice(half), slice(half, None))
        for part in measure_batch(method, likelihood, x[rows], numbers[rows], None if label is None else label[rows])
    ]


def stored(spec: DataSpec) -> str:
    """How examples are stored, in words."""
    return f"of {spec.levels} levels" if spec.levels else "continuous"


def summary(method: Estimator, likelihood: Likelihood, part: Measurements) -> Evaluation:
    """What a part with all examples says."""
    spec, count = likelihood.spec, len(part.terms)
    factor = bits_per_dim(1.0, spec.dim) if spec.levels else bits(1.0)
    solver = float(part.differences.abs().mean()) if len(part.differences) else None
    sources = method.sources(likelihood)
    terms = {}
    for i, name in enumerate(method.terms):
        within = {source: part.variances[:, j, i] for j, source in enumerate(sources)}
        terms[name] = estimate(part.terms[:, i], within, solver=solver, repeats=method.repeats).scaled(factor)
    width = (likelihood.denoiser.schedule.log_snr_max - likelihood.denoiser.schedule.log_snr_min) / max(1, method.bins)
    return Evaluation(
        method.name,
        method.kind(likelihood),
        DIM if spec.levels else VECTOR,
        count,
        terms,
        as_2015(terms["total"], spec),
        tuple((part.terms[:, -1] * factor).tolist()),
        curve(part.by_log_snr, likelihood.denoiser.schedule.log_snr_min, width, factor),
        tuple(map(tuple, part.log_weights.tolist())) if part.log_weights.shape[1] else (),
        notes(part, factor),
    )


def as_2015(total: Estimate, spec: DataSpec) -> dict[str, Estimate]:
    """K and K - L_null, bits/pixel from bits/dim and bits/vector from bits/vector (`units`)."""
    if spec.levels:
        scalars = spec.shape[0]
        k = total.scaled(-scalars, bits_per_pixel(0.0, colors=scalars, std=spec.std))
    else:
        # A density of the model's values, which are of unit variance already.
        scalars, k = spec.dim, total.scaled(-1.0)
    return {"K": k, "K - L_null": k.scaled(1.0, -bits(null_log_likelihood(scalars)))}


def curve(rows: Tensor, low: float, width: float, factor: float) -> tuple[tuple[float, float, float], ...]:
    """Means over examples of (N, BINS) and their standard errors, 0 for one example, per unit of log-SNR."""
    if not rows.shape[1]:
        return ()
    middles = low + width * (torch.arange(rows.shape[1]) + 0.5)
    evenly = rows.std(0, correction=min(1, len(rows) - 1)) / math.sqrt(len(rows))
    density = factor / width
    return tuple(zip(middles.tolist(), (rows.mean(0) * density).tolist(), (evenly * density).tolist(), strict=True))


def notes(part: Measurements, factor: float) -> tuple[str, ...]:
    """What a reader must know beside the numbers, which are nats times `factor`."""
    lines: list[str] = []
    if len(part.terms) == 1:
        lines.append("one example: nothing is known of others, and the interval covers what is random within it alone")
    if len(part.differences):
        lines.append(
            f"solver: the mean difference to a finer tolerance on {len(part.differences)} examples, added to the width"
        )
    if part.log_weights.shape[1]:
        weights = PathWeights(part.log_weights)
        loose, least = int((~weights.reliable).sum()), float(weights.ess.min())
        if loose:
            lines.append(
                f"not reliable: for {loose} of {len(part.log_weights)} examples the effective sample size is below "
                f"{ENOUGH:g} of {part.log_weights.shape[1]} paths (least {least:.1f}); the total is a bound and no "
                "estimate of -log p; take more paths or steps"
            )
        else:
            lines.append(f"reliable: the effective sample size of every example is at least {least:.1f} paths")
        totals = (f"{count}: {-factor * float(value.mean()):.4f}" for count, value in weights.curve().items())
        lines.append(f"total by the number of paths: {', '.join(totals)}")
    return tuple(lines)
