"""Denoisers that wrap a denoiser: a fixed label, classifier-free guidance in a log-SNR interval, the last estimate; and
what their network is told beside x_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffusion import levels
from diffusion.denoiser import AnyDenoiser, Denoiser, Prediction
from diffusion.errors import InputError, require
from diffusion.schedules import Schedule, expand


@dataclass(frozen=True)
class Labeled:
    """A denoiser with a fixed label, E[x | x_t, label].

    `label` is int64, (B,) for batches of B examples or (1,) for batches of any size.
    """

    denoiser: AnyDenoiser
    label: Tensor

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x | x_t, label]; a `label` given here takes precedence over the fixed one."""
        return self.denoiser(x_t, t, self.label.expand(len(x_t)) if label is None else label)


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance, x̂ + (scale - 1)(x̂ - x̂_unconditional), where the log-SNR is within `interval`.

    Ho and Salimans (2022, arXiv 2207.12598, eq. 6) with scale = 1 + w, so that 1 is no guidance; the interval is due to
    Kynkäänniemi et al. (2024, arXiv 2404.07724). Both estimates come from one evaluation on a doubled batch. Guidance
    does not change examples without a label (-1).
    """

    denoiser: AnyDenoiser
    scale: float
    interval: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        require(self.scale >= 0, "guidance.scale", "0 or more", self.scale)
        require(
            self.interval[0] < self.interval[1], "guidance.interval", "an increasing pair of log-SNRs", self.interval
        )

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns the guided estimate, and `variance_interp` of the conditional one. x_t: (B, C, *); t: () or (B,) or a
        map, of which the time of the trajectory counts; label: (B,).
        """
        log_snr = self.schedule.log_snr(levels.widened(levels.of_trajectory(t, x_t)))
        scale = torch.where((self.interval[0] <= log_snr) & (log_snr <= self.interval[1]), self.scale, 1.0)
        # Of maps on a device it is not asked, as the host would wait for the answer.
        if label is None or (scale.device.type == "cpu" and bool((scale == 1).all())):
            return self.denoiser(x_t, t, label)
        both = torch.cat([label, torch.full_like(label, -1)])
        times = torch.cat([t, t]) if t.ndim and len(t) == len(x_t) else t
        mean, variance_interp = self.denoiser(torch.cat([x_t, x_t]), times, both)
        conditional, unconditional = mean.chunk(2)
        weight = expand(scale, unconditional) if scale.ndim else float(scale)
        guided = torch.lerp(unconditional, conditional, weight)
        return Prediction(guided, None if variance_interp is None else variance_interp.chunk(2)[0])


def informed(denoiser: AnyDenoiser, channels: Tensor | None) -> AnyDenoiser:
    """Returns a denoiser whose network is told the channels (1 or B, K, *) beside x_t, or with None nothing.

    Raises InputError for a denoiser that has no network to tell.
    """
    if isinstance(denoiser, ClassifierFree):
        return replace(denoiser, denoiser=informed(denoiser.denoiser, channels))
    if not isinstance(denoiser, Denoiser):
        raise InputError(f"denoiser: must be that of a network, got {type(denoiser).__name__}")
    return replace(denoiser, condition=channels)


def told(denoiser: AnyDenoiser) -> Tensor | None:
    """Returns the channels that the network of a denoiser is told, None where it is told nothing."""
    inner = denoiser.denoiser if isinstance(denoiser, ClassifierFree) else denoiser
    return inner.condition if isinstance(inner, Denoiser) else None


@dataclass
class LastEstimate:
    """A denoiser that keeps the last estimate that it returned: `mean`, (B, C, *)."""

    denoiser: AnyDenoiser
    mean: Tensor = field(default_factory=lambda: torch.zeros(0))

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Evaluates the denoiser. x_t: (B, C, *); t: () or (B,); label: (B,)."""
        prediction = self.denoiser(x_t, t, label)
        self.mean = prediction.mean
        return prediction
