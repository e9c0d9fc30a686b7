"""The likelihood of examples by any estimator, with the sources of error of every number.

An `Estimator` measures one batch: -log p of each example by terms, and the variance of each term by random source. What
all of them share is here: batches, processes, memory that runs out, means with intervals, units.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import distributed, figures, memory
from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError, require
from diffusion.evaluation.evaluator import Evaluation, Evaluator, Setting
from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.likelihood.importance import ENOUGH, PathWeights
from diffusion.likelihood.units import bits, bits_per_dim, bits_per_pixel, null_log_likelihood
from diffusion.model import Model
from diffusion.model.likelihood import Likelihood

# The most examples of a batch; of large ones as many as have the positions that suit a device.
BATCH = 128
DIM, VECTOR = "bits/dim", "bits/vector"
DENSITY = "of density at unit variance, as Sohl-Dickstein et al. (2015); larger is better"
PIXEL = "bits/pixel, all colors together"


@dataclass(frozen=True)
class LikelihoodEvaluation(Evaluation):
    """-log p of examples by one estimator; `kind` says whether it is a bound or an estimate.

    The unit bits/dim is that of the probability of 8-bit images, per scalar; bits/vector is that of the density of the
    standardized values of continuous data. `terms` ends with the "total", and `values` are the totals of all examples.
    `k` states the same total as K and K - L_null of the 2015 paper. `by_log_snr` is the KL by log-SNR: (log-SNR, its
    density in `unit` per unit of log-SNR, standard error). `log_weights` of the paths are in nats, a tuple for each
    example.
    """

    k: dict[str, Estimate] | None = None
    by_log_snr: tuple[tuple[float, float, float], ...] = ()
    log_weights: tuple[tuple[float, ...], ...] = ()

    @property
    def rows(self) -> dict[str, Estimate]:
        """The terms, then K and K - L_null."""
        return {**self.terms, **(self.k or {})}

    @property
    def footers(self) -> tuple[str, ...]:
        """The unit of K, and the notes."""
        unit = f"{', '.join(self.k or ())}: {PIXEL if self.unit == DIM else VECTOR}, {DENSITY}"
        return unit, *self.notes

    def draw(self, path: Path, of: str, compared: Self | None = None) -> None:
        """Draws the KL by log-SNR, the work dissipated on each path, or the likelihoods of all examples, into a PNG."""
        if self.by_log_snr:
            curves = {of: self.by_log_snr, **({} if compared is None else {"training": compared.by_log_snr})}
            figures.by_log_snr(curves, path, self.unit)
        elif self.log_weights:
            excess = PathWeights(torch.tensor(self.log_weights)).excess.flatten().tolist()
            figures.histogram(
                excess, path, label="log p by all paths - log w, nats", title="work dissipated on each path"
            )
        else:
            super().draw(path, of)


@dataclass(frozen=True)
class Measurements:
    """What an estimator measured of N examples, on the CPU in float64.

    `terms` (N, T) are -log p by terms in nats, the last of them the total; `variances` (N, S, T) those of the terms by
    random source; `by_log_snr` (N, BINS) the KL by log-SNR in nats; `log_weights` (N, K) those of paths; `differences`
    (M,) between two tolerances of a solver. An estimator that has none of a kind leaves it without columns or rows.
    """

    terms: Tensor
    variances: Tensor
    by_log_snr: Tensor
    log_weights: Tensor
    differences: Tensor

    @classmethod
    def of(
        cls,
        terms: Tensor,
        variances: Tensor,
        *,
        by_log_snr: Tensor | None = None,
        log_weights: Tensor | None = None,
        differences: Tensor | None = None,
    ) -> Measurements:
        """Measurements on the CPU in float64, empty where nothing is given."""
        blank = torch.zeros(len(terms), 0)
        given = (
            terms,
            variances,
            blank if by_log_snr is None else by_log_snr,
            blank if log_weights is None else log_weights,
            torch.zeros(0) if differences is None else differences,
        )
        return cls(*(value.detach().double().cpu() for value in given))


def join(parts: Sequence[Measurements]) -> Measurements:
    """The measurements of several batches together."""
    return Measurements(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Measurements)))


def gather(part: Measurements) -> Measurements:
    """The measurements of all processes together, example by example, so that nothing is counted twice."""
    return Measurements(*(distributed.gather(getattr(part, field.name)) for field in fields(Measurements)))


class Estimator(Evaluator):
    """A way to measure -log p of a batch of examples.

    `terms` names the columns of its numbers, of which there are independent `repeats`. `bins` and `paths` are the
    numbers of bins of log-SNR and of paths. `independent` says that an example has the same numbers in any batch, up to
    rounding.
    """

    terms: tuple[str, ...] = ("total",)
    repeats: int = 1
    bins: int = 0
    paths: int = 0
    independent: bool = True

    @abstractmethod
    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """The names of what is random within one example."""

    @abstractmethod
    def kind(self, likelihood: Likelihood) -> str:
        """Says what the total is: a bound on -log p or an estimate of it."""

    @abstractmethod
    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """Measures the examples x (B, *), whose numbers are `numbers`."""

    def empty(self, likelihood: Likelihood) -> Measurements:
        """The measurements of a process without examples."""
        terms, sources = len(self.terms), len(self.sources(likelihood))
        blank = torch.zeros(0, dtype=torch.float64)
        shapes = (terms,), (sources, terms), (self.bins,), (self.paths,), ()
        return Measurements(*(blank.new_zeros(0, *shape) for shape in shapes))

    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> LikelihoodEvaluation:
        """Evaluates -log p of examples, with labels where the model was trained with them.

        The random numbers of an example depend on the estimator's seed and the place of the example among those
        measured, not on batches or processes.

        Raises InputError where there are no examples, or they are not of the model's kind and classes.
        """
        limit = setting.limit
        require(limit is None or limit >= 1, "limit", "at least 1", limit)
        check_examples(examples, model.spec)
        likelihood = model.likelihood(guidance=setting.guidance, dtype=setting.dtype)
        if limit is not None:
            examples = examples.evenly(limit)
        count = len(examples)
        # A function of the examples alone, so that processes agree.
        batch = max(1, min(BATCH, memory.POSITIONS // math.prod(examples.spec.shape[1:])))
        starts = range(0, count, batch)
        if setting.shared:
            # Whole batches, because an adaptive solver takes the same steps for all examples of a batch.
            mine = distributed.share(len(starts))
            starts = starts[mine.start : mine.stop]
        parts = [self.empty(likelihood)]
        for start in tqdm(starts, desc="evaluating", disable=not setting.progress):
            numbers = range(start, min(start + batch, count))
            values, label = examples.batch(numbers)
            if examples.spec.is_image:
                values = examples.center(values)
            parts += measure_batch(self, likelihood, values, numbers, label if model.spec.classes else None)
        whole = join(parts)
        return summary(self, likelihood, gather(whole) if setting.shared else whole)


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
    estimator: Estimator, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None
) -> list[Measurements]:
    """The parts of a batch x (B, *): one, or more of half as many examples each while memory runs out.

    Raises InputError when it does with one example, or by a method of which fewer at once would give other numbers.
    """
    found = memory.none_if_oom(lambda: estimator.measure(likelihood, x, numbers, label))
    if found is not None:
        return [found]
    half = len(x) // 2
    if half == 0 or not estimator.independent:
        remedy = (
            "use a device with more" if estimator.independent else "set solver_steps, with which a batch can be halved"
        )
        raise InputError(f"evaluation: out of memory with {len(x)} examples at once, of {likelihood.device}; {remedy}")
    return [
        part
        for rows in (slice(half), slice(half, None))
        for part in measure_batch(estimator, likelihood, x[rows], numbers[rows], None if label is None else label[rows])
    ]


def stored(spec: DataSpec) -> str:
    """How examples are stored, in words."""
    return f"of {spec.levels} levels" if spec.levels else "continuous"


def summary(estimator: Estimator, likelihood: Likelihood, part: Measurements) -> LikelihoodEvaluation:
    """What a part with all examples says."""
    spec, count = likelihood.spec, len(part.terms)
    factor = bits_per_dim(1.0, spec.dim) if spec.levels else bits(1.0)
    solver = float(part.differences.abs().mean()) if len(part.differences) else None
    sources = estimator.sources(likelihood)
    terms = {}
    for i, name in enumerate(estimator.terms):
        within = {source: part.variances[:, j, i] for j, source in enumerate(sources)}
        terms[name] = estimate(part.terms[:, i], within, solver=solver, repeats=estimator.repeats).scaled(factor)
    width = (likelihood.denoiser.schedule.log_snr_max - likelihood.denoiser.schedule.log_snr_min) / max(
        1, estimator.bins
    )
    return LikelihoodEvaluation(
        estimator.name,
        estimator.kind(likelihood),
        DIM if spec.levels else VECTOR,
        count,
        terms,
        tuple((part.terms[:, -1] * factor).tolist()),
        notes(part, factor),
        as_2015(terms["total"], spec),
        curve(part.by_log_snr, likelihood.denoiser.schedule.log_snr_min, width, factor),
        tuple(map(tuple, part.log_weights.tolist())) if part.log_weights.shape[1] else (),
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
