"""Restores by a trained model: states the problem in the model's units, solves its parts, and decodes the samples.

The model's values are x = (u - m)/s for an example u. `Problem.in_model_units` states the problem for x, and a method
of `diffusion.restoration` solves it. The parts of a problem (`restoration.parts`) are solved together until the network
sees full batches, else one after the other.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion import distributed
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.model.progress import Progress
from diffusion.model.restoration import Diagnostics, Restoration
from diffusion.model.showing import Showing
from diffusion.operators import Identity, Operator
from diffusion.progress import bar, preview
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Method, Problem, fitting, restore
from diffusion.restoration.counting import CountingDenoiser
from diffusion.restoration.parts import Part, split, together, unsettled
from diffusion.restoration.windows import Windows
from diffusion.samplers import RandN, Sampler

# The default number of steps of a restoration. It is larger than that of a sample, because guidance by y bends a path.
RESTORATION_STEPS = 32


def shape_of(size: Sequence[int] | None, spec: DataSpec) -> tuple[int, ...]:
    """The shape of images of the size (H, W), or for None that of the examples that the model was trained on.

    Raises InputError for a size that is not two positive numbers, and for a size of points.
    """
    given = spec.shape[1:] if size is None else tuple(size) if isinstance(size, Sequence) else (size,)
    fits = len(given) == len(spec.shape) - 1 and all(isinstance(side, int) and side >= 1 for side in given)
    rule = "(height, width) in pixels" if spec.is_image else "left out for points"
    require(fits, "size", rule, size)
    return spec.shape[0], *given


@dataclass(frozen=True)
class Solver:
    """A method with the denoiser, the grid `times` and the random numbers by which it solves problems.

    `label` is (1,) int64. The network sees at most `batch` examples of its own size at once.
    """

    method: Method
    denoiser: AnyDenoiser
    times: Tensor
    spec: DataSpec
    device: torch.device
    seed: int
    label: Tensor | None
    batch: int

    @property
    def steps(self) -> int:
        """The number of steps of the grid."""
        return len(self.times) - 1

    def solve(self, problem: Problem, n: int, *, shared: bool, progress: bool) -> Restoration:
        """Draws n solutions of a problem in the units of the data.

        With `shared` each process draws a part, and all of them return the whole. Raises FloatingPointError, in all
        processes, for restorations that are not finite.
        """
        start = time.perf_counter()
        parts, wanted = split(problem, self.window), unsettled(problem)
        mine = self._share(n, shared=shared)
        count = sum(part.count for part in parts)
        values, rows = torch.full((len(mine), count), torch.nan), []
        runs = self.runs(parts, mine)
        total = sum(run.windows for run in runs) * self.steps
        with bar(total, "restoring", "window", show=progress) as moved:
            sampler = getattr(self.method, "sampler", None)
            moving = Progress(moved, self.times, sampler.nfe_per_step if isinstance(sampler, Sampler) else 1)
            showing = Showing(problem, wanted, values)
            for run in runs:
                moving.begin(run.windows)
                some = slice(run.numbers.start - mine.start, run.numbers.stop - mine.start)
                found, row = self._draw(run, moving, partial(showing, some, run.parts))
                rows.append(row)
                for part, restored in zip(run.parts, found, strict=True):
                    values[some, slice(None) if part.targets is None else part.targets] = restored
            moving.end()
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(Row._fields))
        if shared:
            values, table = distributed.gather(values), distributed.gather(table)
        self._check_finite(values)
        seconds = time.perf_counter() - start
        if wanted is None:
            values = values.reshape(n, *problem.x_shape)
            diagnostics = self._diagnostics(parts, problem, table, seconds, float(problem.residual(values)))
            return Restoration(values, diagnostics, spec=self.spec)
        whole = (problem.y[0].masked_scatter(wanted, row) for row in values)
        residual = float(problem.residual(whole)) if problem.noisy else 0.0
        diagnostics = self._diagnostics(parts, problem, table, seconds, residual)
        return Restoration(values, diagnostics, problem.y[0], wanted, self.spec)

    @property
    def window(self) -> tuple[int, ...]:
        """The size of a window, that of the model's images."""
        return self.spec.shape[1:]

    def _share(self, n: int, *, shared: bool) -> range:
        """The numbers of the solutions that this process draws."""
        if self.method.independent:
            return distributed.share(n) if shared else range(n)
        # Solutions that are weighed against each other are drawn all at once, in the main process.
        return range(n if distributed.is_main() or not shared else 0)

    def runs(self, parts: Sequence[Part], numbers: range) -> list[Run]:
        """The runs of the method that solve parts, each with so many windows as the network sees at once.

        Parts whose solutions of all numbers make up less are solved together. Parts are weighed each by itself.
        """
        if not len(numbers):
            return []
        given = [Piece(i, part, fitting.count(part.problem, self.window, part.tiling)) for i, part in enumerate(parts)]
        if not self.method.independent:
            return [Run((piece,), numbers) for piece in given]
        runs: list[Run] = []
        joined: list[Piece] = []
        # In order of their sizes, as those that are solved together are filled up to the size of the largest.
        for piece in sorted(given, key=lambda piece: math.prod(piece.part.problem.x_shape)):
            if piece.windows * len(numbers) > self.batch:
                runs += [Run((piece,), some) for some in _evenly(numbers, max(1, self.batch // piece.windows))]
                continue
            if sum(other.windows for other in (*joined, piece)) * len(numbers) > self.batch:
                runs.append(Run(tuple(joined), numbers))
                joined = []
            joined.append(piece)
        return [*runs, Run(tuple(joined), numbers)] if joined else runs

    def _draw(self, run: Run, moving: Progress, showing: Callable[[list[Tensor]], Tensor]) -> tuple[list[Tensor], Row]:
        """The values (n, V) that a run restores of each of its parts, in the units of the data, and its row.

        `showing` makes a picture of such values.
        """
        mean, std, n = self.spec.mean / self.spec.top, self.spec.std / self.spec.top, len(run.numbers)
        randn = self._noise(run)
        stated = [
            part.problem.in_model_units(mean, std, torch.zeros(1, *part.problem.x_shape, device=self.device))
            for part in run.parts
        ]
        problem, tilings = together(stated, n), [part.tiling for part in run.parts if part.tiling is not None]
        crop: Operator = Identity()
        if tilings:
            denoiser: AnyDenoiser = Windows(self.denoiser, tuple(tilings), self.batch, moving.part)
        else:
            denoiser, problem, crop = fitting.fit(
                self.denoiser, self.window, problem, batch=self.batch, watch=moving.part
            )

        def decoded(x: Tensor) -> list[Tensor]:
            rows = torch.split(crop(x[: len(run.parts) * n]), n)
            return [self.spec.decode(part.values(each)).cpu() for part, each in zip(run.parts, rows, strict=True)]

        def seen(mean: Tensor) -> None:
            preview(lambda: showing(decoded(mean.detach())))

        counted = CountingDenoiser(denoiser, moving.evaluation, moving.backward, seen)
        noise = randn(torch.zeros(len(run.parts) * n, *problem.x_shape, device=self.device))
        drawn = restore(counted, problem, noise, self.times, method=self.method, label=self.label, randn=randn)
        # Decoding would clamp infinity to white.
        found = decoded(torch.where(drawn.x.isfinite(), drawn.x, torch.nan))
        evidence = float(drawn.log_evidence) - run.parts[0].problem.observations * math.log(std)
        return found, Row(counted.nfe, counted.backward, evidence, drawn.least_ess, drawn.ancestors)

    def _noise(self, run: Run) -> RandN:
        """The noise of a run. That of a part depends on the seed, the number of the solution and that of the part."""

        def source(piece: Piece) -> ExampleNoise:
            part = (piece.number,) if piece.number else ()
            return ExampleNoise([example_seed(self.seed, Stream.SAMPLE, number, *part) for number in run.numbers])

        sources = [source(piece) for piece in run.pieces]
        if len(sources) == 1:
            return sources[0]
        sizes = [part.problem.x_shape[1] for part in run.parts]

        def randn(like: Tensor) -> Tensor:
            rows = zip(sources, sizes, torch.split(like, len(run.numbers)), strict=True)
            return torch.cat([F.pad(draw(x[..., :size]), (0, like.shape[-1] - size)) for draw, size, x in rows])

        return randn

    def _diagnostics(
        self, parts: Sequence[Part], problem: Problem, table: Tensor, seconds: float, residual: float
    ) -> Diagnostics:
        """The diagnostics of runs (R, 5), the `Row` of each."""
        nfe, backward, evidence, *_ = table.mean(0).tolist() if len(table) else Row(0, 0, math.nan, math.nan, 0)
        weights: tuple[float | None, float | None, int | None] = (None, None, None)
        if not self.method.independent and len(table):
            complete = len(parts) == 1 and parts[0].problem.observations == problem.observations
            least, ancestors = table[:, 3:].amin(0).tolist()
            weights = evidence if complete and math.isfinite(evidence) else None, least, int(ancestors)
        count = sum(fitting.count(part.problem, self.window, part.tiling) for part in parts)
        return Diagnostics(self.method, nfe, backward, seconds, residual, count, self.steps, len(parts), *weights)

    def _check_finite(self, values: Tensor) -> None:
        """Raises FloatingPointError unless all restored values (n, M) are finite."""
        if bad := int((~values.isfinite()).any(1).sum()):
            raise FloatingPointError(
                f"method: {self.method.name} gave {bad} of {len(values)} restorations that are not finite; take more "
                "steps, more noise or another method"
            )


class Piece(NamedTuple):
    """A part of a problem, its number among all of them, and the number of its windows."""

    number: int
    part: Part
    windows: int


class Run(NamedTuple):
    """The restorations of some numbers of some parts, which are drawn together."""

    pieces: tuple[Piece, ...]
    numbers: range

    @property
    def parts(self) -> list[Part]:
        """The parts."""
        return [piece.part for piece in self.pieces]

    @property
    def windows(self) -> int:
        """The number of windows of all restorations."""
        return len(self.numbers) * sum(piece.windows for piece in self.pieces)


class Row(NamedTuple):
    """What a run tells of itself: denoiser evaluations, backward passes, log-evidence in the units of the model, the
    least relative effective sample size, and ancestors.
    """

    nfe: float
    backward: float
    evidence: float
    least_ess: float
    ancestors: float


def _evenly(numbers: range, most: int) -> list[range]:
    """Numbers in the fewest batches of at most `most`, whose sizes differ by 1 at most."""
    count = math.ceil(len(numbers) / most)
    ends = [numbers.start + len(numbers) * i // count for i in range(count + 1)]
    return [range(first, last) for first, last in itertools.pairwise(ends)]
