"""A trained model: a denoiser, the description of its data and the experiment it came from.

model = diffusion.load("runs/digits")
images = model.sample(16, seed=0)                                # (16, C, H, W) float in [0, 1]
restored = model.inpaint(image, known, n=8)                      # .samples, .mean, .std, .quantile, .diagnostics
restored = model.restore(y, operators.parse("blur:sigma=1"), noise=0.05)
nats = model.log_likelihood(images)                              # (16,) lower bounds
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Unpack

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion import distributed, grids, samplers
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.data.spec import Label
from diffusion.denoiser import AnyDenoiser, Denoiser
from diffusion.draw import Draw, DrawOptions
from diffusion.errors import InputError, require, require_one
from diffusion.guidance import ClassifierFree, LastEstimate
from diffusion.likelihood.bound import Bound
from diffusion.memory import auto_batch_size
from diffusion.model import planning
from diffusion.model.likelihood import Likelihood
from diffusion.model.restoration import Restoration
from diffusion.model.solving import RESTORATION_STEPS, Solver, shape_of
from diffusion.operators import Mask, Operator
from diffusion.precision import Autocast, use_bf16
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Method, Problem
from diffusion.restoration.methods import AUTO, choose

# The log-SNR below which an image looks like noise alone.
FIRST_SEEN = -4.0
# Steps of a trajectory that is drawn as a film.
FILM_STEPS = 32
# Steps of the grid from whose ends a measured grid takes its own.
LONG = 100


@dataclass(frozen=True)
class Model:
    """A trained model, as `load` returns it.

    Examples go in and come out in the units of the data: 8-bit images as floats in [0, 1], continuous data as they are.
    """

    denoiser: Denoiser
    spec: DataSpec
    config: Config
    step: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def teacher(self) -> str:
        """The run that this model was distilled from; empty for a model that learned from data.

        A distilled model samples on one short grid. The x̂ of any other is E[x|x_t].
        """
        return self.config.distillation.teacher

    @property
    def ends(self) -> tuple[float, float]:
        """The log-SNRs of the first and the last evaluation on a long grid."""
        schedule = self.denoiser.schedule
        log_snr = schedule.log_snr(self.config.grid(schedule, LONG))
        return float(log_snr[0]), float(log_snr[-2])

    def tuned(self, *, n: int = 64, seed: int = 0) -> Model:
        """This model with a grid that is measured on n of its own paths (`grids.measure`).

        The measured grid has the ends of the present one. Raises InputError for a distilled model.
        """
        if self.teacher:
            raise InputError("grid: this model was distilled for one grid and samples on no other")
        first, last = self.ends
        noise = self._noise(seed, range(n), stream=Stream.GRID)(self._blank(n))
        label = self.labels(self.in_turn(n), n)
        grid = grids.measure(self.guided(autocast=True), noise, first=first, last=last, label=label)
        return replace(self, config=replace(self.config, grid=grid))

    def guided(self, guidance: float | None = None, *, autocast: bool = False) -> AnyDenoiser:
        """The denoiser to sample: with classifier-free guidance of that scale, by default the experiment's.

        With `autocast` its network runs in the precision of sampling. Raises InputError for a scale other than 1 that is
        asked of a distilled model, or of one that was not trained both with and without labels.
        """
        options, denoiser = self.config.sampling, self.denoiser
        if autocast and use_bf16(options.precision, self.device):
            denoiser = replace(denoiser, backbone=Autocast(denoiser.backbone))
        scale = options.guidance if guidance is None else guidance
        if self.teacher and scale != 1:
            raise InputError(f"guidance: this model was distilled with its teacher's guidance in it, got {scale:g}")
        asked, dropout = guidance not in (None, 1), self.config.training.label_dropout
        labeled = "with labels (data.labels = false)"
        require(not asked or self.spec.classes, "guidance", f"1 for this model, which was not trained {labeled}", scale)
        without = "without labels (training.label_dropout = 0)"
        require(not asked or dropout, "guidance", f"1 for this model, which was not trained {without}", scale)
        return denoiser if scale == 1 else ClassifierFree(denoiser, scale, options.interval)

    @property
    def film_steps(self) -> int:
        """The default number of steps of a film."""
        return self.config.sampling.steps if self.teacher else FILM_STEPS

    def steps_of_grid(self, steps: int) -> int:
        """The steps of the grid that `steps` ask for: fewer where times fall together at an end of the schedule."""
        return len(self.config.grid(self.denoiser.schedule, steps)) - 1

    def labels(self, label: Label | None, n: int) -> Tensor | None:
        """The labels of n examples on the model's device, (n,) int64, or None (`DataSpec.label_numbers`)."""
        return self.spec.label_numbers(label, n, device=self.device)

    def in_turn(self, n: int) -> list[int] | None:
        """Labels for n examples that take the classes in turn; None without classes."""
        classes = len(self.spec.classes)
        return [i % classes for i in range(n)] if classes else None

    @torch.no_grad()  # As a decorator: a block inside a generator would reach its caller between two steps.
    def trajectory(self, n: int, *, first: int = 0, **options: Unpack[DrawOptions]) -> Iterator[tuple[float, Tensor]]:
        """Yields (t, x_t) from noise to n samples, x_t (n, *) scaled to the units of the data; at t = 0 the estimate x̂.

        The samples are those of the numbers `first`, `first` + 1, ...; `options` are the fields of `Draw`.
        """
        draw = Draw(n, **options).checked()
        sampler, times = self._steps(draw)
        noise = self._noise(draw.seed, range(first, first + n))
        x = samplers.prior(self.denoiser, noise(self._blank(n)), times[0])
        denoiser = LastEstimate(self.guided(draw.guidance, autocast=True))
        walk = samplers.trajectory(denoiser, sampler, x, times, label=self.labels(draw.label, n), randn=noise)
        for t, x_t in zip(times, walk, strict=True):
            alpha, sigma = (float(v) for v in self.denoiser.schedule(t))
            # A sample ends at the estimate x̂ (Ho et al. 2020, algorithm 2): x_0 has the noise of the clean end in it.
            yield float(t), self.spec.decode(x_t / math.hypot(alpha, sigma) if t > 0 else denoiser.mean)

    def sample(self, n: int, *, shared: bool = False, progress: bool = False, **options: Unpack[DrawOptions]) -> Tensor:
        """Draws n samples: (n, C, H, W) in [0, 1], or (n, D), on the CPU.

        Sample i depends on (seed, i) alone, not on n, the batch or the number of processes, up to the rounding of the
        network. `options` are the fields of `Draw`; steps, sampler (a key of `samplers.SAMPLERS`) and guidance default
        to those of the experiment, the batch to what suits the device (`memory.auto_batch_size`). With `shared` each
        process draws a part, and all of them, which must make the same call, return the whole.

        Raises InputError for counts below 1, an unknown sampler or an unknown label.
        """
        draw = Draw(n, **options).checked()
        given = self.labels(draw.label, n)
        size = draw.batch or self._batch(self.guided(draw.guidance, autocast=True), given)
        runs = distributed.batches(n, size, shared=shared)
        parts = [torch.zeros(0, *self.spec.shape)]
        with tqdm(total=sum(map(len, runs)), desc="sampling", unit="image", disable=not progress) as bar:
            for numbers in runs:
                options["label"] = None if given is None else given[numbers.start : numbers.stop].tolist()
                for _, x in self.trajectory(len(numbers), first=numbers.start, **options):
                    last = x
                parts.append(last.cpu())
                bar.update(len(numbers))
        x = torch.cat(parts)
        return distributed.gather(x) if shared else x

    def film(self, n: int, *, frames: int = 9, **options: Unpack[DrawOptions]) -> list[Tensor]:
        """At most `frames` frames (n, *) of a trajectory of `film_steps` steps by default.

        The first is its start; the others are spaced evenly from where an image begins to show up to the samples.
        """
        if options.get("steps") is None:
            options["steps"] = self.film_steps
        (_, start), *rest = [(t, x.cpu()) for t, x in self.trajectory(n, **options)]
        seen = float(self.denoiser.schedule.time(torch.tensor(FIRST_SEEN)))
        rest = [(t, x) for t, x in rest if t < seen] or rest[-1:]
        chosen = torch.linspace(0, len(rest) - 1, max(1, min(frames - 1, len(rest)))).round().long().tolist()
        return [start, *(rest[i][1] for i in chosen)]

    def restore(
        self,
        y: Tensor,
        operator: Operator,
        *,
        size: tuple[int, int] | None = None,
        noise: float = 0.0,
        n: int = 4,
        method: str | Method = AUTO,
        shared: bool = False,
        progress: bool = False,
        **options: Unpack[DrawOptions],
    ) -> Restoration:
        """Draws n examples given y = operator(example) + N(0, noise²), all in the units of the data: images in [0, 1].

        y is (*), as the operator returns it for one example of the `size` (H, W), by default the size of the model's
        images. Without `noise`, the standard deviation, y is taken as exact. The other arguments are those of `solve`.

        Raises InputError for a y, size or noise that cannot be used (`Problem.checked`), and as `solve` does.
        """
        problem = Problem.checked(y, operator, noise, shape_of(size, self.spec))
        return self.solve(problem, Draw(n, **options), method=method, shared=shared, progress=progress)

    def inpaint(
        self,
        image: Tensor,
        known: Tensor,
        *,
        noise: float = 0.0,
        n: int = 4,
        method: str | Method = AUTO,
        shared: bool = False,
        progress: bool = False,
        **options: Unpack[DrawOptions],
    ) -> Restoration:
        """Draws n restorations of one example, (C, H, W) in [0, 1] of any size or (D,), given its `known` values.

        `known` is a bool tensor that broadcasts against the example. This is `restore` with a mask: hidden values may
        be anything, and without `noise` known ones are returned as they are. Without noise only windows that see
        something unknown cost time, and only what is unknown is held n times.
        """
        channels, *sides = self.spec.shape
        rule = f"of {channels} channels, (C, H, W)" if sides else f"of the shape {self.spec.shape} of the data"
        fits = image.ndim == len(self.spec.shape) and image.shape[0] == channels and image.numel() > 0
        require(fits, "image", rule, tuple(image.shape))
        problem = Problem.checked(image, Mask(known.to(torch.bool)), noise, tuple(image.shape))
        return self.solve(problem, Draw(n, **options), method=method, shared=shared, progress=progress)

    def solve(
        self, problem: Problem, draw: Draw, *, method: str | Method = AUTO, shared: bool = False, progress: bool = False
    ) -> Restoration:
        """Draws solutions of a checked problem in the units of the data.

        Images of another size than the model's are covered by overlapping windows that agree at every step
        (`restoration.windows`). `method` is a key of `restoration.METHODS`, one of the methods with other options, or
        "auto" (`restoration.default`); it has a sampler of its own unless `draw` names one. Restoration i depends on
        (seed, i) alone, as a sample does. The exception are methods that weigh particles against each other: they draw
        all restorations at once, whatever the batch, and in the main process. `shared` is as for `sample`.

        Raises InputError for an unknown method or one that does not suit the operator, and for a distilled model;
        FloatingPointError for restorations that are not finite.
        """
        return self._solver(problem, draw, method).solve(problem, draw.n, shared=shared, progress=progress)

    def plan(
        self, problem: Problem, draw: Draw, *, method: str | Method = AUTO, shared: bool = False
    ) -> planning.Plan:
        """What `solve` will take: windows, evaluations of the network, and about how many seconds.

        Raises InputError for options that `solve` refuses.
        """
        return planning.plan(self._solver(problem, draw, method), problem, draw.n, shared=shared)

    def _solver(self, problem: Problem, draw: Draw, method: str | Method) -> Solver:
        self._refuse_student("restoration")
        draw.checked()
        chosen = choose(method, self._sampler(draw.sampler), problem)
        denoiser, label = self.guided(draw.guidance, autocast=not chosen.differentiates), self.labels(draw.label, 1)
        steps = RESTORATION_STEPS if draw.steps is None else draw.steps
        return Solver(
            chosen,
            denoiser,
            self.config.grid(self.denoiser.schedule, steps),
            self.spec,
            self.device,
            seed=draw.seed,
            label=label,
            batch=draw.batch or self._batch(denoiser, label, chosen),
        )

    def likelihood(self, *, guidance: float = 1.0, dtype: torch.dtype = torch.float32) -> Likelihood:
        """The likelihoods of this model: the trajectory bound, the probability flow and importance-weighted paths.

        `guidance` is the classifier-free guidance scale; the network runs in `dtype`, float32 or float64. Raises
        InputError for a distilled model.
        """
        self._refuse_student("likelihood")
        denoiser = self.guided(guidance)
        if dtype == torch.float64:
            backbone = copy.deepcopy(self.denoiser.backbone)
            assert isinstance(backbone, torch.nn.Module)
            exact = replace(self, denoiser=replace(self.denoiser, backbone=backbone.double()))
            denoiser = exact.guided(guidance)
        return Likelihood(denoiser, self.spec, self.device, dtype, self.config.training.trajectory)

    def bound(
        self, x: Tensor, *, steps: int | None = None, draws: int | None = 64, seed: int = 0, label: Label | None = None
    ) -> Bound:
        """The trajectory bound on -log p(x) by terms, in nats per example (`Likelihood.bound`).

        x: (B, C, H, W) uint8 or float in [0, 1], which is rounded to 8 bits; or points (B, D). Labels are given as for
        `sample`; -1 stands for an example without a label.
        """
        return self.likelihood().bound(x, steps=steps, draws=draws, seed=seed, label=label)

    def log_likelihood(
        self, x: Tensor, *, steps: int | None = None, draws: int | None = 64, seed: int = 0, label: Label | None = None
    ) -> Tensor:
        """A lower bound on log p(x) in nats for each example, (B,).

        p(x) is the probability of the 8-bit image itself, or the density of a point. The options are those of `bound`.
        """
        return -self.bound(x, steps=steps, draws=draws, seed=seed, label=label).total.cpu()

    def _refuse_student(self, purpose: str) -> None:
        if self.teacher:
            raise InputError(
                f"{purpose}: this model was distilled to sample in few evaluations; ask its teacher, {self.teacher}"
            )

    def _steps(self, draw: Draw) -> tuple[samplers.Sampler, Tensor]:
        """The sampler and the times of a draw, by default those of the experiment."""
        given = self._sampler(draw.sampler)
        own = self.config.sampling.steps
        count = own if draw.steps is None else draw.steps
        if self.teacher and (count != own or given):
            raise InputError(f"steps, sampler: this model was distilled for {own} steps of its own sampler")
        return given or self.config.sampler, self.config.grid(self.denoiser.schedule, count)

    def _sampler(self, sampler: str | samplers.Sampler | None) -> samplers.Sampler | None:
        if not isinstance(sampler, str):
            return sampler
        require_one(sampler, "sampler", samplers.SAMPLERS)
        return samplers.SAMPLERS[sampler]()

    @torch.no_grad()
    def _batch(self, denoiser: AnyDenoiser, label: Tensor | None, method: Method | None = None) -> int:
        middle = self.denoiser.schedule.time(torch.zeros(()))

        def evaluate(n: int) -> object:
            probe = denoiser if method is None else method.memory_probe(denoiser)
            return probe(self._blank(n), middle, None if label is None else label[:1].expand(n))

        return auto_batch_size(evaluate, math.prod(self.spec.shape[1:]), self.device)

    def _noise(self, seed: int, numbers: Sequence[int], stream: int = Stream.SAMPLE) -> ExampleNoise:
        return ExampleNoise([example_seed(seed, stream, number) for number in numbers])

    def _blank(self, n: int) -> Tensor:
        return torch.zeros(n, *self.spec.shape, device=self.device)
