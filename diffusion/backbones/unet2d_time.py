"""What the network of diffusers is told beside the image: its time, made of the log-SNR, and a label.

Such networks were trained on numbers of timesteps of a scheduler, and the numbers mean what the scheduler's table of
noise levels says. Here a network is told the log-SNR, and turns it into the number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.errors import require, require_one

TIMES = ("index", "edm", "flow", "sigma")
EMBEDDINGS = ("positional", "fourier", "learned")
# The standard deviation of the frequencies of a Fourier embedding, and the longest period of a positional one.
FOURIER, PERIOD = 16.0, 10_000
# A configuration may come from somebody else's file, so that all sizes are limited.
MOST = 2**20


@dataclass(frozen=True)
class Times:
    """The options of time, under their names in `UNet2DConfig`, and the number of `channels` that embed it."""

    channels: int
    time: str
    steps: int
    time_embedding_type: str
    num_train_timesteps: int | None
    freq_shift: int
    flip_sin_to_cos: bool

    def __post_init__(self) -> None:
        require_one(self.time, "time", TIMES)
        require(2 <= self.steps <= MOST, "steps", f"2 to {MOST:,}", self.steps)
        kind, count, half = self.time_embedding_type, self.num_train_timesteps, self.channels // 2
        require_one(kind, "time_embedding_type", EMBEDDINGS)
        if kind == "fourier":
            rule = "flow or sigma with time_embedding_type = fourier, which takes its logarithm"
            require(self.time in ("flow", "sigma"), "time", rule, self.time)
        if kind == "learned":
            require(self.time == "index", "time", "index with time_embedding_type = learned", self.time)
            fits = count is not None and 1 <= count <= MOST
            require(fits, "num_train_timesteps", f"1 to {MOST:,} with time_embedding_type = learned", count)
        fits = kind != "positional" or 0 <= self.freq_shift < half
        require(fits, "freq_shift", f"from 0 to below {half}, half of the features", self.freq_shift)

    @property
    def features(self) -> int:
        """The number of features of a time."""
        return 2 * self.channels if self.time_embedding_type == "fourier" else self.channels

    def projection(self) -> nn.Module:
        """Returns what makes features (B, `features`) of times (B,)."""
        if self.time_embedding_type == "fourier":
            return Fourier(self.channels)
        if self.time_embedding_type == "learned":
            assert self.num_train_timesteps is not None
            return Learned(self.num_train_timesteps, self.channels)
        return Positional(self.channels, self.freq_shift, self.flip_sin_to_cos)


class Clock(nn.Module):
    """Turns log-SNRs into the numbers that tell a network its time, as `UNet2DConfig` says of `time`.

    For index `log_snrs` (steps,) is the table, which decreases strictly. It is saved with the weights, and whoever
    has the table of a scheduler copies it there.
    """

    log_snrs: Tensor

    def __init__(self, time: str, steps: int) -> None:
        super().__init__()
        self.time, self.steps = time, steps
        if time == "index":
            self.register_buffer("log_snrs", linear_betas(steps))

    def forward(self, log_snr: Tensor) -> Tensor:
        """log_snr: (B,). Returns the times (B,), in float64 for index where the device has it."""
        if self.time == "edm":
            return -log_snr / 8
        if self.time == "flow":
            return self.steps * torch.sigmoid(-log_snr / 2)
        return torch.exp(-log_snr / 2) if self.time == "sigma" else self.index(log_snr)

    def index(self, log_snr: Tensor) -> Tensor:
        """Returns the places of log-SNRs in the table, (*) -> (*); linear between entries and beyond the ends."""
        table = self.log_snrs
        value = log_snr.to(table.dtype)
        i = (torch.searchsorted(-table, -value.detach(), right=True) - 1).clamp(0, len(table) - 2)
        return i + (table[i] - value) / (table[i] - table[i + 1])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        try:
            return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]
        except TypeError:
            # MPS has no float64.
            self.log_snrs = self.log_snrs.float()
            return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]


def linear_betas(steps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Returns the log-SNRs (steps,) float64 of a discrete diffusion whose betas are evenly spaced (Ho et al. 2020,
    arXiv 2006.11239, section 4).
    """
    log_alpha_bar = torch.log1p(-torch.linspace(first, last, steps, dtype=torch.float64)).cumsum(0)
    return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))


class Positional(nn.Module):
    """Sines and cosines of a time at frequencies from 1 down to almost 1/10,000, in float32 (Ho et al. 2020)."""

    frequencies: Tensor

    def __init__(self, channels: int, shift: int, cosines_first: bool) -> None:
        super().__init__()
        self.channels, self.cosines_first = channels, cosines_first
        half = channels // 2
        exponents = -math.log(PERIOD) * torch.arange(half, dtype=torch.float32) / (half - shift)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """time: (B,). Returns (B, channels) float32; the last one of an odd number is zero."""
        angles = time.float()[:, None] * self.frequencies.float()
        waves = [angles.cos(), angles.sin()] if self.cosines_first else [angles.sin(), angles.cos()]
        return F.pad(torch.cat(waves, dim=1), (0, self.channels % 2))


class Fourier(nn.Module):
    """Sines and cosines of the logarithm of a time at random frequencies, which are not trained (Song et al. 2021)."""

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(channels) * FOURIER)

    def forward(self, time: Tensor) -> Tensor:
        """time: (B,), positive. Returns (B, 2 channels)."""
        angles = 2 * math.pi * (time.to(self.weight.dtype).log()[:, None] * self.weight)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Learned(nn.Embedding):
    """A vector for each whole time. Others are rounded: such a network knows none between two."""

    def forward(self, time: Tensor) -> Tensor:
        """time: (B,). Returns (B, channels)."""
        return super().forward(time.round().long().clamp(0, self.num_embeddings - 1))


class TimestepEmbedding(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, inputs). Returns (B, outputs)."""
        y: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return y
