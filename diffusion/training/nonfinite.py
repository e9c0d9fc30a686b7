"""A guard against steps whose loss or gradient is not finite: they change neither weights nor moments, are counted and
named, and end the run when there are too many in a row. Losses that jump are named too.

The device decides whether a step is skipped. The optimizer receives the decision as a tensor (`found_inf`, as gradient
scalers give it) and then changes nothing; no step waits for it. The guard looks at it when the numbers of a run are
logged. The batch of a step is a function of the step's number, so its examples are known afterwards.

In fp16 gradients overflow while the scale of the loss is found (`scaler`), which is nobody's fault: steps whose loss is
finite are counted as faults at the smallest scale alone.
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
from diffusion.objectives import Batch
from diffusion.training.batches import BatchMaker
from diffusion.training.scaler import SMALLEST

# The number of steps skipped in a row that is not the fault of one batch.
LIMIT = 5
# A loss has jumped when it is JUMP times the median of the RECENT last losses, once there are FEWEST of them.
JUMP, RECENT, FEWEST = 10.0, 100, 20
# The number of examples of a batch that a message names.
NAMED = 3
REPORT = "failure.json"


class NonFiniteGuard:
    """Watches the steps of a run. All processes see the same gradient, so they agree about which steps are skipped.

    `say` prints a line, and `note` one about what should not be, by default likewise. `in_a_row` is the number of
    skipped steps in a row that the last look ended with, without those that overflowed.
    """

    def __init__(
        self, maker: BatchMaker, say: Callable[[str], None], note: Callable[[str], None] | None = None
    ) -> None:
        self.maker, self.say, self.note = maker, say, note or say
        self.in_a_row, self.overflowed = 0, False
        self._pending: list[Tensor] = []
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, norm: Tensor, loss: Tensor, scale: Tensor | None = None) -> Tensor:
        """Notes the norm of a step's gradient, its loss, and the scale of the loss in fp16, all ().

        Returns 1 if the step is to be skipped, else 0.
        """
        skip = (~norm.isfinite()).float()
        # Without a scale nothing can be too large for it.
        able = torch.zeros_like(skip) if scale is None else (scale > SMALLEST).float()
        self._pending.append(torch.stack([skip, loss.to(skip), able]))
        return skip

    def look(self, step: int) -> int:
        """Names the skipped steps and the jumps of the loss since the last look; `step`, counted from 1, is the newest.

        Returns the number of skipped steps without those that overflowed. All processes must call it together.
        """
        rows = self._rows()
        skipped = 0
        for number, (skip, loss, overflow) in enumerate(rows, step + 1 - len(rows)):
            if overflow:
                self._say_once(number)
                continue
            if skip:
                skipped += 1
                self.note(f"step {number}: the loss or the gradient is not finite; skipped {self._batch(number)}")
            elif len(self._recent) >= FEWEST and loss > JUMP * (usual := statistics.median(self._recent)):
                self.note(f"step {number}: the loss jumped to {loss:.4g} from {usual:.4g}; {self._batch(number)}")
            self.in_a_row = self.in_a_row + 1 if skip else 0
            if math.isfinite(loss):
                self._recent.append(loss)
        return skipped

    def _rows(self) -> list[list[float]]:
        """Returns whether it was skipped, the loss, and whether it overflowed, for each step since the last look."""
        if not self._pending:
            return []
        rows, self._pending = torch.stack(self._pending).cpu(), []
        if rows[:, 2].any():
            # A loss is that of its process, and all of them have to agree on what is a fault.
            finite = distributed.gather(rows[None, :, 1]).isfinite().all(0)
            rows[:, 2] *= rows[:, 0] * finite
        return rows.tolist()

    def _say_once(self, step: int) -> None:
        if not self.overflowed:
            self.overflowed = True
            self.say(
                f"step {step}: the gradient overflowed fp16 and the step was skipped, as the first ones are while the "
                "scale of the loss is found, and some later ones; metrics.jsonl counts them as overflows"
            )

    def _batch(self, step: int) -> str:
        names = self.maker.names(step - 1)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"the batch of {', '.join(names[:NAMED])}{more}"

    def give_up(self, run: Path, step: int, rate: float, log_snr: Callable[[Batch], Tensor]) -> FloatingPointError:
        """Returns the error that ends a run at `step`, counted from 1, and writes its report into the run folder.

        `rate` is the learning rate; `log_snr` gives the log-SNRs of a batch.
        """
        steps = range(step + 1 - self.in_a_row, step + 1)
        report = {
            "learning_rate": rate,
            "batches": {
                number: {
                    "log_snr": log_snr(self.maker.global_batch(number - 1)).tolist(),
                    "examples": list(self.maker.names(number - 1)),
                }
                for number in steps[-LIMIT:]
            },
        }
        if distributed.is_main():
            write_text(run / REPORT, json.dumps(report, indent=1))
        return FloatingPointError(
            f"step {step}: the loss or the gradient of {self.in_a_row} steps in a row is not finite, at the learning "
            f"rate {rate:.3g}, the last one in {self._batch(step)}; lower training.lr or set "
            f"training.precision = 'fp32'. Their noise levels and examples are in {run / REPORT}; the saved weights "
            "are finite"
        )
