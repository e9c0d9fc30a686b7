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
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Unpack

import torch
from PIL import Image
from torch import Tensor

from diffusion import distributed, grids
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser, Denoiser
from diffusion.draw import Draw, DrawOptions, SampleDraw, SampleOptions
from diffusion.errors import InputError, require
from diffusion.likelihood.bound import Bound
from diffusion.model import planning, posing, told
from diffusion.model.accept import Border
from diffusion.model.completing import Completing
from diffusion.model.conversion import Given, Labels, Noise, Several, number, whole
from diffusion.model.drawing import FromExample, FromNoise, Start
from diffusion.model.larger import Larger
from diffusion.model.latents import spherical
from diffusion.model.likelihood import Likelihood
from diffusion.model.pictures import to_images
from diffusion.model.restoration import Restoration
from diffusion.model.setup import Setup
from diffusion.model.solving import RESTORATION_STEPS
from diffusion.operators import Operator
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration import Method, Problem
from diffusion.restoration.methods import AUTO

# The log-SNR below which an image looks like noise alone.
FIRST_SEEN = -4.0
# Steps of a trajectory that is drawn as a film.
FILM_STEPS = 32


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
        return self._setup.ends

    def tuned(self, *, n: int = 64, seed: int = 0) -> Model:
        """This model with a grid that is measured on n of its own paths (`grids.measure`).

        The measured grid has the ends of the present one. Raises InputError for a distilled model.
        """
        if self.teacher:
            raise InputError("grid: this model was distilled for one grid and samples on no other")
        first, last = self.ends
        setup = self._setup.with_float64
        noise = ExampleNoise([example_seed(seed, Stream.GRID, number) for number in range(n)])(setup.blank(n))
        label = setup.labels(self.in_turn(n), n)
        grid = grids.measure(setup.guided(autocast=True), noise, first=first, last=last, label=label)
        return replace(self, config=replace(self.config, grid=grid))

    def guided(self, guidance: float | None = None, *, autocast: bool = False) -> AnyDenoiser:
        """The denoiser to sample: with classifier-free guidance of that scale, by default the experiment's.

        With `autocast` its network runs in the precision of sampling. Raises InputError for a scale other than 1 that
        is asked of a distilled model, or of one that was not trained both with and without labels.
        """
        return self._setup.guided(guidance, autocast=autocast)

    @property
    def film_steps(self) -> int:
        """The default number of steps of a film."""
        return self.config.sampling.steps if self.teacher else FILM_STEPS

    def steps_of_grid(self, steps: int) -> int:
        """The steps of the grid that `steps` ask for: fewer where times fall together at an end of the schedule."""
        return len(self.config.grid(self.denoiser.schedule, steps)) - 1

    def labels(self, label: Labels | None, n: int) -> Tensor | None:
        """The labels of n examples on the model's device, (n,) int64, or None (`DataSpec.label_numbers`)."""
        return self._setup.labels(label, n)

    def in_turn(self, n: int, *, first: int = 0) -> list[int] | None:
        """Labels for n examples, the first of which has the number `first`, that take the classes in turn; None without
        classes.
        """
        classes = len(self.spec.classes)
        return [i % classes for i in range(first, first + n)] if classes else None

    @property
    def border(self) -> Border:
        """What converts and checks the examples that are given to this model."""
        return self._setup.border

    def batch_size(self, *, guidance: float | None = None, label: Labels | None = None) -> int:
        """The number of samples at a time that suits the device (`memory.auto_batch_size`)."""
        setup = self._setup
        return setup.batch(setup.guided(guidance, autocast=True), setup.labels(label, 1))

    def trajectory(self, n: int, *, first: int = 0, **options: Unpack[DrawOptions]) -> Iterator[tuple[float, Tensor]]:
        """Yields (t, x_t) from noise to n samples, x_t (n, *) scaled to the units of the data; at t = 0 the estimate x̂.

        The samples are those of the numbers `first`, `first` + 1, ...; `options` are the fields of `Draw`.
        """
        return self._setup.drawing(Draw(n, **options), first).walk(range(n))

    def samples(
        self, n: int, *, first: int = 0, shared: bool = False, progress: bool = False, **options: Unpack[SampleOptions]
    ) -> Iterator[tuple[range, Tensor]]:
        """Draws n samples batch by batch: yields their numbers, from `first` on, and the samples, (B, *) on the CPU.

        No more than one batch is held at a time, whatever n is. With `shared` each process draws a part and yields only
        that. Arguments, samples and errors are otherwise those of `sample`.
        """
        draw, setup = SampleDraw(n, **options), self._setup
        drawing = setup.drawing(draw, first)
        return drawing.batches(setup.together(drawing, draw), shared=shared, progress=progress)

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
        given, which lies at a `place` and stays as it is. A model that has learned from images with holes may draw
        `through` masks of such, (H, W) or (n, H, W), True where a sample is seen: within what it has met, while pixels
        that they hide are the mean given the others (`holes.ThroughHoles`).

        Raises InputError for counts below 1, an unknown sampler or label, noise of another shape, a size that is
        smaller than the model's or cannot be drawn by the `tiles` that are asked for, and masks of another shape, that
        show nothing, or for a model that has never met unseen pixels.
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
        return self._setup.drawing(SampleDraw(1, **options), 0).larger

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
        self._setup.refuse_student("variations")
        level = number(level, "level")
        require(0 <= level <= 1, "level", "in [0, 1]: 0 the image itself, 1 new samples", level)
        x, draw = self.border.example(image, "image"), Draw(n, **options)
        begin: Start = FromNoise()
        if log_snr is not None or 0 < level < 1:
            begin = FromExample(self.spec.standardize(x), self._setup.time(level, log_snr))
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
        return self._setup.latents(len(units), label, guidance, tolerance, batch).encode(units)

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
        return self._setup.latents(len(given), label, guidance, tolerance, batch).decode(given)

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
        first, last = self._setup.latents(2, label, guidance, tolerance, batch).encode(ends)
        return self._setup.latents(count, label, guidance, tolerance, batch).decode(spherical(first, last, count))

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
        self._setup.refuse_student("an observation")
        if operator:
            problem = posing.restoring(self.border, y, operator, noise)
            rule = f"{self.spec.shape[1:]}, that of the data"
            require(problem.x_shape == self.spec.shape, "size", rule, problem.x_shape[1:])
            try:
                channels = told.by_operator(self.config, self.spec, problem)
            except InputError as error:
                raise InputError(f"{error}; restore takes it by the method mmps") from None
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
        return self._setup.solver(problem, draw, method).solve(problem, draw.n, shared=shared, progress=progress)

    def plan(self, problem: Problem, draw: Draw, *, method: str | Method = AUTO, shared: bool = False) -> planning.Plan:
        """What `solve` will take: windows, evaluations of the network, and about how many seconds.

        Raises InputError for options that `solve` refuses.
        """
        return planning.plan(self._setup.solver(problem, draw, method), problem, draw.n, shared=shared)

    def completing(self, count: int, *, steps: int | None = None, seed: int = 0) -> Completing:
        """What draws the unseen values of `count` examples, without guidance, in `steps` steps, by default 32.

        Raises InputError for a distilled model, and for one that has not learned to restore.
        """
        return self._setup.completing(count, RESTORATION_STEPS if steps is None else whole(steps, "steps", 1), seed)

    def likelihood(self, *, guidance: float = 1.0, dtype: torch.dtype = torch.float32) -> Likelihood:
        """The likelihoods of this model: the trajectory bound, the probability flow and importance-weighted paths.

        `guidance` is the classifier-free guidance scale; the network runs in `dtype`, float32 or float64. Of a model on
        MPS the network alone runs there. Raises InputError for a distilled model, and for float64 on MPS.
        """
        self._setup.refuse_student("likelihood")
        if self.device.type == "mps":
            rule = "float32 on MPS, which has no float64; load the model with device cpu (--device cpu)"
            require(dtype == torch.float32, "dtype", rule, dtype)
            there = self._setup.with_float64
            return replace(self, denoiser=there.denoiser, device=there.device).likelihood(guidance=guidance)
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

    @property
    def _setup(self) -> Setup:
        return Setup(self.denoiser, self.spec, self.config, self.device)

    def _drawn(self, draw: Draw, first: int, start: Start, *, shared: bool, progress: bool) -> Tensor:
        """All samples of a draw, (n, *); with `shared` in every process."""
        setup = self._setup
        drawing = setup.drawing(draw, first, start)
        batches = drawing.batches(setup.together(drawing, draw), shared=shared, progress=progress)
        x = torch.cat([torch.zeros(0, *drawing.shape), *(x for _, x in batches)])
        return distributed.gather(x) if shared else x
