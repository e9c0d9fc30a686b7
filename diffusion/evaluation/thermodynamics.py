"""The thermodynamics of a model: what its diffusion loses, exchanges and produces, measured on examples.

`diffusion.thermodynamics` has the definitions. The error of the denoiser is measured at the same log-SNRs for all
examples, and integrated over them. That is another computation of the bound than `estimators.BoundEstimator`, which
draws log-SNRs at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.data import Dataset, DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.evaluation.evaluator import Evaluator, Setting
from diffusion.evaluation.exact import exact_denoiser
from diffusion.evaluation.ledger import KIND, Columns, Ledger, of_measurements
from diffusion.evaluation.likelihood import Estimator, Measurements
from diffusion.evaluation.masks import UNMASKED, Masks
from diffusion.likelihood import bound, importance
from diffusion.model import Model
from diffusion.model.likelihood import Likelihood, example_noise
from diffusion.precision import exact_float32
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.schedules import Schedule
from diffusion.thermodynamics.information import cumulative
from diffusion.thermodynamics.levels import at_levels, misses
from diffusion.thermodynamics.paths import reverse_paths
from diffusion.thermodynamics.speed import error_of_grid

# The repeats of a likelihood whose noise is that of the two halves, of paths on data, of both kinds on samples, of the
# grid, and of what the model misses. The bound takes 0 and 1.
HALVES, ON_DATA, ON_SAMPLES, REVERSE, GRID, MISSES = (2, 3), 4, 5, 6, 7, 8
# The steps of paths, and the fewest and the most examples that have paths. Examples of few scalars are more.
STEPS, FEWEST, MOST, SCALARS = 128, 8, 256, 512
# The fewest evaluations of an example. Fewer noise levels do not resolve where the grays of images are decided.
LEAST = 32
# How many times as many steps the grid has that stands for the exact flow.
FINER = 4


@dataclass(frozen=True)
class Thermodynamics(Evaluator):
    """Information, entropy, heat, work and entropy production by log-SNR, the work of paths, and the speed of the grid.

    Of each example the error of the denoiser is measured by `draws` evaluations, at draws/2 log-SNRs twice. The work is
    that of `paths` paths of `steps` steps for some of the examples and as many samples of the model; 0 paths leave it
    and the error of the grid out. Where the distribution of the run's data is known (`exact`), the forward process is
    measured on some of the examples too.
    """

    draws: int = 96
    steps: int | None = None
    paths: int = 16
    seed: int = 0
    name = "thermodynamics"

    def __post_init__(self) -> None:
        enough = self.draws >= LEAST and self.draws % 2 == 0
        require(enough, "draws", f"an even number, at least {LEAST}", self.draws)
        require(self.paths >= 2 or self.paths == 0, "paths", "at least 2, or 0 to leave them out", self.paths)
        without = self.paths == 0 and self.steps is not None
        require(not without, "steps", "left out with 0 paths, whose steps they are", self.steps)

    def __call__(self, model: Model, examples: Dataset, setting: Setting) -> Ledger:
        """Measures a model on examples; raises InputError as `Estimator` does."""
        experiment = model.config
        grid, finer = (
            experiment.grid(model.denoiser.schedule, times * experiment.sampling.steps) for times in (1, FINER)
        )
        # Others than the run's examples are of another distribution.
        own = setting.training is not None
        estimator = LedgerEstimator(
            self.draws // 2,
            self.steps,
            tuple(grid.tolist()),
            tuple(finer.tolist()),
            exact_denoiser(experiment.data, model.spec, model.denoiser.schedule) if own else None,
            self.paths,
            self.seed,
        )
        found = estimator(model, examples, setting)
        assert isinstance(found, Ledger)
        return found


@dataclass(frozen=True)
class LedgerEstimator(Estimator):
    """Measures batches for `Thermodynamics`, at a number of `levels`.

    `grid` and `finer` are times, and `exact` is the denoiser of the distribution of the examples, if it is known.
    """

    levels: int
    steps: int | None
    grid: tuple[float, ...]
    finer: tuple[float, ...]
    exact: AnyDenoiser | None = None
    paths: int = 0
    seed: int = 0
    name = "thermodynamics"
    repeats = 2
    terms = ("prior", "information", "decoder", "second moment", "total")

    @property
    def columns(self) -> Columns:
        """Where the measurements of an example lie."""
        return Columns(self.levels, self.paths, self.exact is not None)

    @property
    def bins(self) -> int:  # type: ignore[override]
        """The numbers of an example by log-SNR: errors and squares of speeds."""
        return 2 * self.levels

    def sources(self, likelihood: Likelihood) -> tuple[str, ...]:
        """One source, the noise."""
        return ("noise",)

    def kind(self, likelihood: Likelihood) -> str:
        """Says what the total is."""
        return KIND

    def empty(self, likelihood: Likelihood) -> Measurements:
        """The measurements of a process without examples."""
        return Measurements.of(
            torch.zeros(0, len(self.terms)),
            torch.zeros(0, 1, len(self.terms)),
            by_log_snr=torch.zeros(0, self.bins),
            log_weights=torch.zeros(0, self.columns.of_some),
        )

    def times(self, likelihood: Likelihood) -> Tensor:
        """The timestep grid of paths."""
        return likelihood.times((likelihood.trajectory or STEPS) if self.steps is None else self.steps)

    def followed(self, spec: DataSpec) -> int:
        """The number of examples whose paths are drawn, and on which the model is compared with the exact process."""
        return min(MOST, max(FEWEST, SCALARS // spec.dim)) if self.columns.of_some else 0

    @exact_float32()
    def measure(
        self,
        likelihood: Likelihood,
        x: Tensor,
        numbers: Sequence[int],
        label: Tensor | None,
        masks: Masks = UNMASKED,
    ) -> Measurements:
        """Measures the errors with two evaluations at each level, and the paths of the first examples."""
        clean = likelihood.encode(x).double()
        label = None if label is None else label.to(likelihood.device)
        halves = [self._half(likelihood, clean, numbers, label, repeat) for repeat in HALVES]
        terms, curves = (torch.stack(part) for part in zip(*halves, strict=True))
        count = sum(number < self.followed(likelihood.spec) for number in numbers)
        weights = torch.full((len(clean), self.columns.of_some), torch.nan, dtype=torch.float64)
        if count:
            chosen = None if label is None else label[:count]
            some = likelihood.first(count), clean[:count], numbers[:count], chosen
            found = [part(*some).double().cpu() for part in (self._followed, self._missed)]
            weights[:count] = torch.cat(found, 1)
        return Measurements.of(
            terms.mean(0),
            (terms.var(0) / self.repeats)[:, None],
            by_log_snr=curves.mean(0),
            log_weights=weights,
        )

    def _half(
        self, likelihood: Likelihood, clean: Tensor, numbers: Sequence[int], label: Tensor | None, repeat: int
    ) -> tuple[Tensor, Tensor]:
        """The terms (B, 5), and errors and squares by level (B, 2 levels), by one evaluation at each level."""
        denoiser, schedule = likelihood.denoiser, likelihood.denoiser.schedule
        log_snr, randn = levels(schedule, self.levels), example_noise(self.seed, Stream.PATH, repeat, numbers)
        errors, squares = at_levels(denoiser, clean, log_snr, dtype=likelihood.dtype, label=label, randn=randn)
        start, end = (torch.tensor(t, dtype=torch.float64) for t in (1.0, 0.0))
        prior = bound.prior_kl(schedule, clean, start)
        information = cumulative(log_snr.exp().to(errors) * errors / 2, log_snr.to(errors))[:, -1]
        decoder = bound.decoder(schedule, clean, end, likelihood.quantization, randn)
        moment = clean.square().flatten(1).sum(1)
        total = prior + information + decoder
        return torch.stack([prior, information, decoder, moment, total], 1), torch.cat([errors, squares], 1)

    def _followed(self, likelihood: Likelihood, clean: Tensor, numbers: Sequence[int], label: Tensor | None) -> Tensor:
        """The log-weights of paths on the examples and on as many samples, and the error of the grid: (B, 2 K + 2)."""
        if not self.paths:
            return torch.zeros(len(clean), 0)
        denoiser, like, quantization = likelihood.denoiser, clean.to(likelihood.dtype), likelihood.quantization
        times = self.times(likelihood)
        samples, reverse = reverse_paths(
            denoiser,
            like,
            times,
            quantization=quantization,
            label=label,
            randn=example_noise(self.seed, Stream.PATH, REVERSE, numbers),
        )
        forward = [
            self._work(likelihood, x, times, numbers, label, repeat)
            for x, repeat in ((like, ON_DATA), (samples.to(like), ON_SAMPLES))
        ]
        noise = example_noise(self.seed, Stream.PATH, GRID, numbers)(like)
        grid, finer = (torch.tensor(times, dtype=torch.float64) for times in (self.grid, self.finer))
        off = error_of_grid(denoiser, noise, grid, finer, label)
        return torch.cat([*forward, reverse[:, None], off.to(reverse)[:, None]], 1)

    def _missed(self, likelihood: Likelihood, clean: Tensor, numbers: Sequence[int], label: Tensor | None) -> Tensor:
        """What the model misses of the exact denoiser by level, if that is known: (B, levels), else (B, 0)."""
        if self.exact is None:
            return torch.zeros(len(clean), 0)
        denoiser, randn = likelihood.denoiser, example_noise(self.seed, Stream.PATH, MISSES, numbers)
        log_snr = levels(denoiser.schedule, self.levels)
        return misses(denoiser, self.exact, clean, log_snr, dtype=likelihood.dtype, label=label, randn=randn)

    def _work(
        self,
        likelihood: Likelihood,
        x: Tensor,
        times: Tensor,
        numbers: Sequence[int],
        label: Tensor | None,
        repeat: int,
    ) -> Tensor:
        """The log-weights of the forward paths of x (B, *), several paths of all examples at once: (B, paths)."""
        together = max(1, self.batch(likelihood.spec, likelihood.device) // len(x))
        found = []
        for first in range(0, self.paths, together):
            paths = range(first, min(first + together, self.paths))
            seeds = [example_seed(self.seed, Stream.PATH, repeat, number, path) for path in paths for number in numbers]
            weights = importance.path_weights(
                likelihood.denoiser,
                x.repeat(len(paths), *[1] * (x.ndim - 1)),
                times,
                paths=1,
                quantization=likelihood.quantization,
                label=None if label is None else label.repeat(len(paths)),
                randn=ExampleNoise(seeds),
            )
            found.append(weights.log_weights.reshape(len(paths), len(x)).mT)
        return torch.cat(found, 1)

    def summarize(self, likelihood: Likelihood, measurements: Measurements) -> Ledger:
        """Summarizes the measurements of all examples."""
        schedule = likelihood.denoiser.schedule
        steps, log_snr = len(self.times(likelihood)) - 1, levels(schedule, self.levels)
        grid = schedule.log_snr(torch.tensor(self.grid, dtype=torch.float64))
        return of_measurements(measurements, self.columns, schedule, likelihood.spec, log_snr, grid, steps)


def levels(schedule: Schedule, count: int) -> Tensor:
    """Log-SNRs evenly spaced from the noisy to the clean end of a schedule: (count,) float64."""
    return torch.linspace(schedule.log_snr_min, schedule.log_snr_max, count, dtype=torch.float64)


EVALUATORS: dict[str, type[Evaluator]] = {"thermodynamics": Thermodynamics}
