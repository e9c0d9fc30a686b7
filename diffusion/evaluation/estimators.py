"""Three ways to measure -log p of a batch of examples, each as numbers per example and their variances by source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.evaluation.measurements import Measurements, part
from diffusion.likelihood.bound import Bound
from diffusion.likelihood.flow import Dequantization, Hutchinson, ProbeDistribution
from diffusion.likelihood.ode import Adaptive, Fixed, Solver
from diffusion.model.likelihood import Likelihood
from diffusion.schedules import Schedule

BINS = 24
# Examples whose flow is solved again with a finer tolerance.
CHECKED = 8
# Up to this dimension the trace is exact.
EXACT = 16


class Estimator(ABC):
    """One way. `terms` names the columns of its numbers, `sources` those of their variances."""

    name: str
    terms: tuple[str, ...] = ("total",)
    repeats: int = 1
    bins: int = 0
    paths: int = 0
    independent: bool = True
    """Whether an example's numbers are the same in any batch, up to rounding."""

    @abstractmethod
    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """What is random within one example."""

    @abstractmethod
    def kind(self, likelihood: Likelihood) -> str:
        """What the total is of -log p, in words."""

    @abstractmethod
    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """Measures examples x (B, *), of those numbers."""

    def empty(self, likelihood: Likelihood) -> Measurements:
        """The part of a process without examples."""
        terms, sources = len(self.terms), len(self.sources(likelihood))
        blank = torch.zeros(0, dtype=torch.float64)
        shapes = (terms,), (sources, terms), (self.bins,), (self.paths,), ()
        return Measurements(*(blank.new_zeros(0, *shape) for shape in shapes))


@dataclass(frozen=True)
class BoundEstimator(Estimator):
    """The trajectory bound, at `draws` noise levels of each example, as many in each of several independent `repeats`.

    What differs between the repeats of an example is its noise; what is left between examples is their spread.
    """

    draws: int = 16
    steps: int | None = None
    continuous: bool = False
    seed: int = 0
    repeats: int = 2
    name = "bound"
    terms = ("prior", "diffusion", "decoder", "total")
    bins = BINS

    def __post_init__(self) -> None:
        require(self.repeats >= 2, "repeats", "at least 2", self.repeats)
        whole = self.draws > 0 and self.draws % self.repeats == 0
        require(whole, "draws", f"a positive multiple of {self.repeats}", self.draws)

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """Noise levels and noise."""
        return ("noise",)

    def kind(self, likelihood: Likelihood) -> str:
        """An upper bound."""
        return "upper bound on -log p"

    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """One call of the denoiser for each draw."""
        bounds = [
            likelihood.bound(
                x,
                steps=self.steps,
                draws=self.draws // self.repeats,
                continuous=self.continuous,
                seed=self.seed,
                repeat=repeat,
                numbers=numbers,
                label=label,
            )
            for repeat in range(self.repeats)
        ]
        terms = torch.stack([torch.stack([b.prior, b.diffusion, b.decoder, b.total], 1) for b in bounds])
        quantization = torch.stack([by_log_snr(bound, likelihood.denoiser.schedule) for bound in bounds]).mean(0)
        return part(terms.mean(0), (terms.var(0) / self.repeats)[:, None], by_log_snr=quantization)


def by_log_snr(bound: Bound, schedule: Schedule) -> Tensor:
    """The diffusion term of a bound by bins of log-SNR, which add up to it: (B, BINS) nats."""
    kl_samples = bound.kl_samples
    assert kl_samples is not None
    place = (kl_samples.log_snr - schedule.log_snr_min) / (schedule.log_snr_max - schedule.log_snr_min)
    index = (place * BINS).long().clamp(0, BINS - 1).to(kl_samples.nats.device)
    rows = kl_samples.nats.new_zeros(len(index), BINS)
    return rows.scatter_add_(1, index, kl_samples.nats / kl_samples.nats.shape[1])


@dataclass(frozen=True)
class FlowEstimator(Estimator):
    """The probability-flow ODE. Images are dequantized `repeats` times, by uniform noise or that of the clean end; the
    trace has `probes` probes each, or is exact up to `EXACT` dimensions. `solver_steps` > 0 fixes the steps of RK4,
    otherwise they adapt to `tolerance`.
    """

    probes: int = 4
    distribution: ProbeDistribution = "rademacher"
    tolerance: float = 1e-4
    solver_steps: int = 0
    seed: int = 0
    repeats: int = 2
    dequantization: Dequantization = "uniform"
    name = "ode"

    def __post_init__(self) -> None:
        require(self.probes >= 2, "probes", "at least 2, to know their error", self.probes)
        require(self.repeats >= 2, "repeats", "at least 2", self.repeats)
        require(self.solver_steps >= 0, "solver_steps", "0 or more", self.solver_steps)

    @property
    def independent(self) -> bool:  # type: ignore[override]
        """With fixed steps; an adaptive solver steps alike for all examples of a batch."""
        return self.solver_steps > 0

    @property
    def solver(self) -> Solver:
        """Fixed or adaptive."""
        return Fixed(self.solver_steps) if self.solver_steps else Adaptive(self.tolerance)

    def hutchinson(self, likelihood: Likelihood) -> Hutchinson | None:
        """None where the trace is exact."""
        return None if likelihood.spec.dim <= EXACT else Hutchinson(self.probes, self.distribution)

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """Dequantization and probes, where there are any."""
        random = {
            "dequantization": likelihood.quantization is not None,
            "probes": self.hutchinson(likelihood) is not None,
        }
        return tuple(name for name, used in random.items() if used)

    def kind(self, likelihood: Likelihood) -> str:
        """An estimate for points; a bound for images, by dequantization."""
        if likelihood.quantization is None:
            return "estimate of -log p"
        return f"upper bound on -log P by dequantization ({self.dequantization})"

    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """A flow for each repeat, and one more, of finer tolerance, of the first `CHECKED` examples."""
        probes, sources = self.hutchinson(likelihood), self.sources(likelihood)
        repeats = self.repeats if sources else 1

        def flow(n: int, repeat: int, solver: Solver) -> tuple[Tensor, Tensor]:
            given = None if label is None else label[:n]
            result = likelihood.flow(
                x[:n],
                probes=probes,
                solver=solver,
                dequantization=self.dequantization,
                seed=self.seed,
                repeat=repeat,
                numbers=numbers[:n],
                label=given,
            )
            return -result.log_likelihood, result.variance

        flows = [flow(len(x), repeat, self.solver) for repeat in range(repeats)]
        values, traces = (torch.stack(column) for column in zip(*flows, strict=True))
        variances = {"probes": traces.mean(0) / repeats}
        if "dequantization" in sources:
            # What differs between repeats is both; the probes' share is known from within a repeat.
            variances["dequantization"] = values.var(0) / repeats - variances["probes"]
        checked = sum(number < CHECKED for number in numbers)
        differences = flow(checked, 0, self.solver.refined())[0] - values[0, :checked] if checked else None
        columns = [variances[name] for name in sources]
        return part(
            values.mean(0)[:, None],
            torch.stack(columns, 1)[..., None] if columns else torch.zeros(len(x), 0, 1),
            differences=differences,
        )


@dataclass(frozen=True)
class ImportanceEstimator(Estimator):
    """Works of `paths` paths of `steps`: the bound of all of them together, of one at a time, and the second
    cumulant, which is not a bound. All are of the model on that grid.
    """

    steps: int | None = None
    paths: int = 16
    seed: int = 0
    name = "importance"
    terms = ("single path", "second cumulant", "total")

    def __post_init__(self) -> None:
        require(self.paths >= 2, "paths", "at least 2", self.paths)

    @property
    def repeats(self) -> int:  # type: ignore[override]
        """The paths."""
        return self.paths

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """Paths."""
        return ("paths",)

    def kind(self, likelihood: Likelihood) -> str:
        """A bound by K paths."""
        return f"upper bound on -log p by {self.paths} paths"

    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """`paths` times `steps` calls of the denoiser."""
        result = likelihood.path_weights(
            x, steps=self.steps, paths=self.paths, seed=self.seed, numbers=numbers, label=label
        )
        terms = torch.stack([-result.elbo, -result.second_cumulant, -result.log_likelihood], 1)
        between = result.log_weights.var(1)
        # The variance of the second cumulant is that of normal log-weights.
        cumulant = between / self.paths + between.square() / (2 * (self.paths - 1))
        variances = torch.stack([between / self.paths, cumulant, result.variance], 1)
        return part(terms, variances[:, None], log_weights=result.log_weights)


ESTIMATORS: dict[str, type[BoundEstimator] | type[FlowEstimator] | type[ImportanceEstimator]] = {
    "bound": BoundEstimator,
    "ode": FlowEstimator,
    "importance": ImportanceEstimator,
}
