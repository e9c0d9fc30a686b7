"""Ends a run whose held-out bound does not improve any more (`training.patience`).

All validations of a run measure the same examples under the same noise. Two of them are therefore compared example by
example: most of the spread of a bound lies between examples, and cancels. With d the bounds of an earlier validation
minus those of a later one, for n examples, the later one

    improved  <=>  mean(d) > t(n - 1) std(d)/√n,

if the 95 % interval of the mean difference lies above zero (Student's t). It is then the best one, with which those
that follow are compared. What does not improve by more than chance leaves the best one as it is, so that small
improvements add up until they are seen. A run ends after `training.patience` validations in a row that did not improve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.config import Config
from diffusion.data import Dataset
from diffusion.errors import require
from diffusion.evaluation.intervals import Estimate, estimate


def check(experiment: Config, held_out: Dataset) -> None:
    """Raises InputError where there are too few held-out examples to judge by."""
    if experiment.training.patience:
        rule = "large enough to keep two examples, by whose bounds training.patience judges"
        require(len(held_out) > 1, "data.held_out", rule, experiment.data.held_out)


class Patience:
    """Judges the validations of a run; all processes must call its methods together, with the same values.

    `limit` is the number of validations without improvement after which a run ends, 0 for none. `waited` is how many
    there were in a row, `best` the step of the last improvement, and `judged` that of the last validation; the steps
    are -1 before the first one. Checkpoints hold its state.
    """

    values: Tensor
    examples: Tensor

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.load_state_dict({})

    @property
    def over(self) -> bool:
        """Whether the run ends."""
        return 0 < self.limit <= self.waited

    def judge(self, step: int, values: Sequence[float], examples: str) -> Estimate | None:
        """Judges the validation of a step, by the bounds `values` (n,) of examples that have a digest.

        Returns by how much they are better than those of the best validation, and None for a validation that cannot be
        compared: the first one, and the first of other examples than before. That one becomes the best.
        """
        found, digest = torch.tensor(values, dtype=torch.float64), bytes_of(examples)
        self.judged = step
        if len(found) != len(self.values) or not torch.equal(digest, self.examples):
            self.best, self.waited, self.values, self.examples = step, 0, found, digest
            return None
        better = estimate(self.values - found, {})
        # Processes on unlike machines might round a mean in unlike ways.
        if distributed.largest(int(better.half_width is not None and better.mean > better.half_width)):
            self.best, self.waited, self.values = step, 0, found
        else:
            self.waited += 1
        return better

    def said(self, better: Estimate) -> str:
        """Says how the last validation compares with the best one, where it did not improve."""
        change = f"{'better' if better.mean > 0 else 'worse'} by {abs(better.mean):.4f}"
        width = "?" if better.half_width is None else f"{better.half_width:.4f}"
        return (
            f"training.patience: step {self.judged} is {change} ± {width} than step {self.best}: no improvement, "
            f"{self.waited} of {self.limit}"
        )

    def end(self, bounds: Mapping[int, float], remembers: int = -1) -> str:
        """Says why a run ends, which step had the lowest of its `bounds` by step, and since when it `remembers`.

        A step of -1 stands for a run that does not remember.
        """
        text = (
            f"training.patience: ended at step {self.judged}, as {self.waited} validations in a row did not improve "
            f"the held-out bound of step {self.best}"
        )
        lowest = min(bounds, key=bounds.__getitem__, default=None)
        if lowest is not None:
            text = f"{text}; it was lowest at step {lowest}: {bounds[lowest]:.4f}"
        return text if remembers < 0 else f"{text}; the model remembers training examples since step {remembers}"

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the best validation and the numbers of the last one; empty before the first one."""
        if self.judged < 0:
            return {}
        numbers = torch.tensor([self.judged, self.best, self.waited])
        return {"values": self.values, "examples": self.examples, "numbers": numbers}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the state that `state_dict` returned; an empty one is the beginning of a run."""
        self.judged, self.best, self.waited = map(int, tensors.get("numbers", (-1, -1, 0)))
        self.values = tensors.get("values", torch.zeros(0, dtype=torch.float64))
        self.examples = tensors.get("examples", bytes_of(""))


def bytes_of(text: str) -> Tensor:
    """Returns a text as a tensor that a checkpoint holds: (N,)."""
    return torch.tensor([*text.encode()], dtype=torch.uint8)
