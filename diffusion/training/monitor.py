"""The numbers of a run: loss, speed and the loss by noise level, gathered without waiting for the device."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.files import write_text

BINS = 24
MEMORY = 0.98
TOTAL = "held_out/total_"
NOTHING = torch.zeros(0, dtype=torch.float64), torch.zeros(0)


class LossByLogSNR:
    """A running mean of the loss in bins of log-SNR between two ends; old steps fade with a memory of about 50
    updates of a bin.
    """

    def __init__(self, low: float, high: float) -> None:
        self.edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
        self.mean = torch.zeros(BINS, dtype=torch.float64)
        self.weight = torch.zeros(BINS, dtype=torch.float64)

    def update(self, log_snr: Tensor, loss: Tensor) -> None:
        """log_snr, loss: (B,) on the CPU."""
        index = (torch.bucketize(log_snr.double(), self.edges) - 1).clamp(0, BINS - 1)
        count = torch.bincount(index, minlength=BINS).double()
        total = torch.zeros_like(self.mean).index_add_(0, index, loss.double())
        keep = torch.where(count > 0, MEMORY, 1.0)
        self.mean = (self.mean * self.weight * keep + total) / (self.weight * keep + count).clamp_min(1e-12)
        self.weight = self.weight * keep + count

    def rows(self) -> list[tuple[float, float]]:
        """(log-SNR at the middle of the bin, mean loss) for every bin seen."""
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        return [(float(m), float(v)) for m, v, w in zip(middles, self.mean, self.weight, strict=True) if w > 0]


class Monitor:
    """Keeps losses on the device until they are asked for, and measures speed between two such moments. What it has
    kept goes into checkpoints, so that numbers and plots go on too. All processes must call its methods together.
    """

    def __init__(self, by_log_snr: LossByLogSNR) -> None:
        self.by_log_snr = by_log_snr
        self._pending: list[tuple[Tensor, Tensor]] = []
        # Those of an earlier part of the run, on the CPU, and how many there are of all processes.
        self._earlier, self._restored = NOTHING, 0
        self._since = time.perf_counter()
        self._waited = 0.0

    def add(self, log_snr: Tensor, loss: Tensor) -> None:
        """Losses (B,) of one part of a batch, at log-SNRs (B,)."""
        self._pending.append((log_snr, loss.detach()))

    def collect(self, waited: float) -> dict[str, float]:
        """Mean loss, images/s and the share of time spent waiting for data since the last call, the first two of all
        processes; `waited` is the total wait. Losses that are not finite are left out of the mean, which is NaN if none
        is.
        """
        by_log_snr, losses = map(distributed.gather, self._seen())
        finite = losses.isfinite()
        self.by_log_snr.update(by_log_snr[finite], losses[finite])
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        numbers = {
            "loss": float(losses[finite].mean()),
            "images_per_s": (len(losses) - self._restored) / elapsed,
            "data_wait": (waited - self._waited) / elapsed,
        }
        self._pending, self._earlier, self._restored, self._since, self._waited = [], NOTHING, 0, now, waited
        return numbers

    def tensors(self) -> dict[str, Tensor]:
        """What was added since the last call of `collect`, and the loss by level."""
        pending = dict(zip(("log_snr", "loss"), map(distributed.gather, self._seen()), strict=True))
        return {**pending, "mean": self.by_log_snr.mean, "weight": self.by_log_snr.weight}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`; of nothing, a new beginning."""
        self._pending, self._earlier, self._restored = [], NOTHING, 0
        self.by_log_snr.mean, self.by_log_snr.weight = (
            tensors.get(name, torch.zeros(BINS, dtype=torch.float64)).clone() for name in ("mean", "weight")
        )
        if tensors:
            self._restored = len(tensors["loss"])
            mine = distributed.share(self._restored)
            self._earlier = tensors["log_snr"][mine.start : mine.stop], tensors["loss"][mine.start : mine.stop]

    def _seen(self) -> tuple[Tensor, Tensor]:
        """Log-SNRs and losses since the last call of `collect`, on the CPU."""
        if not self._pending:
            return self._earlier
        by_log_snr, losses = (torch.cat(new).cpu() for new in zip(*self._pending, strict=True))
        return torch.cat([self._earlier[0], by_log_snr]), torch.cat([self._earlier[1], losses])


def append(path: Path, row: Mapping[str, object]) -> None:
    """Adds one line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def bounds(path: Path) -> dict[int, float]:
    """The bounds on held-out examples in a file of rows, by their steps."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        totals = [value for key, value in row.items() if key.startswith(TOTAL) and not key.endswith("_se")]
        if totals:
            found[row["step"]] = totals[0]
    return found


def best(path: Path, steps: Iterable[int]) -> int | None:
    """Of these steps the one with the lowest bound in a file of rows; None if none has any."""
    found = bounds(path)
    return min((step for step in steps if step in found), key=found.__getitem__, default=None)


def truncate_after(path: Path, step: int) -> None:
    """Drops the rows of steps beyond `step`, which a resumed run will write again, and a last line that was cut
    short.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))
