"""The examples of each step, as a function of (seed, step) alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffusion.conditioning import Condition
from diffusion.data import Dataset, SampleStream, augment, crops_and_flips
from diffusion.data.hashing import hashed, normal
from diffusion.data.observing import Given, Observing
from diffusion.levels import UNSEEN
from diffusion.model import told
from diffusion.noise_levels import low_discrepancy
from diffusion.objectives import Batch
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.transfers import host_memory, to_device

# Examples of at most this many values have the noise of their batch hashed at once: making a generator takes as long as
# hashing hundreds of values, and for points it took half of the time of a step.
HASHED_VALUES = 64
# The share of the examples of a round (`em.py`) that are taken as they were completed.
COMPLETED = 0.5


@dataclass(frozen=True)
class HostBatch:
    """What the CPU makes of the batch of `step`: everything that is read or drawn.

    It has stored values (B, C, *), crops and flips (3, B) for images, uniform numbers u (B,), noise (B, C, *), labels
    (B,) or None, the levels of the pixels as a batch has them, the masks of the pixels that were seen (B, 1, *), and
    stored values of the condition (B, K, *). `told` (B, draws) are the uniform numbers of a `Condition`, and
    `told_noise` (B, values) its noise.
    """

    step: int
    values: Tensor
    draws: Tensor | None
    u: Tensor
    noise: Tensor
    label: Tensor | None
    relative: Tensor | None = None
    seen: Tensor | None = None
    condition: Tensor | None = None
    told: Tensor | None = None
    told_noise: Tensor | None = None


@dataclass(frozen=True)
class BatchMaker:
    """Makes the part of a global batch that one process trains on, on its device.

    Everything random about an example (its place in the order, crop, flip, noise and whether its label is hidden) comes
    from the seed and the example's global number. It does not depend on the number of processes, nor on where a run was
    interrupted, nor on the device, because it is drawn on the CPU. Stored values, which have a quarter of the bytes of
    encoded ones, are moved to the device before they are augmented and encoded.

    A batch is made in two parts: `on_host` may run in a thread while the device trains on the batch before, and
    `on_device` only queues work for the device. At most `threads` threads draw the noise, whose number changes nothing.

    `observing` says what is observed of the examples; with None all pixels have the level of the trajectory. `holes`
    are those that completed examples had: `COMPLETED` of these are wholly seen, and observed through such holes too.
    The others are seen as before they were completed. `folder` are the masks of `observing.folder`. `condition` says
    what the network is told of them; with None it is told nothing. The observation of an operator is made of the
    example on the device.
    """

    dataset: Dataset
    batch: int
    seed: int
    flip: bool
    label_dropout: float
    low_discrepancy: bool
    rank: int = 0
    processes: int = 1
    device: torch.device = torch.device("cpu")
    threads: int = 1
    observing: Observing | None = None
    holes: Given | None = None
    folder: Given | None = None
    condition: Condition | None = None

    def __call__(self, step: int) -> Batch:
        """Returns this process's part of the batch of `step`, counted from 0."""
        return self.on_device(self.on_host(step))

    def on_host(self, step: int) -> HostBatch:
        """Returns what the CPU makes of this process's part of a batch, in memory from which copies are not waited for.

        It runs in one thread, but for the noise: values are copied by numpy and noise is drawn by generators. Torch's
        operations on large tensors would start a team of compute threads beside that of the loop's thread.
        """
        share = self.batch // self.processes
        first = step * self.batch + self.rank * share
        numbers = range(first, first + share)
        spec, draws = self.dataset.spec, None
        indices = self._indices(first, share)
        values, label = self.dataset.batch(indices)
        completed = self._completed(numbers)
        seen, condition = (None if part is None else self._staged(part) for part in self.dataset.beside(indices))
        if seen is not None and self.holes is not None:
            seen.numpy()[completed] = 1
        if spec.is_image:
            draws = self._staged(crops_and_flips(self._seeds(Stream.AUGMENT, numbers), self.dataset.margin))
        if label is not None:
            hidden = torch.tensor([seed / 2**63 < self.label_dropout for seed in self._seeds(Stream.LABEL, numbers)])
            label = self._staged(label.masked_fill(hidden, -1))
        u, noise = self._uniform_numbers(step, numbers), self._noise(numbers, (share, *spec.shape))
        relative, shown = self._relative(numbers, completed), self._told(numbers)
        return HostBatch(step, self._staged(values), draws, u, noise, label, relative, seen, condition, *shown)

    def on_device(self, host: HostBatch) -> Batch:
        """Copies the parts of a batch to the device, where it augments and encodes the values; waits for none of it.

        The uniform numbers stay on the CPU.
        """
        parts = host.values, host.draws, host.noise, host.label, host.relative, host.seen, host.condition
        values, draws, noise, label, relative, seen, condition = (
            None if part is None else to_device(part, self.device) for part in parts
        )
        assert values is not None and noise is not None
        if draws is not None:
            values, seen, condition = (
                None if part is None else augment(part, draws, flip=self.flip, margin=self.dataset.margin)
                for part in (values, seen, condition)
            )
            assert values is not None
        x = self.dataset.spec.encode(values)
        channels = None if host.told is None else self._channels(x, condition, host.told, host.told_noise)
        if seen is not None:
            x = x * seen
            relative = torch.where(seen == 0, UNSEEN, x.new_ones(()) if relative is None else relative)
        # On the CPU, as uniform numbers are.
        observed = None if host.relative is None else (host.relative < 1).flatten(1).any(1)
        return Batch(x, host.u, noise, label, relative, channels, observed)

    def global_batch(self, step: int) -> Batch:
        """Returns the batch of `step` for all processes together."""
        return replace(self, rank=0, processes=1)(step)

    def names(self, step: int) -> list[str]:
        """Returns the names of the examples in the global batch of `step`."""
        return [self.dataset.names[int(index)] for index in self._indices(step * self.batch, self.batch)]

    def _indices(self, first: int, count: int) -> Tensor:
        return SampleStream(len(self.dataset), example_seed(self.seed, Stream.ORDER)).indices(first, count)

    def _staged(self, values: Tensor) -> Tensor:
        """Returns values in memory from which they are copied to the device without waiting."""
        if self.device.type != "cuda":
            return values
        staged = host_memory(values.shape, values.dtype, self.device)
        np.copyto(staged.numpy(), values.numpy())
        return staged

    def _noise(self, numbers: range, shape: tuple[int, ...]) -> Tensor:
        values = math.prod(shape[1:])
        if values > HASHED_VALUES:
            noise = ExampleNoise(self._seeds(Stream.NOISE, numbers))
            return noise.fill(host_memory(shape, torch.float32, self.device), self.threads)
        keys = hashed(
            np.arange(numbers.start, numbers.stop, dtype=np.uint64) + np.uint64(example_seed(self.seed, Stream.NOISE))
        )
        return self._staged(normal(keys[:, None], np.arange(values)).reshape(shape))

    def _completed(self, numbers: range) -> npt.NDArray[np.bool_]:
        """Draws which of the examples are taken as completed, if they were: (B,)."""
        if self.holes is None:
            return np.zeros(len(numbers), dtype=bool)
        # The seed of what is observed of an example, with another number behind it.
        seeds = [example_seed(self.seed, Stream.OBSERVED, number, 1) for number in numbers]
        return np.array([seed / 2**63 < COMPLETED for seed in seeds])

    def _relative(self, numbers: range, completed: npt.NDArray[np.bool_]) -> Tensor | None:
        if self.observing is None:
            return None
        spec = self.dataset.spec
        shape = spec.shape[1:] if spec.is_image else spec.shape
        each = zip(self._seeds(Stream.OBSERVED, numbers), completed, strict=True)
        drawn = np.stack(
            [self.observing(shape, seed, self.holes if whole else None, self.folder) for seed, whole in each]
        )
        return self._staged(torch.from_numpy(drawn[:, None] if spec.is_image else drawn))

    def _told(self, numbers: range) -> tuple[Tensor | None, Tensor | None]:
        """The uniform numbers that choose what the network is told of examples, and the noise on it, if it has any."""
        if self.condition is None:
            return None, None
        shape, device = self.dataset.spec.shape, self.device
        return told.draws(self.condition, shape, numbers, self.seed, device=device, threads=self.threads)

    def _channels(self, x: Tensor, stored: Tensor | None, u: Tensor, noise: Tensor | None) -> Tensor:
        """What the network is told of examples x (B, C, *), of which the data may have `stored` an observation."""
        assert self.condition is not None
        return told.channels(self.condition, self.dataset.spec, x, stored, u, noise)

    def _uniform_numbers(self, step: int, numbers: range) -> Tensor:
        if not self.low_discrepancy:
            return torch.tensor(
                [seed / 2**63 for seed in self._seeds(Stream.NOISE_LEVEL, numbers)], dtype=torch.float64
            )
        offset = torch.tensor(example_seed(self.seed, Stream.NOISE_LEVEL, step) / 2**63, dtype=torch.float64)
        return low_discrepancy(offset, torch.arange(numbers.start, numbers.stop) - step * self.batch, self.batch)

    def _seeds(self, stream: int, numbers: range) -> list[int]:
        return [example_seed(self.seed, stream, number) for number in numbers]
