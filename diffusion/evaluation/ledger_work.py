"""The work of paths in a ledger: what it is above the free energy, and whether it obeys the theorems of paths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from diffusion.evaluation.intervals import Estimate, estimate
from diffusion.likelihood.importance import ENOUGH, PathWeights, effective_sample_size
from diffusion.thermodynamics.paths import crossing, free_energy

# The pairs of paths whose work must cross for the theorems to be tested.
CROSSED = 10
# The effective number of samples for an interval of E exp(-D). With fewer, intervals hold 1 too seldom.
MANY = 50.0


@dataclass(frozen=True)
class Work:
    """The work of paths, in nats: on M examples, and on M samples of the model in both directions.

    `dissipated` (M, K) is the work on examples above the free energy that all paths tell. `difference` (M, K) is the
    work of a forward less that of the reverse path of a sample. `above` and `below` (M, K), (M, 1) are these two above
    the free energy by Bennett's ratio.
    """

    weights: PathWeights
    difference: Tensor
    above: Tensor
    below: Tensor

    @property
    def crossed(self) -> bool:
        """Whether the work of enough pairs crosses for the theorems to be tested."""
        return int((self.difference < 0).sum()) >= CROSSED

    @classmethod
    def of(cls, rows: Tensor, paths: int) -> Self:
        """From the log-weights (M, 2 K + 1)."""
        forward, reverse = -rows[:, paths : 2 * paths], -rows[:, 2 * paths : 2 * paths + 1]
        free = free_energy(forward, reverse)[:, None]
        return cls(PathWeights(rows[:, :paths]), forward - reverse, forward - free, reverse - free)

    @property
    def size(self) -> float:
        """The effective number of samples in the mean of exp(-D) over samples."""
        return float(effective_sample_size((-self.difference).logsumexp(1)))

    @property
    def numbers(self) -> dict[str, tuple[float, ...]]:
        """The work in nats: "dissipated", and "forward" and "reverse" of samples where it crosses."""
        crossed = {"forward": self.above, "reverse": self.below} if self.crossed else {}
        numbers = {"dissipated": self.weights.excess, **crossed}
        return {name: tuple(values.flatten().tolist()) for name, values in numbers.items()}

    def tests(self, factor: float) -> dict[str, Estimate]:
        """The dissipated work, nats times `factor`, and where work crosses what the theorems say to be 0 and 1.

        All are by examples. The last has no interval where few samples have all the weight.
        """
        excess = self.weights.excess
        still = {"noise": torch.zeros(len(excess), dtype=torch.float64)}
        found = {"dissipated": estimate(excess.mean(1), still).scaled(factor)}
        if self.crossed:
            found["crooks"] = estimate(crossing(self.difference).mean(1), still)
            jarzynski = estimate((-self.difference).exp().mean(1), still)
            found["jarzynski"] = jarzynski if self.size >= MANY else replace(jarzynski, half_width=None)
        return found

    def notes(self, factor: float, steps: int, unit: str) -> tuple[str, ...]:
        """The sentences without which the numbers could be misread."""
        tests, (count, paths) = self.tests(factor), self.weights.log_weights.shape
        reliable = int(self.weights.reliable.sum())
        lines = [
            f"on {steps} steps the difference is {tests['dissipated']} {unit} or more: the work dissipated on {paths} "
            f"paths of each of {count} examples",
            f"free energy of an example by its mean weight: reliable for {reliable} of {count}, {ENOUGH:g} paths",
        ]
        if not self.crossed:
            least = float(self.difference.min())
            lines.append(
                f"Jarzynski, Crooks: not testable, as the work of forward and reverse paths of {count} samples does "
                f"not cross (the least difference is {least:.4g} nats)"
            )
            return tuple(lines)
        share = float((self.difference < 0).double().mean())
        said = f"the effective number of samples is {self.size:.0f} of {count}"
        said += "" if self.size >= MANY else f", and an interval takes {MANY:g}"
        lines.append(f"Crooks: {share:.4f} of the pairs cross, {tests['crooks']} more than the theorem says")
        lines.append(f"Jarzynski: E exp(-work) = {tests['jarzynski']}, 1 by the theorem; {said}")
        return tuple(lines)
