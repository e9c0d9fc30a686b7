"""Steps whose loss or gradient is not finite: kept from weights and moments, counted, named, and too many of them an
end. Losses that jump are named too.

Whether to skip a step is decided on the device. The optimizer receives it as a tensor (`found_inf`, the way gradient
scalers take) and then changes nothing; no step waits for it. It is looked at when the numbers of a run are logged. The
batch of a step is a function of its number, so its examples are known afterwards.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.files import write_text
from diffusion.training.batches import BatchMaker

# So many skipped steps in a row are not the fault of a batch.
LIMIT = 5
# A loss that jumped is this many times the median of the last ones; a few are needed to have one.
JUMP, RECENT, FEWEST = 10.0, 100, 20
NAMED = 3
REPORT = "failure.json"


class NonFiniteGuard:
    """Watches over the steps of a run; all processes see the same gradient, so they agree about what is skipped."""

    def __init__(self, maker: BatchMaker, say: Callable[[str], None]) -> None:
        self.maker, self.say = maker, say
        self.in_a_row = 0
        self._pending: list[Tensor] = []
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, norm: Tensor, loss: Tensor) -> Tensor:
        """Notes the norm of a step's gradient and its loss, both (); returns 1 where the step is to be skipped, 0
        elsewhere.
        """
        skip = (~norm.isfinite()).float()
        self._pending.append(torch.stack([skip, loss.to(skip)]))
        return skip

    def look(self, step: int) -> int:
        """Names what happened in the steps up to number `step`, counted from 1, since the last look; returns how many
        were skipped.
        """
        rows = torch.stack(self._pending).tolist() if self._pending else []
        skipped = 0
        for number, (skip, loss) in enumerate(rows, step + 1 - len(rows)):
            if skip:
                skipped += 1
                self.say(f"step {number}: the loss or the gradient is not finite; skipped {self._batch(number)}")
            elif len(self._recent) >= FEWEST and loss > JUMP * (usual := statistics.median(self._recent)):
                self.say(f"step {number}: the loss jumped to {loss:.4g} from {usual:.4g}; {self._batch(number)}")
            self.in_a_row = self.in_a_row + 1 if skip else 0
            if math.isfinite(loss):
                self._recent.append(loss)
        self._pending = []
        return skipped

    def _batch(self, step: int) -> str:
        names = self.maker.names(step - 1)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"the batch of {', '.join(names[:NAMED])}{more}"

    def give_up(self, run: Path, step: int, rate: float, log_snr: Callable[[Tensor], Tensor]) -> FloatingPointError:
        """The error that ends a run at a step, counted from 1; its report goes into the run folder."""
        steps = range(step + 1 - self.in_a_row, step + 1)
        report = {
            "learning_rate": rate,
            "batches": {
                number: {
                    "log_snr": log_snr(self.maker.whole(number - 1).u).tolist(),
                    "examples": list(self.maker.names(number - 1)),
                }
                for number in steps[-LIMIT:]
            },
        }
        if distributed.is_main():
            write_text(run / REPORT, json.dumps(report, indent=1))
        return FloatingPointError(
            f"step {step}: the loss or the gradient of {self.in_a_row} steps in a row is not finite, at the learning "
            f"rate {rate:.3g}, last of {self._batch(step)}; lower training.lr or set training.precision = 'fp32'. "
            f"Their noise levels and examples are in {run / REPORT}; the weights saved are finite"
        )
