"""Restorations by a trained model: n samples of an example given y, in the units of the data, and how they were drawn.

The model's values are x = (u - m)/s for an example u. `Problem.in_model_units` states the problem for x, a method of
`diffusion.restoration` solves it, and the samples are decoded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import distributed
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.operators import Mask
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Method, Problem, restore, statistics, windows
from diffusion.restoration.counting import CountingDenoiser

# The default number of steps of a restoration. It is larger than that of a sample, because guidance by y bends a path.
RESTORATION_STEPS = 32
# Values that are sorted at a time; torch.quantile takes at most 2^24.
SORTED = 2**22


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
    """n restorations of one example in the units of the data, on the CPU, and their diagnostics.

    Only what was restored is held n times. `part` (n, M) has the values at the M places where `restored` is True, in
    row-major order; all other values are those of the observed example, `image`, (C, H, W) or (D,). `restored` is bool
    and broadcasts against the image. Where every value was restored, `image` and `restored` are None and `part` is
    (n, *), the restorations themselves.

    Statistics are computed on the part alone. `whole` puts any values of the part in their places.
    """

    part: Tensor
    diagnostics: Diagnostics
    image: Tensor | None = None
    restored: Tensor | None = None

    @property
    def n(self) -> int:
        """The number of restorations."""
        return len(self.part)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one restoration, (C, H, W) or (D,)."""
        return tuple(self.part.shape[1:] if self.image is None else self.image.shape)

    def sample(self, i: int) -> Tensor:
        """The restoration i, whole: (C, H, W) or (D,). Raises IndexError unless 0 <= i < n, or -n <= i < 0."""
        return self.whole(self.part[i])

    @property
    def samples(self) -> Tensor:
        """All restorations, whole: (n, *). They are made on demand and take n times the memory of one."""
        return self.whole(self.part)

    @property
    def mean(self) -> Tensor:
        """The mean of the samples: (C, H, W) or (D,)."""
        return self.whole(self.part.mean(0))

    @property
    def std(self) -> Tensor:
        """The standard deviation of each pixel: (C, H, W) or (D,); 0 for a single sample and wherever all agree."""
        correction = min(1, self.n - 1)
        return self.whole(self._by_columns(lambda part: part.std(0, correction=correction)[None])[0], elsewhere=0.0)

    def interval(self, confidence: float = 0.9) -> tuple[Tensor, Tensor]:
        """The bounds of the central interval with a confidence, pixel by pixel: (C, H, W) or (D,) each.

        With few samples it holds less than the confidence (`restoration.statistics.interval`).
        """
        bounds = self._by_columns(lambda part: torch.stack(statistics.interval(part, confidence=confidence)))
        return self.whole(bounds[0]), self.whole(bounds[1])

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """The quantiles by pixel, (*) for one q in [0, 1] and (Q, *) for several, linear between samples.

        Raises InputError for other q.
        """
        probabilities = torch.as_tensor(q, dtype=self.part.dtype)
        require(((probabilities >= 0) & (probabilities <= 1)).all(), "q", "in [0, 1]", q)
        found = self._by_columns(lambda part: part.quantile(probabilities.reshape(-1), dim=0))
        return self.whole(found if probabilities.ndim else found[0])

    def whole(self, values: Tensor, *, elsewhere: float | None = None) -> Tensor:
        """Whole examples (*, C, H, W) or (*, D) with values of the part, (*, M), in their places.

        All other values are those of the observed example, or `elsewhere`.
        """
        if self.image is None or self.restored is None:
            return values
        around = self.image if elsewhere is None else torch.full_like(self.image, elsewhere)
        return around.expand(*values.shape[:-1], *self.image.shape).masked_scatter(self.restored, values)

    def select(self, x: Tensor) -> Tensor:
        """The values of an example x, shaped as one restoration, where something was restored: as `part[0]`."""
        return x if self.restored is None else x.masked_select(self.restored)

    def _by_columns(self, statistic: Callable[[Tensor], Tensor]) -> Tensor:
        """A statistic (n, M) -> (K, M) of the part, as (K, *), computed for so many columns at a time that sorting them
        takes little memory.
        """
        flat = self.part.flatten(1)
        if not flat.numel():
            return statistic(flat.new_zeros(self.n, 1))[:, :0]
        found = torch.cat([statistic(columns) for columns in torch.split(flat, max(1, SORTED // self.n), dim=1)], 1)
        return found.reshape(-1, *self.part.shape[1:])


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
    image = restored = None
    if isinstance(problem.operator, Mask) and not problem.noise:
        image, restored = problem.y[0].to(whole), ~problem.operator.known.cpu()
        whole = torch.stack([x.masked_select(restored) for x in whole]) if n else whole
    residual = 0.0 if restored is not None else float(problem.residual(whole)) / (problem.noise or 1.0)
    _check_finite(whole, method)
    complete, seconds = part.shape == problem.shape, time.perf_counter() - start
    found = Diagnostics.of(method, table, seconds, residual, fit.windows, len(times) - 1, complete=complete)
    return Restoration(whole, found, image, restored)


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
