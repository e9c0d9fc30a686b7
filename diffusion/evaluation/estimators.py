"""Three estimators of -log p: the trajectory bound, the probability-flow ODE, and importance-weighted paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data import Dataset
from diffusion.errors import require
from diffusion.evaluation.evaluator import Evaluator, Setting
from diffusion.evaluation.likelihood import Estimator, LikelihoodEvaluation, Measurements
from diffusion.likelihood.bound import Bound
from diffusion.likelihood.flow import Dequantization, Hutchinson, ProbeDistribution
from diffusion.likelihood.ode import Adaptive, Fixed, Solver
from diffusion.model import Model
from diffusion.model.likelihood import Likelihood
from diffusion.schedules import Schedule

BINS = 24
# Examples whose flow is solved again with a finer tolerance.
CHECKED = 8
# Up to this dimension the trace is exact.
EXACT = 16


@dataclass(frozen=True)
class BoundEstimator(Estimator):
    """The trajectory bound at `draws` steps of each example, in equal numbers over several independent `repeats`.

    Between the repeats of an example only its noise differs; the rest of the variance is that between examples.
    """

    draws: int = 16
    steps: int | None = None
    continuous: bool = False
    seed: int = 0
    repeats: int = 2
    name = "bound"
    compares = True
    terms = ("prior", "diffusion", "decoder", "total")
    bins = BINS

    def __post_init__(self) -> None:
        require(self.repeats >= 2, "repeats", "at least 2", self.repeats)
        whole = self.draws > 0 and self.draws % self.repeats == 0
        require(whole, "draws", f"a positive multiple of {self.repeats}", self.draws)

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """The drawn steps and the noise, together."""
        return ("noise",)

    def kind(self, likelihood: Likelihood) -> str:
        """Says that it is an upper bound."""
        return "upper bound on -log p"

    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """Measures with one denoiser evaluation for each draw."""
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
        curves = torch.stack([by_log_snr(bound, likelihood.denoiser.schedule) for bound in bounds]).mean(0)
        return Measurements.of(terms.mean(0), (terms.var(0) / self.repeats)[:, None], by_log_snr=curves)


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
    """The density by the probability-flow ODE.

    Images are dequantized `repeats` times, by uniform noise or by the noise of the clean end. The trace is estimated by
    `probes` probes each, or is exact up to `EXACT` dimensions. `solver_steps` > 0 is a fixed number of RK4 steps; 0
    adapts the steps to `tolerance`.
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
        """True with fixed steps; an adaptive solver takes the same steps for all examples of a batch."""
        return self.solver_steps > 0

    @property
    def solver(self) -> Solver:
        """RK4 on fixed steps, or the adaptive solver."""
        return Fixed(self.solver_steps) if self.solver_steps else Adaptive(self.tolerance)

    def hutchinson(self, likelihood: Likelihood) -> Hutchinson | None:
        """The probes of the trace, None where it is exact."""
        return None if likelihood.spec.dim <= EXACT else Hutchinson(self.probes, self.distribution)

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """Dequantization and probes, where they are used."""
        random = {
            "dequantization": likelihood.quantization is not None,
            "probes": self.hutchinson(likelihood) is not None,
        }
        return tuple(name for name, used in random.items() if used)

    def kind(self, likelihood: Likelihood) -> str:
        """Says that it is an estimate for points, and for images a bound, by dequantization."""
        if likelihood.quantization is None:
            return "estimate of -log p"
        return f"upper bound on -log P by dequantization ({self.dequantization})"

    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """Solves a flow for each repeat, and one more of finer tolerance for the first `CHECKED` examples."""
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
        return Measurements.of(
            values.mean(0)[:, None],
            torch.stack(columns, 1)[..., None] if columns else torch.zeros(len(x), 0, 1),
            differences=differences,
        )


@dataclass(frozen=True)
class ImportanceEstimator(Estimator):
    """Importance weights of `paths` paths of `steps` steps.

    The total is the bound of all paths together. Beside it stand the bound of one path at a time and the second
    cumulant, which is not a bound. All are of the model on that grid of times.
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
        """The number of paths."""
        return self.paths

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """The paths."""
        return ("paths",)

    def kind(self, likelihood: Likelihood) -> str:
        """Says that it is an upper bound, and by how many paths."""
        return f"upper bound on -log p by {self.paths} paths"

    def measure(self, likelihood: Likelihood, x: Tensor, numbers: Sequence[int], label: Tensor | None) -> Measurements:
        """Measures with `paths` times `steps` denoiser evaluations."""
        result = likelihood.path_weights(
            x, steps=self.steps, paths=self.paths, seed=self.seed, numbers=numbers, label=label
        )
        terms = torch.stack([-result.elbo, -result.second_cumulant, -result.log_likelihood], 1)
        between = result.log_weights.var(1)
        # The variance of the second cumulant is that of normal log-weights.
        cumulant = between / self.paths + between.square() / (2 * (self.paths - 1))
        variances = torch.stack([between / self.paths, cumulant, result.variance], 1)
        return Measurements.of(terms, variances[:, None], log_weights=result.log_weights)


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
) -> LikelihoodEvaluation:
    """Evaluates -log p of held-out examples, by the trajectory bound unless another method is given.

    The other arguments are those of `Setting`. Raises InputError as `Estimator` does.
    """
    return (method or BoundEstimator())(model, held_out, Setting(limit, guidance, dtype, shared, progress))


EVALUATORS: dict[str, type[Evaluator]] = {
    "bound": BoundEstimator,
    "ode": FlowEstimator,
    "importance": ImportanceEstimator,
}
