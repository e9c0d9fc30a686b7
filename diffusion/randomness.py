"""Randomness as a function of (seed, stream, number), never of what ran before.

Every example owns a generator, seeded by a hash of the run's seed, the stream and the example's number. Noise is
therefore the same at any batch size, number of processes and point of resumption. It is drawn on the CPU, so that it is
also the same on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from diffusion.threads import cores, spread
from diffusion.transfers import host_memory, to_device

# The most threads that draw noise, and the values, about a millisecond of drawing, for which another one is started.
MAX_THREADS = 4
VALUES_PER_THREAD = 2**16


class Stream:
    """The numbers of all random streams of the package.

    Streams of one group differ in their numbers. Two of different groups may share one. They do not meet, even where
    training, sampling and likelihood have the same seed:

    - A likelihood hashes (seed, stream, repeat, number), the others (seed, stream, number).
    - ORDER, and NOISE for examples of few values, are hashed without a number, as keys of further hashes.
    - Training takes the hashes of NOISE_LEVEL and LABEL themselves for uniform numbers; a hash of GRID seeds a
      generator of normal numbers.
    - The data hash `data.seed` and the contents or numbers of examples, without a stream, and never as such keys.

    Dropout has no stream: `training/gradient.py` seeds torch's global generator by (seed, step, process), so steps 0 to
    7 stand where the others have a stream. In step 2, for example, process r drops units by the generator that made the
    noise of example r, which belongs to step 0. The two draws are of different distributions (Bernoulli and normal) and
    never enter the same evaluation of the network.
    """

    # Training, under `training.seed`.
    ORDER: Final = 0
    """The order of the examples."""
    AUGMENT: Final = 1
    """Crop and flip of an example."""
    NOISE: Final = 2
    """The noise of an example."""
    NOISE_LEVEL: Final = 3
    """The uniform number that is mapped to a log-SNR, one for an example or, with low discrepancy, one for a step."""
    LABEL: Final = 4
    """Whether the label of an example is hidden."""
    OBSERVED: Final = 5
    """What is observed of an example."""
    CONDITION: Final = 6
    """The options of the operator that an example is seen through, and whether the network is told."""
    CONDITION_NOISE: Final = 7
    """The noise on what is seen of an example."""

    # Sampling and restoration, under the seed that they are called with.
    SAMPLE: Final = 0
    """The initial noise and the noise of the sampler's steps."""
    GRID: Final = 3
    """The paths on which a timestep grid is measured."""
    DAMAGE: Final = 5
    """The noise that is added to an image before it is restored."""
    SHARED: Final = 6
    """The noise that is added, under the seed 0, to the channels of a pixel that were seen in less than others."""
    HOLES: Final = 7
    """The image through whose holes a sample is drawn."""

    # Likelihood, under the seed that it is called with; every stream has a number of the repeat too.
    PATH: Final = 1
    """The noise of forward paths, and the probes of the divergence along the flow."""
    OFFSET: Final = 2
    """The uniform offset of the steps of the bound that are drawn."""
    DEQUANTIZATION: Final = 4
    """The noise that makes quantized values continuous."""


def example_seed(seed: int, *numbers: int) -> int:
    """Returns a 63-bit seed, stable across versions and machines, for the stream that `numbers` name within `seed`."""
    text = ",".join(map(str, (seed, *numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def drawing_threads(device: torch.device) -> int:
    """Returns the number of threads that draw noise for a device.

    On a CPU it is 1, since the other cores compute. An accelerator would wait for one thread: it takes as long to draw
    the noise of a batch as a GPU takes to train on it.
    """
    return 1 if device.type == "cpu" else min(MAX_THREADS, cores())


class ExampleNoise:
    """Standard normal noise with one generator per example: a drop-in for `torch.randn_like`.

    Called with x of shape (B, *), it returns noise of that shape, dtype and device. Row i comes from the i-th seed
    alone, and successive calls continue its stream. Values are drawn in float32 unless x is float64.

    Raises ValueError when x has another number of rows than there are seeds.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Returns noise like x (B, *)."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        rows = self.fill(host_memory(x.shape, dtype, x.device), drawing_threads(x.device))
        return to_device(rows, x.device).to(x.dtype)

    def fill(self, rows: Tensor, threads: int = 1) -> Tensor:
        """Fills rows (B, *) on the CPU, contiguous and of floats, with noise; returns them.

        The examples are spread over at most `threads` threads. Each has its own generator, so the noise is the same for
        any number of them.
        """
        if len(rows) != len(self.generators):
            raise ValueError(f"noise: {len(self.generators)} seeds were given for a batch of {len(rows)} examples")
        mode = torch.is_inference_mode_enabled()

        def draw(numbers: range) -> None:
            # Generators draw one number after the other in the thread that calls, outside of torch's team of compute
            # threads. So threads that draw start no teams, which would fight for the cores.
            with torch.inference_mode(mode):
                for i in numbers:
                    rows[i].normal_(generator=self.generators[i])

        spread(draw, len(rows), min(threads, -(-rows.numel() // VALUES_PER_THREAD)))
        return rows
