"""Draws samples by their numbers, from noise that is their own, from noise that is given, or from a noised example."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from diffusion import distributed, gaussian, samplers
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.guidance import LastEstimate
from diffusion.holes import ThroughHoles
from diffusion.model.larger import Larger
from diffusion.progress import bar, preview
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.restoration.tiles import TileByTile, Tiles
from diffusion.restoration.windows import Windows


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
    """How samples are drawn. `label` is (n,) for the n samples, which have the numbers `first`, `first` + 1, ...

    Samples that are `larger` than those of the model are made of tiles, of which the network sees `batch` at once;
    where these are windows, the denoiser is that of the whole. `through` (n or 1, 1, *), or (n or 1, D), are the holes
    through which samples are drawn, True where they are seen.
    """

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
    larger: Larger | None = None
    batch: int = 1
    through: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.spec.shape if self.larger is None else (self.spec.shape[0], *self.larger.image)

    def of_tiles(self, larger: Larger, batch: int) -> Drawing:
        """The same for samples that are larger than those of the model, whose network sees `batch` tiles at once."""
        denoiser = self.denoiser if larger.sequential else Windows(self.denoiser, (larger.tiling,), batch)
        return replace(self, denoiser=denoiser, larger=larger, batch=batch)

    @torch.no_grad()  # As a decorator: a block inside a generator would reach its caller between two steps.
    def walk(self, rows: range) -> Iterator[tuple[float, Tensor]]:
        """Yields (t, x_t) for some of the n samples, x_t (B, *) scaled to the units of the data; at t = 0 x̂."""
        randn, denoiser = self._noise(rows), LastEstimate(self._denoiser(rows))
        # Noise is drawn where it is given too, so that the noise of the steps is the same.
        x, times = self.start(self.denoiser, randn(self._blank(rows)), self.times, rows)
        path = samplers.trajectory(denoiser, self.sampler, x, times, label=self._label(rows), randn=randn)
        for step, (t, x_t) in enumerate(zip(times, path, strict=True)):
            if step:
                share = 0.0 if self.larger else len(rows) * step / len(times)
                preview(lambda: self.spec.decode(denoiser.mean), share)
            alpha, sigma = (float(v) for v in self.denoiser.schedule(t))
            # A sample ends at the estimate x̂ (Ho et al. 2020, algorithm 2): x_0 has the noise of the clean end in it.
            yield float(t), self.spec.decode(x_t / math.hypot(alpha, sigma) if t > 0 else denoiser.mean)

    def batches(self, batch: int, *, shared: bool, progress: bool) -> Iterator[tuple[range, Tensor]]:
        """Yields numbers and their samples, (B, *) on the CPU, at most `batch` at a time.

        With `shared` these are the share of this process. No more than one batch is held.
        """
        mine = distributed.share(self.n) if shared else range(self.n)
        pieces, unit = self._pieces
        with bar(len(mine) * pieces, "sampling", unit, show=progress) as moving:
            for start in range(mine.start, mine.stop, batch):
                rows = range(start, min(start + batch, mine.stop))
                yield range(self.first + rows.start, self.first + rows.stop), self._drawn(rows, moving.update).cpu()

    @property
    def _pieces(self) -> tuple[int, str]:
        """The parts that are drawn of a sample one after the other, and their name."""
        if self.larger is None:
            return 1, "image"
        return (self.larger.tiles.count, "tile") if self.larger.sequential else (len(self.times) - 1, "step")

    def _drawn(self, rows: range, watch: Callable[[int], object]) -> Tensor:
        """Some of the n samples, (B, *) in units. `watch` is told how many of all their pieces are done."""
        if self.larger is not None and self.larger.sequential:
            return self._tile_by_tile(rows, self.larger.tiles, watch)
        for step, (_, x) in enumerate(self.walk(rows)):
            last = x
            if step and self.larger is not None:
                watch(len(rows))
        if self.larger is None:
            watch(len(rows))
        return last

    def _tile_by_tile(self, rows: range, tiles: Tiles, watch: Callable[[int], object]) -> Tensor:
        def noise(some: Sequence[int], numbers: Sequence[int]) -> ExampleNoise:
            return self._noise([rows[i] for i in some], numbers)

        drawing = TileByTile(self.denoiser, self.sampler, self.times, tiles, self.batch, self._settled, watch)
        x = self._blank(rows)
        if self.larger is not None and self.larger.around is not None:
            self.larger.within(x).copy_(self.spec.standardize(self.larger.around))
        return self.spec.decode(drawing(x, noise, self._label(rows)))

    def _denoiser(self, rows: range) -> AnyDenoiser:
        """The denoiser of some of the n samples."""
        if self.through is None:
            return self.denoiser
        return ThroughHoles(self.denoiser, self.through.expand(self.n, *self.through.shape[1:])[rows.start : rows.stop])

    def _settled(self, x: Tensor) -> Tensor:
        """x (*) in the values that the data take, as the network learned from nothing else what is known exactly."""
        return x if self.spec.levels is None else self.spec.encode(self.spec.quantize(self.spec.decode(x))).to(x)

    def _noise(self, rows: Sequence[int], tiles: Sequence[int] | None = None) -> ExampleNoise:
        """The noise of some of the n samples, or of a tile of each. That of tile 0 is that of a sample of its size."""
        numbered = zip(rows, tiles or [0] * len(rows), strict=True)
        numbers = [(self.first + row, tile) if tile else (self.first + row,) for row, tile in numbered]
        return ExampleNoise([example_seed(self.seed, Stream.SAMPLE, *both) for both in numbers])

    def _blank(self, rows: range) -> Tensor:
        return torch.zeros(len(rows), *self.shape, device=self.device)

    def _label(self, rows: range) -> Tensor | None:
        return None if self.label is None else self.label[rows.start : rows.stop]
