"""The likelihood of examples by any estimator, with the errors of every number by source.

An `Estimator` measures one batch: the terms of -log p of each example, and the variance of each term by random source.
This file has what all estimators share: batches, processes, batches that are halved when memory runs out, means with
intervals, units.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from diffusion import checkpoint, distributed, memory, plots
from diffusion.data import Dataset, DataSpec
from diffusion.errors import InputError, require
from diffusion.evaluation.evaluator import Evaluation, Evaluator, Setting
from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.evaluation.masks import UNMASKED, Masks, part_to_measure, said_of_part
from diffusion.evaluation.telling import Telling
from diffusion.likelihood.importance import ENOUGH, PathWeights
from diffusion.likelihood.units import (
    DIM,
    HIDDEN,
    VECTOR,
    bits,
    bits_per_dim,
    bits_per_pixel,
    meaning,
    null_log_likelihood,
)
from diffusion.model import Model, clocks
from diffusion.model.likelihood import Likelihood
from diffusion.progress import track

# The most examples in a batch on a CPU. Large examples are fewer, `memory.POSITIONS` positions in all. On GPUs both are
# larger, by `memory.TIMES`.
BATCH = 128
DENSITY = "of density at unit variance, as Sohl-Dickstein et al. (2015); larger is better"
PIXEL = "bits/pixel, all colors together"


@dataclass(frozen=True)
class LikelihoodEvaluation(Evaluation):
    """-log p of examples by one estimator; `kind` says whether it is a bound or an estimate.

    For images of discrete gray levels the unit is bits/dim, which measures their probability, per scalar; for
    continuous data it is bits/vector, which measures the density of their standardized values. `terms` ends with the
    "total", and `values` has the total of each example. `k` states the same total as K and K - L_null of the 2015
    paper. `by_log_snr` is the KL by log-SNR, with an entry (log-SNR, KL in `unit` per unit of log-SNR, standard error)
    for each bin. `log_weights` has the log-weights of the paths of each example, in nats.

    Where a part of each example is measured (`masks`), the scalars are those of this part, `counted` is their mean
    number, and there is no K.
    """

    k: dict[str, Estimate] | None = None
    by_log_snr: tuple[tuple[float, float, float], ...] = ()
    log_weights: tuple[tuple[float, ...], ...] = ()
    counted: float | None = None

    @property
    def rows(self) -> dict[str, Estimate]:
        """The terms, followed by K and K - L_null."""
        return {**self.terms, **(self.k or {})}

    @property
    def footers(self) -> tuple[str, ...]:
        """The unit of K, if there is one, followed by the notes."""
        if self.k is None:
            return self.notes
        return f"{', '.join(self.k)}: {PIXEL if self.unit == DIM else VECTOR}, {DENSITY}", *self.notes

    def draw(self, path: Path, examples: str, compared: Self | None = None) -> None:
        """Draws a figure into a PNG: the KL by log-SNR if it is known, else a histogram.

        The first has the marks of the run in whose folder it is. The histogram is of the work dissipated on each path,
        or without paths of the values of all examples.
        """
        if self.by_log_snr:
            curves = {examples: self.by_log_snr, **({} if compared is None else {"training": compared.by_log_snr})}
            plots.by_log_snr(curves, path, self.unit, clocks.marks(checkpoint.run_of(path.parent)))
        elif self.log_weights:
            excess = PathWeights(torch.tensor(self.log_weights)).excess.flatten().tolist()
            plots.histogram(
                excess, path, label="log p by all paths - log w, nats", title="work dissipated on each path"
            )
        else:
            super().draw(path, examples)


@dataclass(frozen=True)
class Measurements:
    """The measurements of N examples by an estimator, on the CPU in float64.

    terms: (N, T), the terms of -log p in nats, the last of which is the total. variances: (N, S, T), the variances of
    the terms by random source. by_log_snr: (N, BINS), the KL by bins of log-SNR in nats. log_weights: (N, K), the
    log-weights of K paths. differences: (M,), the differences between two tolerances of a solver, for M of the
    examples. counted: (N,), the scalars of each example that the terms are of, or (0,) where they are of all. Where an
    estimator has none of these, they have no columns or no rows.
    """

    terms: Tensor
    variances: Tensor
    by_log_snr: Tensor
    log_weights: Tensor
    differences: Tensor
    counted: Tensor

    @classmethod
    def of(
        cls,
        terms: Tensor,
        variances: Tensor,
        *,
        by_log_snr: Tensor | None = None,
        log_weights: Tensor | None = None,
        differences: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> Measurements:
        """Moves measurements to the CPU in float64; those that are not given are empty."""
        blank = torch.zeros(len(terms), 0)
        given = (
            terms,
            variances,
            blank if by_log_snr is None else by_log_snr,
            blank if log_weights is None else log_weights,
            torch.zeros(0) if differences is None else differences,
            torch.zeros(0) if counted is None else counted,
        )
        return cls(*(value.detach().double().cpu() for value in given))

    def by_scalar(self, dim: int) -> Measurements:
        """These measurements as if all `dim` scalars of an example cost as much as those that count."""
        if not len(self.counted):
            return self
        share = dim / self.counted[:, None]
        return replace(
            self,
            terms=self.terms * share,
            variances=self.variances * share[..., None].square(),
            by_log_snr=self.by_log_snr * share,
        )


def concatenate(batches: Sequence[Measurements]) -> Measurements:
    """Concatenates the measurements of several batches."""
    return Measurements(*(torch.cat([getattr(each, field.name) for each in batches]) for field in fields(Measurements)))


def gather(measurements: Measurements) -> Measurements:
    """Concatenates the measurements of all processes, example by example, so that no example counts twice."""
    return Measurements(*(distributed.gather(getattr(measurements, field.name)) for field in fields(Measurements)))


class Estimator(Evaluator):
    """Measures -log p of batches of examples.

    `terms` names the terms of -log p; each is the mean of `repeats` independent estimates. `bins` is the number of bins
    of log-SNR and `paths` that of paths, 0 where there are none. `independent` says whether an example has the same
    numbers in any batch, up to rounding, and `masked` whether a part of an example can be measured. `seed` is that of
    all random numbers.
    """

    terms: tuple[str, ...] = ("total",)
    seed: int = 0
    repeats: int = 1
    bins: int = 0
    paths: int = 0
    independent: bool = True
    masked: bool = False

    def given(self, spec: DataSpec) -> Tensor | None:
        """What is known of every example, (1, 1, *), if the likelihood of the rest is measured."""
        return None

    @abstractmethod
    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """The names of the random sources within one example."""

    @abstractmethod
    def kind(self, likelihood: Likelihood) -> str:
        """Says whether the total is a bound on -log p or an estimate of it."""

    @abstractmethod
    def measure(
        self,
        likelihood: Likelihood,
        x: Tensor,
        numbers: Sequence[int],
        label: Tensor | None,
        masks: Masks = UNMASKED,
    ) -> Measurements:
        """Measures the examples x (B, *), whose numbers are `numbers`; `masks` are those of a `masked` estimator."""

    def summarize(self, likelihood: Likelihood, measurements: Measurements) -> LikelihoodEvaluation:
        """Summarizes the measurements of all examples (`summary`)."""
        return summary(self, likelihood, measurements)

    def empty(self, likelihood: Likelihood) -> Measurements:
        """The measurements of a process without examples."""
        terms, sources = len(self.terms), len(self.sources(likelihood))
        blank = torch.zeros(0, dtype=torch.float64)
        shapes = (terms,), (sources, terms), (self.bins,), (self.paths,), (), ()
        return Measurements(*(blank.new_zeros(0, *shape) for shape in shapes))

    def batch(self, spec: DataSpec, device: torch.device) -> int:
        """The examples to measure at once: so many on every device of a kind, so that processes agree.

        GPUs take more than CPUs. Where the numbers of an example depend on its batch, they are the same on all devices.
        """
        times = memory.TIMES.get(device.type, 1) if self.independent else 1
        return max(1, min(times * BATCH, times * memory.POSITIONS // math.prod(spec.shape[1:])))

    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> LikelihoodEvaluation:
        """Evaluates -log p of examples, with labels where the model was trained with them.

        Of a model that was trained to be told something of an example it is that of p(x | what is told), where the
        examples have it and the setting does not leave it out. The random numbers of an example depend on the
        estimator's seed and the position of the example among those measured, not on batches or processes.

        Examples of which nothing that is to be measured has been seen are left out.

        Raises InputError where there are no examples, where they are of another kind or other classes than the model's,
        and where a part of them is to be measured by an estimator or a model that cannot.
        """
        likelihood, known = (
            model.likelihood(guidance=1.0 if setting.guidance is None else setting.guidance, dtype=setting.dtype),
            self.given(model.spec),
        )
        whole = replace(setting, limit=None).select(examples, model.spec)
        if whole.seen is not None:
            require(self.masked, "data", f"seen everywhere for {self.name}; take --method bound", "unseen pixels")
            rule = "seen everywhere for this model, which takes one noise level for all pixels"
            require(likelihood.mapped, "data", rule, "unseen pixels")
        measurable = part_to_measure(whole, known)
        examples, left_out = setting.select(measurable, model.spec), len(whole) - len(measurable)
        count = len(examples)
        batch = self.batch(examples.spec, likelihood.device)
        if setting.shared:  # The devices of some processes might suit more.
            batch = -distributed.largest(-batch)
        starts = range(0, count, batch)
        if setting.shared:
            # Processes share whole batches, as an adaptive solver takes the same steps for all examples of a batch.
            mine = distributed.share(len(starts))
            starts = starts[mine.start : mine.stop]
        batches, telling = [self.empty(likelihood)], Telling.of(model, examples, setting)
        for start in track(starts, len(starts), "evaluating", "batch", show=setting.progress):
            numbers = range(start, min(start + batch, count))
            values, label = examples.batch(numbers)
            if examples.spec.is_image:
                values = examples.center(values)
            label = label if model.spec.classes else None
            masks, told = Masks(known, examples.seen_pixels(numbers)), telling(examples, values, numbers, self.seed)
            batches += measure_batch(self, likelihood, values, numbers, label, masks, told)
        measured = concatenate(batches)
        result = self.summarize(likelihood, gather(measured) if setting.shared else measured)
        result = replace(result, notes=(*telling.notes, *result.notes))
        if not left_out:
            return result
        note = f"left out: {left_out:,} examples, of which nothing that is to be measured has been seen"
        return replace(result, names=tuple(examples.names), notes=(*result.notes, note))


def measure_batch(
    estimator: Estimator,
    likelihood: Likelihood,
    x: Tensor,
    numbers: Sequence[int],
    label: Tensor | None,
    masks: Masks = UNMASKED,
    told: Tensor | None = None,
) -> list[Measurements]:
    """Measures a batch x (B, *) at once, or in halves, and halves of these, while memory runs out.

    The network is `told` channels (B, K, *). Raises InputError when memory runs out with one example, or by an
    estimator that would give other numbers in smaller batches.
    """
    found = memory.none_if_oom(lambda: estimator.measure(likelihood.told(told), x, numbers, label, masks))
    if found is not None:
        return [found]
    half = len(x) // 2
    if half == 0 or not estimator.independent:
        remedy = (
            "use a device with more memory"
            if estimator.independent
            else "set solver_steps, with which a batch can be halved"
        )
        raise InputError(f"evaluation: out of memory on {likelihood.device} with {len(x)} examples at once; {remedy}")
    return [
        measured
        for rows in (slice(half), slice(half, None))
        for measured in measure_batch(
            estimator,
            likelihood,
            x[rows],
            numbers[rows],
            None if label is None else label[rows],
            masks.part(rows),
            None if told is None else told[rows],
        )
    ]


def summary(estimator: Estimator, likelihood: Likelihood, measurements: Measurements) -> LikelihoodEvaluation:
    """Summarizes the measurements of all examples."""
    spec, schedule, count = likelihood.spec, likelihood.denoiser.schedule, len(measurements.terms)
    factor = bits_per_dim(1.0, spec.dim) if spec.levels else bits(1.0)
    counted = float(measurements.counted.mean()) if len(measurements.counted) else None
    known = estimator.given(spec)
    measurements = measurements.by_scalar(spec.dim) if spec.levels else measurements
    solver = float(measurements.differences.abs().mean()) if len(measurements.differences) else None
    sources = estimator.sources(likelihood)
    terms = {}
    for i, name in enumerate(estimator.terms):
        within = {source: measurements.variances[:, j, i] for j, source in enumerate(sources)}
        terms[name] = estimate(measurements.terms[:, i], within, solver=solver, repeats=estimator.repeats).scaled(
            factor
        )
    width = (schedule.log_snr_max - schedule.log_snr_min) / max(1, estimator.bins)
    return LikelihoodEvaluation(
        estimator.name,
        estimator.kind(likelihood),
        VECTOR if not spec.levels else DIM if known is None else HIDDEN,
        count,
        terms,
        tuple((measurements.terms[:, -1] * factor).tolist()),
        (*said_of(spec), *said_of_part(spec, counted, known), *notes(measurements, factor)),
        value_errors=tuple((within_examples(measurements) * factor).tolist()),
        k=as_2015(terms["total"], spec) if counted is None else None,
        by_log_snr=curve(measurements.by_log_snr, schedule.log_snr_min, width, factor),
        log_weights=tuple(map(tuple, measurements.log_weights.tolist())) if measurements.log_weights.shape[1] else (),
        counted=counted,
    )


def within_examples(measurements: Measurements) -> Tensor:
    """The standard error of the total of each example, from the random sources within it: (N,) in nats."""
    # A variance that was computed as a difference may be below zero.
    return measurements.variances[:, :, -1].sum(1).clamp(min=0).sqrt()


def said_of(spec: DataSpec) -> tuple[str, ...]:
    """What the unit measures, where the images are read in a range of file values: one sentence."""
    if spec.value_range is None:
        return ()
    return (meaning(spec.levels, spec.value_range, dim=spec.dim, std=spec.std),)


def as_2015(total: Estimate, spec: DataSpec) -> dict[str, Estimate]:
    """K and K - L_null from the total: in bits/pixel from bits/dim, in bits/vector from bits/vector (`units`)."""
    if spec.levels:
        scalars = spec.shape[0]
        k = total.scaled(-scalars, bits_per_pixel(0.0, colors=scalars, std=spec.std))
    else:
        # The total is a density of the model's values, which have unit variance already.
        scalars, k = spec.dim, total.scaled(-1.0)
    return {"K": k, "K - L_null": k.scaled(1.0, -bits(null_log_likelihood(scalars)))}


def curve(rows: Tensor, low: float, width: float, factor: float) -> tuple[tuple[float, float, float], ...]:
    """The entries of `by_log_snr`, from the KL of each example by bins, `rows` (N, BINS) in nats.

    Bins have a `width` in log-SNR and begin at `low`; `factor` converts nats. The standard errors are 0 for one
    example.
    """
    if not rows.shape[1]:
        return ()
    middles = low + width * (torch.arange(rows.shape[1]) + 0.5)
    errors = rows.std(0, correction=min(1, len(rows) - 1)) / math.sqrt(len(rows))
    density = factor / width
    return tuple(zip(middles.tolist(), (rows.mean(0) * density).tolist(), (errors * density).tolist(), strict=True))


def notes(measurements: Measurements, factor: float) -> tuple[str, ...]:
    """The sentences without which the numbers, nats times `factor`, could be misread."""
    lines: list[str] = []
    if len(measurements.terms) == 1:
        lines.append(
            "one example: nothing is known of others, and the interval covers the random variance within it alone"
        )
    if compared := len(measurements.differences):
        lines.append(f"solver: the mean difference to a finer tolerance on {compared} examples, added to the width")
    if paths := measurements.log_weights.shape[1]:
        weights = PathWeights(measurements.log_weights)
        unreliable, least = int((~weights.reliable).sum()), float(weights.ess.min())
        if unreliable:
            lines.append(
                f"not reliable: for {unreliable} of {len(weights.log_weights)} examples the effective sample size is "
                f"below {ENOUGH:g} of {paths} paths (least {least:.1f}); the total is a bound and no estimate of "
                "-log p; take more paths or steps"
            )
        else:
            lines.append(f"reliable: the effective sample size of every example is at least {least:.1f} paths")
        totals = (f"{count}: {-factor * float(value.mean()):.4f}" for count, value in weights.curve().items())
        lines.append(f"total by the number of paths: {', '.join(totals)}")
    return tuple(lines)
