"""Restorations by a trained model: n samples of an example given y, in the units of the data, and how they were drawn.

The model's values are x = (u - m)/s for an example u. `Problem.in_model_units` states the problem for x, a method of
`diffusion.restoration` solves it, and the samples are decoded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import distributed
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Method, Problem, restore, statistics, windows
from diffusion.restoration.counting import CountingDenoiser

# The default number of steps of a restoration. It is larger than that of a sample, because guidance by y bends a path.
RESTORATION_STEPS = 32


@dataclass(frozen=True)
class Diagnostics:
    """How restorations were drawn.

    A batch took `nfe` denoiser evaluations and `backward` passes on average, on a grid of `steps`. Each of them went
    over the `windows` windows that cover the part to restore. All batches took `seconds`. `residual` is the root mean
    square of y - A(u), in units of the noise, and thus about 1 for samples of the posterior, or in units of the data
    without noise.

    The rest is None for methods that do not know it. `log_evidence` is log p(y) in nats, the density of y in its own
    units, if all of y was used. `relative_ess` is the least effective sample size at any step as a share of the number
    of particles, (Σw)²/(N Σw²). `ancestors` is the number of initial particles with descendants among the samples.
    """

    method: Method
    nfe: float
    backward: float
    seconds: float
    residual: float
    windows: int = 1
    steps: int = 0
    log_evidence: float | None = None
    relative_ess: float | None = None
    ancestors: int | None = None

    @classmethod
    def of(
        cls, method: Method, runs: Tensor, seconds: float, residual: float, windows: int, steps: int, *, complete: bool
    ) -> Diagnostics:
        """The diagnostics of runs (R, 5): nfe, backward passes, evidence, least relative ESS and ancestors of each.

        `complete` says that all of y was used.
        """
        nfe, backward, evidence, least, ancestors = runs.mean(0).tolist()
        known = complete and math.isfinite(evidence)
        weights = (None, None, None) if method.independent else (evidence if known else None, least, int(ancestors))
        return cls(method, nfe, backward, seconds, residual, windows, steps, *weights)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON writes them; `method` is its name, and `options` the method as Python writes it."""
        return {**vars(self), "method": self.method.name, "options": str(self.method)}


@dataclass(frozen=True)
class Restoration:
    """Restorations of one example: `samples` (n, *) in the units of the data, on the CPU, and their diagnostics."""

    samples: Tensor
    diagnostics: Diagnostics

    @property
    def mean(self) -> Tensor:
        """The mean of the samples: (C, H, W) or (D,)."""
        return self.samples.mean(0)

    @property
    def std(self) -> Tensor:
        """The standard deviation of each pixel: (C, H, W) or (D,); 0 for a single sample and wherever all agree."""
        return self.samples.std(0, correction=min(1, len(self.samples) - 1))

    def interval(self, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
        """The bounds of the central interval with a confidence, pixel by pixel: (C, H, W) or (D,) each.

        With few samples it holds less than the confidence (`restoration.statistics.interval`).
        """
        return statistics.interval(self.samples, confidence=confidence)

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """The quantiles by pixel, (*) for one q in [0, 1] and (Q, *) for several, linear between samples.

        Raises InputError for other q.
        """
        probabilities = torch.as_tensor(q, dtype=self.samples.dtype)
        require(((probabilities >= 0) & (probabilities <= 1)).all(), "q", "in [0, 1]", q)
        return self.samples.quantile(probabilities, dim=0)


def shape_of(size: Sequence[int] | None, spec: DataSpec) -> tuple[int, ...]:
    """The shape of images of the size (H, W), or for None that of the examples that the model was trained on.

    Raises InputError for a size that is not two positive numbers, and for a size of points.
    """
    given = spec.shape[1:] if size is None else tuple(size) if isinstance(size, Sequence) else (size,)
    fits = len(given) == len(spec.shape) - 1 and all(isinstance(side, int) and side >= 1 for side in given)
    rule = "(height, width) in pixels" if spec.is_image else "left out for points"
    require(fits, "size", rule, size)
    return spec.shape[0], *given


def solve(
    problem: Problem,
    method: Method,
    denoiser: AnyDenoiser,
    times: Tensor,
    spec: DataSpec,
    device: torch.device,
    *,
    n: int,
    seed: int,
    label: Tensor | None,
    batch: int,
    shared: bool,
    progress: bool,
) -> Restoration:
    """Draws n solutions of a problem in the units of the data, on the grid `times`.

    `label` is (1,) int64. The network sees at most `batch` examples of its own size at once.

    Raises FloatingPointError, in all processes, for restorations that are not finite.
    """
    start = time.perf_counter()
    mean, std, window = spec.mean / spec.top, spec.std / spec.top, spec.shape[1:]
    inner = problem.in_model_units(mean, std, torch.zeros(1, *problem.x_shape, device=device))
    place, part = windows.region_to_solve(inner, window)
    fit = windows.fit(denoiser, window, part, batch=batch)
    shape = fit.problem.x_shape
    at_once = max(1, batch * math.prod(window) // math.prod(shape[1:]))
    # Solutions that are weighed against each other are drawn all at once, in the main process.
    alone = [range(n)] if distributed.is_main() or not shared else []
    runs = distributed.batches(n, at_once, shared=shared) if method.independent else alone
    samples, rows = [torch.zeros(0, *problem.x_shape)], [torch.zeros(0, 5, dtype=torch.float64)]
    with tqdm(total=len(runs) * (len(times) - 1), desc="restoring", unit="step", disable=not progress) as bar:
        for done, numbers in enumerate(runs):
            counted = CountingDenoiser(fit.denoiser, _Progress(bar, done, times))
            randn = ExampleNoise([example_seed(seed, Stream.SAMPLE, number) for number in numbers])
            noise = randn(torch.zeros(len(numbers), *shape, device=device))
            drawn = restore(counted, fit.problem, noise, times, method=method, label=label, randn=randn)
            # Decoding would clamp infinity to white.
            x = torch.where(drawn.x.isfinite(), drawn.x, torch.nan)
            samples.append(problem.keep_known(spec.decode(fit.crop(x)).cpu(), place))
            evidence = float(drawn.log_evidence) - problem.compact.y.numel() * math.log(std)
            row = [counted.nfe, counted.backward, evidence, drawn.least_ess, drawn.ancestors]
            rows.append(torch.tensor([row], dtype=torch.float64))
        bar.update(bar.total - bar.n)
    whole, table = torch.cat(samples), torch.cat(rows)
    if shared:
        whole, table = distributed.gather(whole), distributed.gather(table)
    residual = float(problem.residual(whole)) / (problem.noise or 1.0)
    _check_finite(whole, method)
    complete, seconds = part.shape == problem.shape, time.perf_counter() - start
    found = Diagnostics.of(method, table, seconds, residual, fit.windows, len(times) - 1, complete=complete)
    return Restoration(whole, found)


def _check_finite(samples: Tensor, method: Method) -> None:
    """Raises FloatingPointError unless all restorations (n, *) are finite."""
    if bad := int((~samples.isfinite()).flatten(1).any(1).sum()):
        raise FloatingPointError(
            f"method: {method.name} gave {bad} of {len(samples)} restorations that are not finite; take more steps, "
            "more noise or another method"
        )


@dataclass(frozen=True)
class _Progress:
    """Moves a bar to the step that a time belongs to, after `done` runs along all times."""

    bar: tqdm[Any]
    done: int
    times: Tensor

    def __call__(self, t: Tensor) -> None:
        steps = len(self.times) - 1
        passed = steps - int(torch.searchsorted(self.times.cpu().flip(0), t.detach().cpu().double().max()))
        self.bar.update(max(0, self.done * steps + passed - self.bar.n))
