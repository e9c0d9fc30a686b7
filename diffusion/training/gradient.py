"""The gradient of a batch, with as many examples at once as the memory of the device holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffusion import distributed, memory
from diffusion.denoiser import Denoiser
from diffusion.errors import InputError
from diffusion.objectives import AnyObjective, Batch
from diffusion.randomness import example_seed
from diffusion.training.adaptive import AdaptiveObjective
from diffusion.training.scaler import LossScaler

# The optimizer makes its moments in the first step, so the second is the first one with all of the memory in use.
REHEARSALS = 2
# Log-SNRs and losses of each group of examples that the device took at once.
Losses = list[tuple[Tensor, Tensor]]


class Gradient:
    """Computes the gradient of a process's part of a batch, `share` examples, and leaves it in the weights, averaged
    over the processes.

    It goes through the part `at_once` examples at a time, a divisor of `share`. When memory runs out, `at_once` is
    halved and the step begins again. Nothing has changed by then, so the order and, up to rounding, the result stay.

    Several processes exchange gradients in the backward pass of the last examples, where one of them cannot begin again
    alone. They therefore rehearse their first two steps without exchange, and agree on `at_once`. Sharded weights are
    exchanged in every pass, so there is nothing to rehearse.

    With a `scaler` the loss is scaled for the backward pass, and the gradient unscaled after it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        denoiser: Denoiser,
        objective: AnyObjective,
        share: int,
        at_once: int,
        seed: int,
        say: Callable[[str], None],
        *,
        sharded: bool,
        scaler: LossScaler | None = None,
    ) -> None:
        self.accelerator, self.network, self.denoiser, self.objective = accelerator, network, denoiser, objective
        self.share, self.seed, self.say, self.sharded, self.scaler = share, seed, say, sharded, scaler
        self.at_once = largest_divisor(share, at_once)
        self._rehearsals = REHEARSALS if distributed.count() > 1 and not sharded else 0

    def __call__(self, batch: Batch, step: int) -> tuple[Tensor, Losses]:
        """Returns the mean loss, (), and for each group of examples at once its log-SNRs and losses, (at_once,) each.

        Raises InputError when memory runs out with one example at once, and where the processes cannot agree.
        """
        if self._rehearsals:
            self._rehearsals -= 1
            while distributed.largest(self._attempt(batch, step, exchange=False) is None):
                self._halve(step)
            self._discard()
        while (found := self._attempt(batch, step, exchange=True)) is None:
            if distributed.count() > 1:
                raise InputError(
                    f"training.accumulate: process {distributed.rank()} ran out of memory in step {step + 1} with "
                    f"{self.at_once} examples at once; raise it, which changes neither order nor result, and go on"
                )
            self._halve(step)
        if self.scaler is not None:
            self.scaler.unscale_(self.network.parameters())
        return found

    def _attempt(self, batch: Batch, step: int, *, exchange: bool) -> tuple[Tensor, Losses] | None:
        """Computes the gradient; returns None, with nothing left of it, when memory runs out."""
        found = memory.none_if_oom(lambda: self._accumulate(batch, step, exchange=exchange))
        if found is None:
            self._discard()
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    def _accumulate(self, batch: Batch, step: int, *, exchange: bool) -> tuple[Tensor, Losses]:
        # Dropout draws from this generator; `diffusion.randomness` says how its seed relates to the streams.
        seed = example_seed(self.seed, step, self.accelerator.process_index)
        # On the CPU alone: torch's function for all devices notes its caller for those that are not there, which took a
        # quarter of a step of a small network.
        (torch.default_generator if self.accelerator.device.type == "cpu" else torch).manual_seed(seed)
        count, total = self.share // self.at_once, torch.zeros((), device=self.accelerator.device)
        found = []
        for number, part in enumerate(batch.parts(count)):
            told = part.condition
            denoiser = self.denoiser if told is None else replace(self.denoiser, condition=told)
            # Gradients are exchanged once per step, with the last part; those of sharded weights with every part, as a
            # whole gradient may not fit.
            last = exchange and number == count - 1
            with nullcontext() if last or self.sharded else self.accelerator.no_sync(self.network):
                losses = self.objective.loss(denoiser, part)
                loss = losses.mean() / count
                # A loss that is not finite makes the gradient of all processes not finite.
                scale = 1.0 if self.scaler is None else self.scaler.scale
                self.accelerator.backward(loss * torch.where(loss.detach().isfinite(), scale, math.nan))
            total += loss.detach()
            found.append((self.objective.log_snr(part.u, denoiser.schedule, part.observed), losses.detach()))
        return total, found

    def _discard(self) -> None:
        """Drops the gradient and the losses of an attempt."""
        self.network.zero_grad()
        if isinstance(self.objective, AdaptiveObjective):
            self.objective.forget()

    def _halve(self, step: int) -> None:
        if self.at_once == 1:
            raise InputError(
                f"backbone: out of memory on {self.accelerator.device} with one example at once; make the network or "
                "data.size smaller, or set training.gradient_checkpointing = true"
            )
        before, self.at_once = self.at_once, largest_divisor(self.share, self.at_once // 2)
        self.say(
            f"step {step + 1}: out of memory with {before} examples at once; from here on {self.at_once}, in "
            f"{self.share // self.at_once} passes per step. Batches and their order stay the same"
        )


def largest_divisor(n: int, most: int) -> int:
    """Returns the largest divisor of n that is at most `most`, or 1 for `most` below 1."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)
