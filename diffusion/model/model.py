"""A trained model: a denoiser, the description of its data and the experiment it came from.

model = diffusion.load("runs/digits")
images = model.sample(16, seed=0)                                # (16, C, H, W) float in [0, 1]
for numbers, batch in model.samples(50_000): ...                 # one batch in memory at a time
restored = model.inpaint(image, known, n=8)                      # .samples, .mean, .std, .quantile, .diagnostics
restored = model.restore(y, "blur:sigma=1", noise=0.05)
nats = model.log_likelihood(images)                              # (16,) lower bounds
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Unpack, cast

import torch
from PIL import Image
from torch import Tensor

from diffusion import distributed, grids, samplers
from diffusion.compilation import compile_for_sampling
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser, Denoiser
from diffusion.draw import Draw, DrawOptions, SampleDraw, SampleOptions
from diffusion.errors import InputError, require, require_one
from diffusion.guidance import ClassifierFree, informed
from diffusion.likelihood.bound import Bound
from diffusion.memory import auto_batch_size
from diffusion.model import planning, posing, told
from diffusion.model.accept import Border
from diffusion.model.completing import Completing
from diffusion.model.conversion import Given, Labels, Noise, Several, number, plain_label, whole
from diffusion.model.drawing import Drawing, FromExample, FromNoise, Start
from diffusion.model.elsewhere import Elsewhere
from diffusion.model.larger import Larger
from diffusion.model.latents import Latents, spherical
from diffusion.model.likelihood import Likelihood
from diffusion.model.pictures import to_images
from diffusion.model.restoration import Restoration
from diffusion.model.solving import RESTORATION_STEPS, Solver
from diffusion.operators import Operator
from diffusion.precision import Autocast, network_dtype
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Method, Problem
from diffusion.restoration.methods import AUTO, METHODS, Learned, choose
from diffusion.schedules import lerp_table

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
        model = self._with_float64
        noise = ExampleNoise([example_seed(seed, Stream.GRID, number) for number in range(n)])(model._blank(n))
        label = model.labels(self.in_turn(n), n)
        grid = grids.measure(model.guided(autocast=True), noise, first=first, last=last, label=label)
        return replace(self, config=replace(self.config, grid=grid))

    def guided(self, guidance: float | None = None, *, autocast: bool = False) -> AnyDenoiser:
        """The denoiser to sample: with classifier-free guidance of that scale, by default the experiment's.

        With `autocast` its network runs in the precision of sampling. Raises InputError for a scale other than 1 that
        is asked of a distilled model, or of one that was not trained both with and without labels.
        """
        options, denoiser = self.config.sampling, self.denoiser
        dtype = network_dtype(options.precision, self.device) if autocast else torch.float32
        if dtype != torch.float32:
            denoiser = replace(denoiser, backbone=Autocast(denoiser.backbone, dtype))
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

    def labels(self, label: Labels | None, n: int) -> Tensor | None:
        """The labels of n examples on the model's device, (n,) int64, or None (`DataSpec.label_numbers`)."""
        return self.spec.label_numbers(plain_label(label), n, device=self.device)

    def in_turn(self, n: int, *, first: int = 0) -> list[int] | None:
        """Labels for n examples, the first of which has the number `first`, that take the classes in turn; None without
        classes.
        """
        classes = len(self.spec.classes)
        return [i % classes for i in range(first, first + n)] if classes else None

    @property
    def border(self) -> Border:
        """What converts and checks the examples that are given to this model."""
        return Border(self.spec, self.config.data.background)

    def batch_size(self, *, guidance: float | None = None, label: Labels | None = None) -> int:
        """The number of samples at a time that suits the device (`memory.auto_batch_size`)."""
        return self._batch(self.guided(guidance, autocast=True), self.labels(label, 1))

    def trajectory(self, n: int, *, first: int = 0, **options: Unpack[DrawOptions]) -> Iterator[tuple[float, Tensor]]:
        """Yields (t, x_t) from noise to n samples, x_t (n, *) scaled to the units of the data; at t = 0 the estimate x̂.

        The samples are those of the numbers `first`, `first` + 1, ...; `options` are the fields of `Draw`.
        """
        return self._drawing(Draw(n, **options), first).walk(range(n))

    def samples(
        self, n: int, *, first: int = 0, shared: bool = False, progress: bool = False, **options: Unpack[SampleOptions]
    ) -> Iterator[tuple[range, Tensor]]:
        """Draws n samples batch by batch: yields their numbers, from `first` on, and the samples, (B, *) on the CPU.

        No more than one batch is held at a time, whatever n is. With `shared` each process draws a part and yields only
        that. Arguments, samples and errors are otherwise those of `sample`.
        """
        draw = SampleDraw(n, **options)
        return self._batches(self._drawing(draw, first), draw, shared=shared, progress=progress)

    def sample(
        self,
        n: int | None = None,
        *,
        first: int = 0,
        noise: Several | None = None,
        shared: bool = False,
        progress: bool = False,
        **options: Unpack[SampleOptions],
    ) -> Tensor:
        """Draws n samples: (n, C, H, W) in [0, 1], or (n, D), on the CPU.

        Sample i depends on (seed, i) alone, not on n, the batch or the number of processes, up to the rounding of the
        network; the numbers are `first`, `first` + 1, .... With `noise`, (n, *) like standard normal noise, the samples
        begin with it instead of their own. An ODE sampler then comes to what `decode` returns. `options` are the fields
        of `SampleDraw`; steps, sampler (a key of `samplers.SAMPLERS`) and guidance default to those of the experiment,
        the batch to what suits the device (`memory.auto_batch_size`). With `shared` each process draws a part, and all
        of them, which must make the same call, return the whole.

        With a `size`, (H, W) or one number for both, images are as large as that, made of tiles of the model's size
        (`larger.Larger`). The network then sees `batch` tiles at once. They are drawn `around` an image, if one is
        given, which lies at a `place` and stays as it is.

        Raises InputError for counts below 1, an unknown sampler or label, noise of another shape, and a size that is
        smaller than the model's or cannot be drawn by the `tiles` that are asked for.
        """
        given = None if noise is None else self.border.latents(noise, "noise", n)
        require(n is not None or given is not None, "n", "given, the number of samples", n)
        draw = SampleDraw(n if given is None else len(given), **options)  # type: ignore[arg-type]
        require(given is None or draw.size is None, "size", "left out with noise, which has one", draw.size)
        return self._drawn(draw, first, FromNoise(given), shared=shared, progress=progress)

    def larger(self, **options: Unpack[SampleOptions]) -> Larger | None:
        """The tiles that `sample` draws with these options, None for images of the model's size; it draws nothing.

        Raises InputError as `sample` does.
        """
        return self._drawing(SampleDraw(1, **options), 0).larger

    def vary(
        self,
        image: Given,
        level: float = 0.5,
        *,
        log_snr: float | None = None,
        n: int = 4,
        first: int = 0,
        shared: bool = False,
        progress: bool = False,
        **options: Unpack[DrawOptions],
    ) -> Tensor:
        """Draws n variations of an image: noise is added to it, from which the sampler starts (SDEdit, `FromExample`).

        `level` in [0, 1] is the share of the sampler's path that is walked: 0 returns the image itself, and 1 draws
        plain samples. `log_snr` states the log-SNR to which the noise is added instead. The sampler takes those of its
        `steps` that lie behind. The other arguments and the result are those of `sample`.

        Raises InputError for another level, and for an image that is not one of the data (`Border.example`).
        """
        self._refuse_student("variations")
        level = number(level, "level")
        require(0 <= level <= 1, "level", "in [0, 1]: 0 the image itself, 1 new samples", level)
        x, draw = self.border.example(image, "image"), Draw(n, **options)
        begin: Start = FromNoise()
        if log_snr is not None or 0 < level < 1:
            begin = FromExample(self.spec.standardize(x), self._time(level, log_snr))
        elif level == 0:
            draw.checked()
            return x.float().expand(n, *x.shape).clone()
        return self._drawn(draw, first, begin, shared=shared, progress=progress)

    def encode(
        self,
        x: Several,
        *,
        label: Labels | None = None,
        guidance: float = 1.0,
        tolerance: float = 1e-5,
        batch: int | None = None,
    ) -> Tensor:
        """The latents of examples, the noise that the probability flow takes to them: (B, *) float32 on the CPU.

        `decode` is the inverse, up to the `tolerance` of the solver and the rounding of the network, if label and
        guidance are the same. Examples and labels are given as for `log_likelihood`. Raises InputError for what these
        refuse, and for a distilled model.
        """
        units = self.border.units(self.border.batch(x), "x")
        return self._latents(len(units), label, guidance, tolerance, batch).encode(units)

    def decode(
        self,
        z: Several,
        *,
        label: Labels | None = None,
        guidance: float = 1.0,
        tolerance: float = 1e-5,
        batch: int | None = None,
    ) -> Tensor:
        """The examples of latents z, (B, *) like standard normal noise, in units: (B, *) on the CPU.

        Raises InputError for other shapes and for a distilled model.
        """
        given = self.border.latents(z, "z")
        return self._latents(len(given), label, guidance, tolerance, batch).decode(given)

    def interpolate(
        self,
        a: Given,
        b: Given,
        count: int = 8,
        *,
        label: int | str | None = None,
        guidance: float = 1.0,
        tolerance: float = 1e-5,
        batch: int | None = None,
    ) -> Tensor:
        """`count` examples from a to b in units, (count, *), on the arc between their latents (`latents.spherical`).

        The first is a and the last is b, up to the tolerance of the solver. Raises InputError as `encode` does, and for
        a count below 2.
        """
        count = whole(count, "count", 2, ", the two ends among them")
        ends = torch.stack([self.border.example(each, name) for each, name in ((a, "a"), (b, "b"))])
        first, last = self._latents(2, label, guidance, tolerance, batch).encode(ends)
        return self._latents(count, label, guidance, tolerance, batch).decode(spherical(first, last, count))

    def images(self, x: Tensor) -> list[Image.Image]:
        """Images, (B, C, H, W) or one (C, H, W), as images of Pillow (`pictures.to_images`).

        Raises InputError for values out of range.
        """
        return to_images(self.border.shown(x, "x"), self.spec)

    def film(self, n: int, *, first: int = 0, frames: int = 9, **options: Unpack[DrawOptions]) -> list[Tensor]:
        """At most `frames` frames (n, *) of a trajectory of `film_steps` steps by default.

        The first is its start; the others are spaced evenly from where an image begins to show up to the samples.
        """
        if options.get("steps") is None:
            options["steps"] = self.film_steps
        (_, start), *rest = [(t, x.cpu()) for t, x in self.trajectory(n, first=first, **options)]
        seen = float(self.denoiser.schedule.time(torch.tensor(FIRST_SEEN)))
        rest = [(t, x) for t, x in rest if t < seen] or rest[-1:]
        chosen = torch.linspace(0, len(rest) - 1, max(1, min(frames - 1, len(rest)))).round().long().tolist()
        return [start, *(rest[i][1] for i in chosen)]

    def restore(
        self,
        y: Given,
        operator: str | Operator,
        *,
        size: tuple[int, int] | None = None,
        noise: Noise = 0.0,
        n: int = 4,
        method: str | Method = AUTO,
        shared: bool = False,
        progress: bool = False,
        **options: Unpack[DrawOptions],
    ) -> Restoration:
        """Draws n examples given y = operator(example) + N(0, noise²), all in the units of the data: images in [0, 1].

        y is what the operator returns for one example of the `size` (H, W), by default the size that it says, or that
        of the model's images. It may be a tensor (*), an array, an image of Pillow or the path of a file, and the
        operator a text such as "blur:sigma=2". Without `noise`, the standard deviation, y is taken as exact. For the
        operator "denoise" it may be a map with one for each pixel, as for `inpaint`. The other arguments are those of
        `solve`.

        Raises InputError for a y, size or noise that cannot be used (`posing.restoring`), and as `solve` does.
        """
        problem = posing.restoring(self.border, y, operator, noise, size)
        return self.solve(problem, Draw(n, **options), method=method, shared=shared, progress=progress)

    def inpaint(
        self,
        image: Given,
        known: Given,
        *,
        noise: Noise = 0.0,
        n: int = 4,
        method: str | Method = AUTO,
        shared: bool = False,
        progress: bool = False,
        **options: Unpack[DrawOptions],
    ) -> Restoration:
        """Draws n restorations of one example, (C, H, W) in [0, 1] of any size or (D,), given its `known` values.

        `known` is a bool tensor that broadcasts against the example, or a mask that is white where it is known. Both
        may be arrays, images of Pillow or paths of files too. This is `restore` with a mask: hidden values may be
        anything, and without `noise` known ones are returned as they are. Without noise only windows that see something
        unknown cost time, and only what is unknown is held n times.

        `noise` may be a map, which broadcasts against the example: a tensor, an array or the path of a .npy file or a
        TIFF of floats, in units of the data, or a gray image, whose white is 1. Pixels where it is 0 are returned as
        they are. The channels of a pixel share the noise of the noisiest. Maps need the method "learned".

        Raises InputError for an image or mask that cannot be used (`posing.inpainting`), and as `solve` does.
        """
        problem = posing.inpainting(self.border, image, known, noise)
        return self.solve(problem, Draw(n, **options), method=method, shared=shared, progress=progress)

    def given(self, y: Given, operator: str | Operator = "", *, noise: float = 0.0) -> Model:
        """This model with its network told an observation y of an example: the model of p(x|y).

        Samples, bounds, latents and variations are then given y, and so are restorations, beside what they restore. y
        and its `noise` are those of `restore`, for an operator that the network has learned (condition.operator).
        Without an operator y is the pair of an example, as in data.condition, of the size of the data.

        Raises InputError for a y that cannot be used, for another operator or noise than was learned, with the
        difference, and for a distilled model.
        """
        self._refuse_student("an observation")
        if operator:
            problem = posing.restoring(self.border, y, operator, noise)
            rule = f"{self.spec.shape[1:]}, that of the data"
            require(problem.x_shape == self.spec.shape, "size", rule, problem.x_shape[1:])
            channels = told.by_operator(self.config, self.spec, problem)
        else:
            require(noise == 0, "noise", "0 without an operator", noise)
            channels = told.by_pair(self.config, self.border, y)
        return replace(self, denoiser=replace(self.denoiser, condition=channels.to(self.device)))

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

    def plan(self, problem: Problem, draw: Draw, *, method: str | Method = AUTO, shared: bool = False) -> planning.Plan:
        """What `solve` will take: windows, evaluations of the network, and about how many seconds.

        Raises InputError for options that `solve` refuses.
        """
        return planning.plan(self._solver(problem, draw, method), problem, draw.n, shared=shared)

    def _solver(self, problem: Problem, draw: Draw, method: str | Method) -> Solver:
        if self.device.type == "mps":
            return self._with_float64._solver(problem, draw, method)
        self._refuse_student("restoration")
        draw.checked()
        channels, learned = self._told(problem, method), self.config.observes
        chosen = choose(method, self._sampler(draw.sampler), problem, learned=learned, told=channels is not None)
        denoiser, label = self.guided(draw.guidance, autocast=not chosen.differentiates), self.labels(draw.label, 1)
        needs_label(draw.guidance, draw.label)
        steps = RESTORATION_STEPS if draw.steps is None else draw.steps
        self._compile(draw.n * steps * math.prod((problem.shape or self.spec.shape)[1:]))
        batch = draw.batch or self._batch(denoiser, label, chosen)
        telling = channels is not None and isinstance(chosen, Learned)
        return Solver(
            chosen,
            informed(denoiser, channels) if telling else denoiser,
            self.config.grid(self.denoiser.schedule, steps),
            self.spec,
            self.device,
            seed=draw.seed,
            label=label,
            batch=batch,
        )

    def _told(self, problem: Problem, method: str | Method) -> Tensor | None:
        """The channels (1, K, *) by which the network is told the observation of a problem that it has learned to
        restore; None for any other.

        Raises InputError, which says what differs, where the method "learned" was asked for by name, and for images of
        another size where the network was told something else already (`given`).
        """
        if getattr(self.denoiser, "condition", None) is not None:
            rule = f"{self.spec.shape[1:]}, that of the observation that was given"
            require(problem.x_shape == self.spec.shape, "size", rule, problem.x_shape[1:])
            return None
        if not self.config.condition.operator:
            return None
        try:
            return told.by_operator(self.config, self.spec, problem).to(self.device)
        except InputError as error:
            asked = METHODS.get(method) if isinstance(method, str) else type(method)
            if asked is not Learned or (self.config.observes and problem.by_pixel):
                return None
            raise InputError(f"{error}; take mmps") from None

    def completing(self, count: int, *, steps: int | None = None, seed: int = 0) -> Completing:
        """What draws the unseen values of `count` examples, without guidance, in `steps` steps, by default 32.

        Raises InputError for a distilled model, and for one that has not learned to restore.
        """
        if self.device.type == "mps":
            return self._with_float64.completing(count, steps=steps, seed=seed)
        self._refuse_student("completion")
        share, rule = self.config.observed.share, "above 0 in the configuration of a run that is to complete images"
        require(share > 0, "observed.share", rule, share)
        steps = RESTORATION_STEPS if steps is None else whole(steps, "steps", 1)
        self._compile(count * steps * math.prod(self.spec.shape[1:]))
        denoiser, times = self.guided(1.0, autocast=True), self.config.grid(self.denoiser.schedule, steps)
        label = self.labels(0, 1) if self.spec.classes else None
        return Completing(denoiser, times, self.spec, self.device, seed, self._batch(denoiser, label))

    def likelihood(self, *, guidance: float = 1.0, dtype: torch.dtype = torch.float32) -> Likelihood:
        """The likelihoods of this model: the trajectory bound, the probability flow and importance-weighted paths.

        `guidance` is the classifier-free guidance scale; the network runs in `dtype`, float32 or float64. Of a model on
        MPS the network alone runs there. Raises InputError for a distilled model, and for float64 on MPS.
        """
        self._refuse_student("likelihood")
        if self.device.type == "mps":
            rule = "float32 on MPS, which has no float64; load the model with device cpu (--device cpu)"
            require(dtype == torch.float32, "dtype", rule, dtype)
            return self._with_float64.likelihood(guidance=guidance)
        denoiser = self.guided(guidance)
        if dtype == torch.float64:
            backbone = copy.deepcopy(self.denoiser.backbone)
            assert isinstance(backbone, torch.nn.Module)
            exact = replace(self, denoiser=replace(self.denoiser, backbone=backbone.double()))
            denoiser = exact.guided(guidance)
        return Likelihood(
            denoiser,
            self.spec,
            self.device,
            dtype,
            self.config.training.trajectory,
            self.config.data.background,
            self.config.mapped,
        )

    def bound(
        self,
        x: Several,
        *,
        steps: int | None = None,
        draws: int | None = 64,
        seed: int = 0,
        label: Labels | None = None,
        known: Given | None = None,
        seen: Given | None = None,
    ) -> Bound:
        """The trajectory bound on -log p(x) by terms, in nats per example (`Likelihood.bound`).

        x: (B, C, H, W) uint8 or float in [0, 1], which is rounded to 8 bits; arrays (B, H, W, C); images of Pillow or
        paths of files, one or a list of them; or points (B, D). Labels are given as for `sample`; -1 stands for an
        example without a label.

        Given what is `known`, a mask as for `inpaint` or one for each example, (B, *), it is the bound on
        -log p(hidden | known). Given what has been `seen`, in the same way, it is that of what has been seen alone,
        whatever x is elsewhere. Raises InputError for either with a model that was not trained to restore, and where
        nothing is left to measure.
        """
        return self.likelihood().bound(x, steps=steps, draws=draws, seed=seed, label=label, known=known, seen=seen)

    def log_likelihood(
        self,
        x: Several,
        *,
        steps: int | None = None,
        draws: int | None = 64,
        seed: int = 0,
        label: Labels | None = None,
        known: Given | None = None,
        seen: Given | None = None,
    ) -> Tensor:
        """A lower bound on log p(x), or log p(hidden | known), in nats for each example: (B,).

        p(x) is the probability of the 8-bit image itself, or the density of a point. The options are those of `bound`.
        """
        found = self.bound(x, steps=steps, draws=draws, seed=seed, label=label, known=known, seen=seen)
        return -found.total.cpu()

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

        called = self.denoiser, denoiser, method, label is None
        return auto_batch_size(evaluate, math.prod(self.spec.shape[1:]), self.device, called=called)

    def _drawing(self, draw: Draw, first: int, start: Start = FromNoise()) -> Drawing:  # noqa: B008, it is frozen
        """How samples are drawn. Raises InputError for options that cannot be used."""
        draw.checked()
        first = whole(first, "first", 0)
        larger = self._larger(draw) if isinstance(draw, SampleDraw) else None
        alone = larger is None or getattr(self.denoiser, "condition", None) is None
        require(
            alone, "size", f"{self.spec.shape[1:]}, that of the observation that was given", larger and larger.image
        )
        if larger is not None and self.device.type == "mps":
            return self._with_float64._drawing(draw, first, start)
        sampler, times = self._steps(draw)
        # A tile passes the rounding of the network on to all that are drawn after it.
        autocast = larger is None or not larger.sequential
        denoiser, label = self.guided(draw.guidance, autocast=autocast), self.labels(draw.label, draw.n)
        needs_label(draw.guidance, draw.label)
        self._compile(draw.n * (len(times) - 1) * math.prod(larger.image if larger else self.spec.shape[1:]))
        drawing = Drawing(
            denoiser, sampler, times, self.spec, self.device, draw.n, first, seed=draw.seed, label=label, start=start
        )
        if larger is None:
            return drawing
        return drawing.of_tiles(larger, draw.batch or self._batch(denoiser, label))

    def _larger(self, draw: SampleDraw) -> Larger | None:
        around = None
        if draw.around is not None:
            around = self.border.shown(self.border.arranged(cast(Given, draw.around), "around"), "around")
        return Larger.of(self.spec, draw, mapped=self.config.observes, around=around)

    def _batches(self, drawing: Drawing, draw: Draw, *, shared: bool, progress: bool) -> Iterator[tuple[range, Tensor]]:
        larger = drawing.larger
        size = larger.together(drawing.batch) if larger else draw.batch or self._batch(drawing.denoiser, drawing.label)
        return drawing.batches(size, shared=shared, progress=progress)

    def _drawn(self, draw: Draw, first: int, start: Start, *, shared: bool, progress: bool) -> Tensor:
        """All samples of a draw, (n, *); with `shared` in every process."""
        drawing = self._drawing(draw, first, start)
        batches = self._batches(drawing, draw, shared=shared, progress=progress)
        x = torch.cat([torch.zeros(0, *drawing.shape), *(x for _, x in batches)])
        return distributed.gather(x) if shared else x

    def _time(self, level: float, log_snr: float | None) -> Tensor:
        """The time at which a share `level` of the path of the sampler is left, or that of a log-SNR: ()."""
        schedule = self.denoiser.schedule
        if log_snr is None:
            path = schedule.log_snr(self.config.grid(schedule, LONG)[:-1])
            place = torch.tensor([(1 - level) * (len(path) - 1)], dtype=torch.float64)
            return schedule.time(lerp_table(path, place))[0]
        low, high = schedule.log_snr_min, schedule.log_snr_max
        require(
            low <= number(log_snr, "log_snr") <= high,
            "log_snr",
            f"in [{low:.3g}, {high:.3g}], the range of the schedule",
            log_snr,
        )
        return schedule.time(torch.tensor(log_snr, dtype=torch.float64))

    def _latents(self, n: int, label: Labels | None, guidance: float, tolerance: float, batch: int | None) -> Latents:
        if self.device.type == "mps":
            return self._with_float64._latents(n, label, guidance, tolerance, batch)
        self._refuse_student("latents")
        require(batch is None or batch >= 1, "batch", "at least 1", batch)
        given = self.spec.label_numbers(plain_label(label), n, unlabeled=True, device=self.device)
        denoiser = self.guided(guidance)
        needs_label(guidance, label)
        size = batch or self._batch(denoiser, given)
        return Latents(denoiser, self.spec, self.device, given, size, tolerance)

    @property
    def _with_float64(self) -> Model:
        """This model where float64 exists: of one on MPS the network alone stays there, its algebra is on the CPU."""
        if self.device.type != "mps":
            return self
        network = Elsewhere(self.denoiser.backbone, self.device)
        return replace(self, denoiser=replace(self.denoiser, backbone=network), device=torch.device("cpu"))

    def _compile(self, positions: int) -> None:
        network, setting = getattr(self.denoiser, "backbone", None), self.config.sampling.compile
        compile_for_sampling(network, setting, self.device, positions, distributed.say)

    def _blank(self, n: int) -> Tensor:
        return torch.zeros(n, *self.spec.shape, device=self.device)


def needs_label(guidance: float | None, label: object) -> None:
    """Raises InputError where guidance is asked for and no label, without which it changes nothing."""
    require(
        guidance in (None, 1) or label is not None, "guidance", "1 without a label, towards which it guides", guidance
    )
