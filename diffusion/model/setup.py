"""Sets up what draws samples, restorations and latents of a model: from options, which it checks, to the denoiser, the
grid, the sampler, the labels and the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from diffusion import distributed, samplers
from diffusion.compilation import compile_for_sampling
from diffusion.config import Config
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser, Denoiser
from diffusion.draw import Draw, SampleDraw
from diffusion.errors import InputError, require, require_one
from diffusion.guidance import ClassifierFree, informed
from diffusion.memory import auto_batch_size
from diffusion.model import told
from diffusion.model.accept import Border
from diffusion.model.completing import Completing
from diffusion.model.conversion import Given, Labels, number, pixels, plain_label, whole
from diffusion.model.drawing import Drawing, FromNoise, Start
from diffusion.model.elsewhere import Elsewhere
from diffusion.model.larger import Larger
from diffusion.model.latents import Latents
from diffusion.model.solving import RESTORATION_STEPS, Solver
from diffusion.precision import Autocast, network_dtype
from diffusion.restoration import Method, Problem
from diffusion.restoration.methods import METHODS, Learned, choose
from diffusion.schedules import lerp_table

# Steps of a grid that stands for the whole path of the sampler.
LONG = 100


@dataclass(frozen=True)
class Setup:
    """The denoiser of a model with its data, its experiment and its device, of which what uses it is made.

    Where float64 is needed and the device has none, `with_float64` runs the network alone there.
    """

    denoiser: Denoiser
    spec: DataSpec
    config: Config
    device: torch.device

    @property
    def ends(self) -> tuple[float, float]:
        """The log-SNRs of the first and the last evaluation on a long grid."""
        schedule = self.denoiser.schedule
        log_snr = schedule.log_snr(self.config.grid(schedule, LONG))
        return float(log_snr[0]), float(log_snr[-2])

    @property
    def border(self) -> Border:
        """What converts and checks the examples that are given to the model."""
        return Border(self.spec, self.config.data.background)

    @property
    def with_float64(self) -> Setup:
        """The same where float64 exists: of a model on MPS the network alone stays there, its algebra is on the CPU."""
        if self.device.type != "mps":
            return self
        network = Elsewhere(self.denoiser.backbone, self.device)
        return replace(self, denoiser=replace(self.denoiser, backbone=network), device=torch.device("cpu"))

    def refuse_student(self, purpose: str) -> None:
        """Raises InputError for a distilled model."""
        if teacher := self.config.distillation.teacher:
            raise InputError(
                f"{purpose}: this model was distilled to sample in few evaluations; ask its teacher, {teacher}"
            )

    def guided(self, guidance: float | None = None, *, autocast: bool = False) -> AnyDenoiser:
        """The denoiser to sample, with guidance, in the precision of sampling or in float32 (`Model.guided`)."""
        options, denoiser = self.config.sampling, self.denoiser
        dtype = network_dtype(options.precision, self.device) if autocast else torch.float32
        if dtype != torch.float32:
            denoiser = replace(denoiser, backbone=Autocast(denoiser.backbone, dtype))
        scale = options.guidance if guidance is None else guidance
        if self.config.distillation.teacher and scale != 1:
            raise InputError(f"guidance: this model was distilled with its teacher's guidance in it, got {scale:g}")
        asked, dropout = guidance not in (None, 1), self.config.training.label_dropout
        labeled = "with labels (data.labels = false)"
        require(not asked or self.spec.classes, "guidance", f"1 for this model, which was not trained {labeled}", scale)
        without = "without labels (training.label_dropout = 0)"
        require(not asked or dropout, "guidance", f"1 for this model, which was not trained {without}", scale)
        return denoiser if scale == 1 else ClassifierFree(denoiser, scale, options.interval)

    def labels(self, label: Labels | None, n: int, *, unlabeled: bool = False) -> Tensor | None:
        """The labels of n examples on the device, (n,) int64, or None (`DataSpec.label_numbers`)."""
        return self.spec.label_numbers(plain_label(label), n, unlabeled=unlabeled, device=self.device)

    def blank(self, n: int) -> Tensor:
        """n examples of zeros on the device, (n, *)."""
        return torch.zeros(n, *self.spec.shape, device=self.device)

    @torch.no_grad()
    def batch(self, denoiser: AnyDenoiser, label: Tensor | None, method: Method | None = None) -> int:
        """The number of examples at a time that suits the device, for samples or for restorations by a method."""
        middle = self.denoiser.schedule.time(torch.zeros(()))

        def evaluate(n: int) -> object:
            probe = denoiser if method is None else method.memory_probe(denoiser)
            return probe(self.blank(n), middle, None if label is None else label[:1].expand(n))

        called = self.denoiser, denoiser, method, label is None
        return auto_batch_size(evaluate, math.prod(self.spec.shape[1:]), self.device, called=called)

    def drawing(self, draw: Draw, first: int, start: Start = FromNoise()) -> Drawing:  # noqa: B008, it is frozen
        """How samples are drawn that begin at `start`. Raises InputError for options that cannot be used."""
        draw.checked()
        first = whole(first, "first", 0)
        larger = self._larger(draw) if isinstance(draw, SampleDraw) else None
        alone = larger is None or getattr(self.denoiser, "condition", None) is None
        require(
            alone, "size", f"{self.spec.shape[1:]}, that of the observation that was given", larger and larger.image
        )
        if larger is not None and self.device.type == "mps":
            return self.with_float64.drawing(draw, first, start)
        sampler, times = self._steps(draw)
        # A tile passes the rounding of the network on to all that are drawn after it.
        autocast = larger is None or not larger.sequential
        denoiser, label = self.guided(draw.guidance, autocast=autocast), self.labels(draw.label, draw.n)
        needs_label(draw.guidance, draw.label)
        self._compile(draw.n * (len(times) - 1) * math.prod(larger.image if larger else self.spec.shape[1:]))
        drawing = Drawing(
            denoiser,
            sampler,
            times,
            self.spec,
            self.device,
            draw.n,
            first,
            seed=draw.seed,
            label=label,
            start=start,
            through=self._through(draw),
        )
        if larger is None:
            return drawing
        return drawing.of_tiles(larger, draw.batch or self.batch(denoiser, label))

    def together(self, drawing: Drawing, draw: Draw) -> int:
        """The number of samples that are drawn at once."""
        if drawing.larger:
            return drawing.larger.together(drawing.batch)
        return draw.batch or self.batch(drawing.denoiser, drawing.label)

    def solver(self, problem: Problem, draw: Draw, method: str | Method) -> Solver:
        """What solves a problem by a method. Raises InputError for options that cannot be used."""
        if self.device.type == "mps":
            return self.with_float64.solver(problem, draw, method)
        self.refuse_student("restoration")
        draw.checked()
        channels, learned = self._told(problem, method), self.config.observes
        chosen = choose(method, self._sampler(draw.sampler), problem, learned=learned, told=channels is not None)
        denoiser, label = self.guided(draw.guidance, autocast=not chosen.differentiates), self.labels(draw.label, 1)
        needs_label(draw.guidance, draw.label)
        steps = RESTORATION_STEPS if draw.steps is None else draw.steps
        self._compile(draw.n * steps * math.prod((problem.shape or self.spec.shape)[1:]))
        batch = draw.batch or self.batch(denoiser, label, chosen)
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

    def completing(self, count: int, steps: int, seed: int) -> Completing:
        """What draws the unseen values of `count` examples, without guidance (`Model.completing`)."""
        if self.device.type == "mps":
            return self.with_float64.completing(count, steps, seed)
        self.refuse_student("completion")
        share, rule = self.config.observed.share, "above 0 in the configuration of a run that is to complete images"
        require(share > 0, "observed.share", rule, share)
        self._compile(count * steps * math.prod(self.spec.shape[1:]))
        denoiser, times = self.guided(1.0, autocast=True), self.config.grid(self.denoiser.schedule, steps)
        label = self.labels(0, 1) if self.spec.classes else None
        return Completing(denoiser, times, self.spec, self.device, seed, self.batch(denoiser, label))

    def latents(self, n: int, label: Labels | None, guidance: float, tolerance: float, batch: int | None) -> Latents:
        """What goes from n examples to their latents, and back. Raises InputError for a distilled model."""
        if self.device.type == "mps":
            return self.with_float64.latents(n, label, guidance, tolerance, batch)
        self.refuse_student("latents")
        require(batch is None or batch >= 1, "batch", "at least 1", batch)
        given = self.labels(label, n, unlabeled=True)
        denoiser = self.guided(guidance)
        needs_label(guidance, label)
        return Latents(denoiser, self.spec, self.device, given, batch or self.batch(denoiser, given), tolerance)

    def time(self, level: float, log_snr: float | None) -> Tensor:
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

    def _steps(self, draw: Draw) -> tuple[samplers.Sampler, Tensor]:
        """The sampler and the times of a draw, by default those of the experiment."""
        given = self._sampler(draw.sampler)
        own = self.config.sampling.steps
        count = own if draw.steps is None else draw.steps
        if self.config.distillation.teacher and (count != own or given):
            raise InputError(f"steps, sampler: this model was distilled for {own} steps of its own sampler")
        return given or self.config.sampler, self.config.grid(self.denoiser.schedule, count)

    def _sampler(self, sampler: str | samplers.Sampler | None) -> samplers.Sampler | None:
        if not isinstance(sampler, str):
            return sampler
        require_one(sampler, "sampler", samplers.SAMPLERS)
        return samplers.SAMPLERS[sampler]()

    def _through(self, draw: Draw) -> Tensor | None:
        """The holes through which samples are drawn, None for none. Raises InputError for masks that cannot be used."""
        if not isinstance(draw, SampleDraw) or draw.through is None:
            return None
        rule = "left out for a model that has never met pixels which nobody saw (data.masks)"
        require(self.config.mapped, "through", rule, "masks")
        require(draw.size is None, "through", "left out with a size", draw.size)
        seen = pixels(draw.through, draw.n, self.spec.shape, "through")
        blind = int((~seen.flatten(1).any(1)).sum())
        require(not blind, "through", "masks that show something", f"{blind:,} that show nothing")
        return seen

    def _larger(self, draw: SampleDraw) -> Larger | None:
        around = None
        if draw.around is not None:
            around = self.border.shown(self.border.arranged(cast(Given, draw.around), "around"), "around")
        return Larger.of(self.spec, draw, mapped=self.config.observes, around=around)

    def _told(self, problem: Problem, method: str | Method) -> Tensor | None:
        """The channels (1, K, *) by which the network is told the observation of a problem that it has learned to
        restore; None for any other.

        Raises InputError, which says what differs, where the method "learned" was asked for by name, and for images of
        another size where the network was told something else already (`Model.given`).
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

    def _compile(self, positions: int) -> None:
        network, setting = getattr(self.denoiser, "backbone", None), self.config.sampling.compile
        compile_for_sampling(network, setting, self.device, positions, distributed.say)


def needs_label(guidance: float | None, label: object) -> None:
    """Raises InputError where guidance is asked for and no label, without which it changes nothing."""
    require(
        guidance in (None, 1) or label is not None, "guidance", "1 without a label, towards which it guides", guidance
    )
