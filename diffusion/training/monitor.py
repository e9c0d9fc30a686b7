"""The loss, the speed and the loss by log-SNR of a run, gathered without waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from diffusion import distributed

BINS = 24
# The share of a bin's weight that is left after an update.
DECAY = 0.98
NOTHING = torch.zeros(0, dtype=torch.float64), torch.zeros(0)


class LossByLogSNR:
    """A running mean of the loss in each of several bins of log-SNR between `low` and `high`.

    Older losses fade: the mean of a bin goes over about its last 50 updates, 1 / (1 - DECAY).
    """

    def __init__(self, low: float, high: float) -> None:
        self.edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
        self.mean = torch.zeros(BINS, dtype=torch.float64)
        self.weight = torch.zeros(BINS, dtype=torch.float64)

    def update(self, log_snr: Tensor, loss: Tensor) -> None:
        """Adds losses at their log-SNRs; both (B,), on the CPU."""
        index = (torch.bucketize(log_snr.double(), self.edges) - 1).clamp(0, BINS - 1)
        count = torch.bincount(index, minlength=BINS).double()
        total = torch.zeros_like(self.mean).index_add_(0, index, loss.double())
        keep = torch.where(count > 0, DECAY, 1.0)
        self.mean = (self.mean * self.weight * keep + total) / (self.weight * keep + count).clamp_min(1e-12)
        self.weight = self.weight * keep + count

    def rows(self) -> list[tuple[float, float]]:
        """Returns (log-SNR at the middle of the bin, mean loss) for every bin with a loss."""
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        return [(float(m), float(v)) for m, v, w in zip(middles, self.mean, self.weight, strict=True) if w > 0]


class Monitor:
    """Keeps losses on the device until they are asked for, and measures the speed between two such moments.

    Checkpoints hold its state, so that numbers and plots of a resumed run go on too. All processes must call its
    methods together.
    """

    def __init__(self, by_log_snr: LossByLogSNR) -> None:
        self.by_log_snr = by_log_snr
        self._pending: list[tuple[Tensor, Tensor]] = []
        # Losses that a checkpoint held: this process's share of them, on the CPU, and their number over all processes.
        self._earlier, self._loaded = NOTHING, 0
        self._since = time.perf_counter()
        self._waited = 0.0

    def add(self, log_snr: Tensor, loss: Tensor) -> None:
        """Adds the losses of a part of a batch at their log-SNRs, both (B,)."""
        self._pending.append((log_snr, loss.detach()))

    def collect(self, waited: float) -> dict[str, float]:
        """Returns the mean loss, images/s and the share of time spent waiting for data, all since the last call.

        The first two are those of all processes together. `waited` is the time, in seconds, for which this process has
        waited by now for what the CPU makes of batches.
        Losses that are not finite are left out of the mean, which is NaN where none is finite.
        """
        log_snr, losses = map(distributed.gather, self._since_collect())
        finite = losses.isfinite()
        self.by_log_snr.update(log_snr[finite], losses[finite])
        now = time.perf_counter()
        elapsed = max(now - self._since, 1e-9)
        numbers = {
            "loss": float(losses[finite].mean()),
            "images_per_s": (len(losses) - self._loaded) / elapsed,
            "data_wait": (waited - self._waited) / elapsed,
        }
        self._pending, self._earlier, self._loaded, self._since, self._waited = [], NOTHING, 0, now, waited
        return numbers

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the losses since the last call of `collect`, and the loss by log-SNR."""
        pending = dict(zip(("log_snr", "loss"), map(distributed.gather, self._since_collect()), strict=True))
        return {**pending, "mean": self.by_log_snr.mean, "weight": self.by_log_snr.weight}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes the state that `state_dict` returned; an empty one is the beginning of a run."""
        self._pending, self._earlier, self._loaded = [], NOTHING, 0
        self.by_log_snr.mean, self.by_log_snr.weight = (
            tensors.get(name, torch.zeros(BINS, dtype=torch.float64)).clone() for name in ("mean", "weight")
        )
        if tensors:
            self._loaded = len(tensors["loss"])
            mine = distributed.share(self._loaded)
            self._earlier = tensors["log_snr"][mine.start : mine.stop], tensors["loss"][mine.start : mine.stop]

    def _since_collect(self) -> tuple[Tensor, Tensor]:
        """Returns log-SNRs and losses since the last call of `collect`, on the CPU."""
        if not self._pending:
            return self._earlier
        log_snr, losses = (torch.cat(new).cpu() for new in zip(*self._pending, strict=True))
        return torch.cat([self._earlier[0], log_snr]), torch.cat([self._earlier[1], losses])
