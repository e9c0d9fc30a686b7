"""The law of noise levels that a run measures on its own losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.denoiser import Denoiser
from diffusion.noise_levels import Measured, PiecewiseConstant
from diffusion.objectives import Objective
from diffusion.schedules import Schedule

# What remains of the sums from one law to the next: the moments are averages over about twenty times as many steps.
KEEP = 0.95


class AdaptiveObjective:
    """An objective of exact weight whose levels follow the second moment of its losses (`Measured`).

    Given what came before, the law of a step is fixed and its draws are not, so each step's estimate is unbiased. The
    law is the same on all processes. Losses stay on their device until the next law is due, so no step waits for it.
    Those of a step count once it is done (`advance`).
    """

    def __init__(self, objective: Objective, levels: Measured) -> None:
        self.levels = levels
        self.distribution = levels.fit(torch.ones(levels.bins))
        self._objective = objective
        # Of each bin, the number of draws and their sum of squares; on every process those of its own draws.
        self._sums = torch.zeros(levels.bins, 2, dtype=torch.float64)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._step: list[tuple[Tensor, Tensor]] = []

    def log_snr(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The noise levels that uniform numbers stand for at this step: (B,) -> (B,)."""
        return self.distribution.log_snr(u, schedule)

    def loss(self, denoiser: Denoiser, x: Tensor, u: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """That of the objective, which is remembered: (B,). Arguments as for `Objective`."""
        losses = replace(self._objective, noise_levels=self.distribution).loss(denoiser, x, u, noise, label)
        self._step.append((u, losses.detach()))
        return losses

    def forget(self) -> None:
        """Drops the losses of a step that is not done and begins again."""
        self._step = []

    def advance(self, step: int) -> None:
        """Takes the law that the losses so far ask for, when it is due; all processes must call it after every step."""
        self._pending += self._step
        self._step = []
        if step % self.levels.every:
            return
        draws, squares = self._gathered().unbind(1)
        # Until every bin has been drawn from, levels stay uniform in log-SNR.
        if draws.min() > 0:
            self.distribution = self.levels.fit(squares / draws)
        self._sums *= KEEP

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, the same on all processes, which must call it together."""
        return {"shares": self.distribution.shares, "sums": self._gathered()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; of nothing, the law of the beginning."""
        self._pending, self._step = [], []
        bins = self.levels.bins
        self.distribution = PiecewiseConstant(tensors["shares"]) if tensors else self.levels.fit(torch.ones(bins))
        sums = tensors.get("sums", torch.zeros(bins, 2, dtype=torch.float64))
        self._sums = sums.clone() if distributed.is_main() else torch.zeros_like(sums)

    def _gathered(self) -> Tensor:
        for u, losses in self._pending:
            bins = self.distribution.bin(u)
            # ℓ is the loss times the density, in units of the bins' common width.
            square = (losses.cpu().double() * self.distribution.shares[bins]).square()
            # A loss that is not finite says nothing of its level, and would stay in the sums for good.
            finite = square.isfinite()
            square, bins = square[finite], bins[finite]
            self._sums.index_add_(0, bins, torch.stack([torch.ones_like(square), square], dim=1))
        self._pending = []
        return distributed.gather(self._sums[None]).sum(0)
