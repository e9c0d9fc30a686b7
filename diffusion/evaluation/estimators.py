"""Three estimators of -log p: the trajectory bound, the probability-flow ODE, and importance-weighted paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffusion.data import Dataset, DataSpec
from diffusion.errors import require
from diffusion.evaluation.evaluator import Evaluator, Setting
from diffusion.evaluation.known import Known
from diffusion.evaluation.likelihood import Estimator, LikelihoodEvaluation, Measurements
from diffusion.evaluation.masks import UNMASKED, Masks
from diffusion.likelihood.bound import Bound
from diffusion.likelihood.flow import Dequantization, Hutchinson, ProbeDistribution
from diffusion.likelihood.ode import Adaptive, Fixed, Solver
from diffusion.model import Model
from diffusion.model.likelihood import Likelihood
from diffusion.schedules import Schedule

BINS = 24
# The number of examples whose flow is solved again with a finer tolerance.
CHECKED = 8
# The largest dimension for which the trace is computed exactly.
EXACT = 16


@dataclass(frozen=True)
class BoundEstimator(Estimator):
    """The trajectory bound, estimated from `draws` random steps of each example.

    The draws are divided equally among `repeats` independent estimates. The repeats of an example differ by their noise
    alone, which gives the variance of this source; the rest of the variance is that between examples.

    `known` says what is known of every example (`known.Known`), where it is not empty. The bound is then that of what
    is hidden, given this.
    """

    draws: int = 16
    steps: int | None = None
    continuous: bool = False
    seed: int = 0
    repeats: int = 2
    known: str = ""
    name = "bound"
    compares = True
    masked = True
    terms = ("prior", "diffusion", "decoder", "total")
    bins = BINS

    def __post_init__(self) -> None:
        require(self.repeats >= 2, "repeats", "at least 2", self.repeats)
        whole = self.draws > 0 and self.draws % self.repeats == 0
        require(whole, "draws", f"a positive multiple of {self.repeats}", self.draws)

    @property
    def settings(self) -> dict[str, Any]:
        """The values of the fields; what is known is there by name if anything is."""
        values = super().settings
        return {**values, "known": Known(self.known, self.seed).name} if values.pop("known") else values

    def given(self, spec: DataSpec) -> Tensor | None:
        """What is known of every example: (1, 1, *)."""
        return Known(self.known, self.seed).pixels(spec.shape) if self.known else None

    def check(self, model: Model) -> None:
        """Raises InputError for what is known where it is no mask of the model's images, or the model takes none."""
        known = self.given(model.spec)
        if known is not None:
            model.likelihood().pixels(known, 1, "known")

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """One source, the noise together with the choice of the steps."""
        return ("noise",)

    def kind(self, likelihood: Likelihood) -> str:
        """Says that the total is an upper bound on -log p, and of what."""
        return f"upper bound on -log p{'(hidden | known)' if self.known else ''}"

    def measure(
        self,
        likelihood: Likelihood,
        x: Tensor,
        numbers: Sequence[int],
        label: Tensor | None,
        masks: Masks = UNMASKED,
    ) -> Measurements:
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
                known=masks.known,
                seen=masks.seen,
            )
            for repeat in range(self.repeats)
        ]
        terms = torch.stack([torch.stack([b.prior, b.diffusion, b.decoder, b.total], 1) for b in bounds])
        curves = torch.stack([by_log_snr(bound, likelihood.denoiser.schedule) for bound in bounds]).mean(0)
        return Measurements.of(
            terms.mean(0), (terms.var(0) / self.repeats)[:, None], by_log_snr=curves, counted=bounds[0].counted
        )


def by_log_snr(bound: Bound, schedule: Schedule) -> Tensor:
    """The diffusion term of a bound by bins of log-SNR, whose sum is the term: (B, BINS) nats."""
    kl_samples = bound.kl_samples
    assert kl_samples is not None
    fraction = (kl_samples.log_snr - schedule.log_snr_min) / (schedule.log_snr_max - schedule.log_snr_min)
    index = (fraction * BINS).long().clamp(0, BINS - 1).to(kl_samples.nats.device)
    rows = kl_samples.nats.new_zeros(len(index), BINS)
    return rows.scatter_add_(1, index, kl_samples.nats / kl_samples.nats.shape[1])


@dataclass(frozen=True)
class FlowEstimator(Estimator):
    """The density by the probability-flow ODE.

    Images are dequantized `repeats` times, by uniform noise or by the noise of the clean end. For each of these the
    trace is estimated with `probes` probes of a `distribution`, or computed exactly up to `EXACT` dimensions.
    `solver_steps` > 0 is a fixed number of RK4 steps; 0 adapts the steps to `tolerance`.
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
        """Whether the steps are fixed; an adaptive solver takes the same steps for all examples of a batch."""
        return self.solver_steps > 0

    @property
    def solver(self) -> Solver:
        """RK4 on fixed steps, or the adaptive solver."""
        return Fixed(self.solver_steps) if self.solver_steps else Adaptive(self.tolerance)

    def hutchinson(self, likelihood: Likelihood) -> Hutchinson | None:
        """The probes of the trace, None where it is computed exactly."""
        return None if likelihood.spec.dim <= EXACT else Hutchinson(self.probes, self.distribution)

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """The dequantization and the probes, where they are used."""
        random = {
            "dequantization": likelihood.quantization is not None,
            "probes": self.hutchinson(likelihood) is not None,
        }
        return tuple(name for name, used in random.items() if used)

    def kind(self, likelihood: Likelihood) -> str:
        """Says that the total is an estimate for points, and for images an upper bound, due to dequantization."""
        if likelihood.quantization is None:
            return "estimate of -log p"
        return f"upper bound on -log P by dequantization ({self.dequantization})"

    def measure(
        self,
        likelihood: Likelihood,
        x: Tensor,
        numbers: Sequence[int],
        label: Tensor | None,
        masks: Masks = UNMASKED,
    ) -> Measurements:
        """Solves a flow for each repeat, and one more with a finer tolerance for the first `CHECKED` examples."""
        probes, sources = self.hutchinson(likelihood), self.sources(likelihood)
        repeats = self.repeats if sources else 1

        def flow(n: int, repeat: int, solver: Solver) -> tuple[Tensor, Tensor]:
            result = likelihood.first(n).flow(
                x[:n],
                probes=probes,
                solver=solver,
                dequantization=self.dequantization,
                seed=self.seed,
                repeat=repeat,
                numbers=numbers[:n],
                label=None if label is None else label[:n],
            )
            return -result.log_likelihood, result.variance

        flows = [flow(len(x), repeat, self.solver) for repeat in range(repeats)]
        values, traces = (torch.stack(column) for column in zip(*flows, strict=True))
        variances = {"probes": traces.mean(0) / repeats}
        if "dequantization" in sources:
            # Repeats differ by both sources; the variance of the probes is known from within a repeat.
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
    """The importance-weighted bound from `paths` paths of `steps` steps.

    The total is the bound from all paths together. The other terms are the mean bound from a single path, and the
    second cumulant, which is not a bound. All of them measure the model on this timestep grid.
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
        """One source, the paths."""
        return ("paths",)

    def kind(self, likelihood: Likelihood) -> str:
        """Says that the total is an upper bound on -log p, and the number of paths."""
        return f"upper bound on -log p by {self.paths} paths"

    def measure(
        self,
        likelihood: Likelihood,
        x: Tensor,
        numbers: Sequence[int],
        label: Tensor | None,
        masks: Masks = UNMASKED,
    ) -> Measurements:
        """Measures with `paths` times `steps` denoiser evaluations."""
        result = likelihood.path_weights(
            x, steps=self.steps, paths=self.paths, seed=self.seed, numbers=numbers, label=label
        )
        terms = torch.stack([-result.elbo, -result.second_cumulant, -result.log_likelihood], 1)
        between = result.log_weights.var(1)
        # The variance of the second cumulant is the one for normal log-weights.
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
    """Evaluates -log p of held-out examples, by the trajectory bound unless `method` is another estimator.

    The other arguments are the fields of `Setting`. Raises InputError as `Estimator` does.
    """
    return (method or BoundEstimator())(model, held_out, Setting(limit, guidance, dtype, shared, progress))


EVALUATORS: dict[str, type[Evaluator]] = {
    "bound": BoundEstimator,
    "ode": FlowEstimator,
    "importance": ImportanceEstimator,
}
