"""The progress of restorations: a bar that moves within a step, by the windows that the network has been through."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.progress import Bar

# The passes that the first step of a run is taken to have: an evaluation, and backward passes where there are any.
FIRST_PASSES = 4
# The share of a step, or of a pass, that a bar reaches before the next one begins.
ALMOST = 0.99


@dataclass
class Progress:
    """Moves a bar whose total is the windows of all runs, each times the steps of its grid `times`.

    A step has as many passes through the network, evaluations and backward passes, as the step before it had. Which
    step is being taken is read off the time of each evaluation. Where pixels have times of their own, it is counted: a
    step has `per_step` evaluations.
    """

    bar: Bar
    times: Tensor
    per_step: int = 1
    windows: int = 0
    done: int = 0
    step: int = 0
    evaluations: int = 0
    passes: int = 0
    share_of_pass: float = 0.0
    expected: int = FIRST_PASSES

    def begin(self, windows: int) -> None:
        """Begins a run over a number of windows, of all of its restorations together; the run before has ended."""
        self.done += self.windows * self.steps
        self.windows, self.step, self.passes, self.share_of_pass, self.evaluations = windows, 0, 0, 0.0, 0
        self._move()

    def end(self) -> None:
        """Ends the last run."""
        self.begin(0)

    @property
    def steps(self) -> int:
        """The number of steps of a run."""
        return len(self.times) - 1

    def evaluation(self, t: Tensor | None) -> None:
        """An evaluation begins, at the times t, () or (B,), or None for a map of them."""
        if t is None:
            step = min(self.evaluations // self.per_step, self.steps - 1)
        else:
            step = self.steps - int(torch.searchsorted(self.times.cpu().flip(0), t.detach().cpu().double().max()))
        self.evaluations += 1
        if step > self.step:
            self.step, self.expected, self.passes = step, max(1, self.passes), 0
        self.backward()

    def backward(self) -> None:
        """A backward pass begins, or any other."""
        self.passes, self.share_of_pass = self.passes + 1, 0.0
        self._move()

    def part(self, share: float) -> None:
        """A share of the windows of a pass is done."""
        self.share_of_pass = min(self.share_of_pass + share, ALMOST)
        self._move()

    def _move(self) -> None:
        within = (max(0, self.passes - 1) + self.share_of_pass) / self.expected
        place = self.done + int(self.windows * (self.step + min(within, ALMOST)))
        self.bar.update(max(0, place - self.bar.n))
