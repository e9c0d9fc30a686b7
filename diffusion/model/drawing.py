"""Draws samples by their numbers, from noise that is their own, from noise that is given, or from a noised example."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffusion import distributed, gaussian, samplers
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.guidance import LastEstimate
from diffusion.progress import bar
from diffusion.randomness import ExampleNoise, Stream, example_seed


class Start(Protocol):
    """Where trajectories begin."""

    def __call__(self, denoiser: AnyDenoiser, noise: Tensor, times: Tensor, rows: range) -> tuple[Tensor, Tensor]:
        """Returns x_t, (B, *), and the times (T,) from t on, for those rows of all samples that have this noise."""


@dataclass(frozen=True)
class FromNoise:
    """Begins at the first time with noise, which is `given` for all samples, (n, *), or by default their own."""

    given: Tensor | None = None

    def __call__(self, denoiser: AnyDenoiser, noise: Tensor, times: Tensor, rows: range) -> tuple[Tensor, Tensor]:
        """Returns σ_t noise and all times."""
        chosen = noise if self.given is None else self.given[rows.start : rows.stop].to(noise)
        return samplers.prior(denoiser, chosen, times[0]), times


@dataclass(frozen=True)
class FromExample:
    """Begins at a time with an example x, (*) in the units of the model, to which noise is added: SDEdit (Meng et al.
    2022, arXiv 2108.01073, algorithm 1).
    """

    x: Tensor
    time: Tensor

    def __call__(self, denoiser: AnyDenoiser, noise: Tensor, times: Tensor, rows: range) -> tuple[Tensor, Tensor]:
        """Returns α_t x + σ_t noise, and this time with those after it."""
        x = self.x.to(noise).expand_as(noise)
        later = times[times < self.time]
        return gaussian.marginal(denoiser.schedule, x, self.time).sample(noise), torch.cat([self.time[None], later])


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn. `label` is (n,) for the n samples, which have the numbers `first`, `first` + 1, ..."""

    denoiser: AnyDenoiser
    sampler: samplers.Sampler
    times: Tensor
    spec: DataSpec
    device: torch.device
    n: int
    first: int = 0
    seed: int = 0
    label: Tensor | None = None
    start: Start = FromNoise()

    @torch.no_grad()  # As a decorator: a block inside a generator would reach its caller between two steps.
    def walk(self, rows: range) -> Iterator[tuple[float, Tensor]]:
        """Yields (t, x_t) for some of the n samples, x_t (B, *) scaled to the units of the data; at t = 0 x̂."""
        seeds = [example_seed(self.seed, Stream.SAMPLE, self.first + row) for row in rows]
        randn, denoiser = ExampleNoise(seeds), LastEstimate(self.denoiser)
        # Noise is drawn where it is given too, so that the noise of the steps is the same.
        drawn = randn(torch.zeros(len(rows), *self.spec.shape, device=self.device))
        x, times = self.start(self.denoiser, drawn, self.times, rows)
        label = None if self.label is None else self.label[rows.start : rows.stop]
        path = samplers.trajectory(denoiser, self.sampler, x, times, label=label, randn=randn)
        for t, x_t in zip(times, path, strict=True):
            alpha, sigma = (float(v) for v in self.denoiser.schedule(t))
            # A sample ends at the estimate x̂ (Ho et al. 2020, algorithm 2): x_0 has the noise of the clean end in it.
            yield float(t), self.spec.decode(x_t / math.hypot(alpha, sigma) if t > 0 else denoiser.mean)

    def batches(self, batch: int, *, shared: bool, progress: bool) -> Iterator[tuple[range, Tensor]]:
        """Yields numbers and their samples, (B, *) on the CPU, at most `batch` at a time.

        With `shared` these are the share of this process. No more than one batch is held.
        """
        mine = distributed.share(self.n) if shared else range(self.n)
        with bar(len(mine), "sampling", "image", show=progress) as moving:
            for start in range(mine.start, mine.stop, batch):
                rows = range(start, min(start + batch, mine.stop))
                for _, x in self.walk(rows):
                    last = x
                yield range(self.first + rows.start, self.first + rows.stop), last.cpu()
                del x, last
                moving.update(len(rows))
