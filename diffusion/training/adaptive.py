"""An objective whose distribution of noise levels a run measures on its own losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.denoiser import Denoiser
from diffusion.noise_levels import Adaptive, PiecewiseConstant, uniform
from diffusion.objectives import Batch, Objective
from diffusion.schedules import Schedule

# The share of the sums that is left when a distribution has been fitted: the moments are averages over about twenty
# times as many steps as a distribution lasts.
DECAY = 0.95


class AdaptiveObjective:
    """An objective with the exact weighting whose noise levels follow a moment of its losses (`Adaptive`).

    The distribution of a step is fixed by the steps before it and its draws are not, so the estimate of each step is
    unbiased. The distribution is the same on all processes. Losses stay on their device until the next distribution is
    due, so no step waits for them. The losses of a step count once that step is done (`advance`).
    """

    def __init__(self, objective: Objective, noise_levels: Adaptive) -> None:
        self.noise_levels = noise_levels
        self.distribution = uniform(noise_levels.bins)
        self._objective = objective
        # For each bin the number of draws and the sum of their powers; every process has those of its own draws.
        self._sums = torch.zeros(noise_levels.bins, 2, dtype=torch.float64)
        # The width of a bin in log-SNR, known from the first loss on.
        self._width = 1.0
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._step: list[tuple[Tensor, Tensor]] = []

    def log_snr(self, u: Tensor, schedule: Schedule, observed: Tensor | None = None) -> Tensor:
        """Maps uniform numbers to log-SNR by the distribution of this step, the same for all examples: (B,) -> (B,)."""
        return self.distribution.log_snr(u, schedule)

    def loss(self, denoiser: Denoiser, batch: Batch) -> Tensor:
        """Returns the loss of each example, (B,), and remembers it."""
        self._width = (denoiser.schedule.log_snr_max - denoiser.schedule.log_snr_min) / self.noise_levels.bins
        objective = replace(self._objective, noise_levels=self.distribution)
        losses = objective.loss(denoiser, batch)
        self._step.append((batch.u, losses.detach()))
        return losses

    def forget(self) -> None:
        """Drops the losses of a step that is not done and begins again."""
        self._step = []

    def advance(self, step: int) -> None:
        """Ends step number `step`, counted from 1, and fits the distribution to the losses so far when that is due.

        All processes must call it after every step.
        """
        self._pending += self._step
        self._step = []
        if step % self.noise_levels.every:
            return
        draws, powers = self._all_sums().unbind(1)
        # Until every bin has been drawn from, the draws stay uniform in log-SNR.
        if draws.min() > 0:
            self.distribution = self.noise_levels.fit(powers / draws, self._width)
        self._sums *= DECAY

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the state, the same on all processes, which must call it together."""
        return {"shares": self.distribution.shares, "sums": self._all_sums()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the state that `state_dict` returned; an empty one is the beginning of a run."""
        self._pending, self._step = [], []
        bins = self.noise_levels.bins
        self.distribution = PiecewiseConstant(tensors["shares"]) if tensors else uniform(bins)
        sums = tensors.get("sums", torch.zeros(bins, 2, dtype=torch.float64))
        self._sums = sums.clone() if distributed.is_main() else torch.zeros_like(sums)

    def _all_sums(self) -> Tensor:
        """Adds the pending losses to the sums and returns the sums over all processes, (bins, 2)."""
        for u, losses in self._pending:
            bins = self.distribution.bin(u)
            # ℓ is the loss times the density, in units of the bins' common width.
            power = (losses.cpu().double() * self.distribution.shares[bins]).pow(self.noise_levels.moment)
            # A loss that is not finite tells nothing about its log-SNR, and would stay in the sums for good.
            finite = power.isfinite()
            power, bins = power[finite], bins[finite]
            self._sums.index_add_(0, bins, torch.stack([torch.ones_like(power), power], dim=1))
        self._pending = []
        return distributed.gather(self._sums[None]).sum(0)
