"""Distillation: a student needs one network evaluation where its teacher needs several.

On a grid of few times, the teacher goes from each time to the next in `substeps` steps of DPM-Solver++ 2M, guidance
included. The student learns the x̂ whose single DDIM step (η = 0) arrives at the same point. This is progressive
distillation (Salimans and Ho 2022, arXiv 2202.00512) in one stage, of guided models as in Meng et al. (2023, arXiv
2210.03142). Such a student samples on its grid alone. Its x̂ is no longer E[x|x_t], so it has no likelihood and cannot
be used for restoration.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion import gaussian, samplers
from diffusion.denoiser import AnyDenoiser, Denoiser
from diffusion.errors import require
from diffusion.grids import check_decreasing
from diffusion.objectives import Batch, EDMError, Weighting, weighted_error
from diffusion.samplers import DPMSolver
from diffusion.schedules import Schedule
from diffusion.transfers import to_device

# The sampler of every teacher, whichever one it is sampled with elsewhere. It is deterministic, as the end of a path
# must be a function of its start.
SOLVER = DPMSolver()


@dataclass(frozen=True)
class Distillation:
    """The objective of a student of `teacher` on a grid `times` (n + 1,) that decreases to 0.

    The teacher takes `substeps` steps for each step of the grid; `weighting` weights the squared error of x̂.
    """

    teacher: AnyDenoiser
    times: Tensor
    substeps: int
    weighting: Weighting = EDMError()

    def __post_init__(self) -> None:
        require(self.substeps >= 1, "substeps", "at least 1", self.substeps)
        check_decreasing(self.times)

    def step(self, u: Tensor) -> Tensor:
        """The number, from 0, of the step of the grid that u, uniform in [0, 1), chooses: (B,) -> (B,) on the CPU."""
        steps = len(self.times) - 1
        return (u.cpu() * steps).long().clamp(0, steps - 1)

    def log_snr(self, u: Tensor, schedule: Schedule, observed: Tensor | None = None) -> Tensor:
        """The log-SNR at which the step chosen by u begins: (B,) -> (B,)."""
        return schedule.log_snr(self.times[self.step(u)])

    def path(self, step: int) -> Tensor:
        """The teacher's times from times[step] to times[step + 1], evenly spaced in log-SNR: (substeps + 1,)."""
        schedule, ends = self.teacher.schedule, self.times[step : step + 2]
        low, high = schedule.log_snr(ends).tolist()
        inner = torch.linspace(low, high, self.substeps + 1, dtype=torch.float64)[1:-1]
        return torch.cat([ends[:1], schedule.time(inner), ends[1:]])

    @torch.no_grad()
    def target(self, x_t: Tensor, step: int, label: Tensor | None = None) -> Tensor:
        """The x̂ whose DDIM step takes x_t at times[step] to the teacher's x_s at times[step + 1]: (B, C, *)."""
        x_s = samplers.sample(self.teacher, SOLVER, x_t, self.path(step), label=label)
        return gaussian.distillation_target(self.teacher.schedule, x_s, x_t, self.times[step], self.times[step + 1])

    def loss(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """The weighted squared error of the student's x̂, averaged over coordinates: (B,).

        The uniform numbers choose the step. Raises InputError for `relative` levels.
        """
        require(batch.relative is None, "observed.share", "0 for a student", "levels of pixels")
        x, label, steps = batch.x, batch.label, self.step(batch.u)
        t = self.times[steps]
        x_t = gaussian.marginal(denoiser.schedule, x, t).sample(batch.noise)
        target = torch.empty_like(x)
        for step in set(steps.tolist()):
            # By index, as the host would wait for the number of rows of a mask.
            rows = to_device((steps == step).nonzero()[:, 0], x.device)
            target[rows] = self.target(x_t[rows], step, None if label is None else label[rows])
        log_snr = denoiser.schedule.log_snr(t)
        weight = self.weighting(log_snr, torch.ones_like(log_snr))
        return weighted_error(denoiser, weight, target, x_t, t, label)[0]
