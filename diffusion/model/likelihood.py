"""The likelihoods of a trained model, for examples in the units of their data.

Images are measured as 8-bit images: by the discrete decoder in the bound and in the importance weights, and by
dequantization for the flow and for K, which measure densities. Every example has its own random numbers, a function of
the seed and the number of the example. So no result depends on the batch or the process in which it is computed, up to
the rounding of the network. The exception is the flow with an adaptive solver, the default, which takes the same steps
for all examples of a batch.

The network runs in float32 without the shortcuts that GPUs take in it (`precision.exact_float32`), or in float64.

A model that was trained on the bound of a trajectory of few steps is the model of that trajectory, and is measured on
it by default. Any other is a model of continuous time, for which a finer trajectory is tighter at no further cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor

from diffusion import grids, guidance
from diffusion.data import DataSpec
from diffusion.data.images.decoding import WHITE, Color
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.likelihood import bound, flow, importance
from diffusion.likelihood.bound import Bound, Bound2015, Quantization
from diffusion.likelihood.flow import Dequantization, FlowLikelihood, Hutchinson, dequantize, diffuse
from diffusion.likelihood.importance import PathWeights
from diffusion.likelihood.ode import Solver
from diffusion.model.accept import Border
from diffusion.model.conversion import Given, Labels, Several, pixels, plain_label
from diffusion.precision import exact_float32
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.schedules import Schedule

STEPS, PATH_STEPS = 100_000, 256


@dataclass(frozen=True)
class Likelihood:
    """The likelihoods of a model, as `Model.likelihood` returns them: in nats per example, (B,) float64.

    Examples x are (B, C, H, W), uint8 or float in [0, 1], which is rounded to 8 bits; or points (B, D); or whatever
    else people hold of them (`Border.batch`), with the `background` behind what is transparent. `numbers` are the
    numbers of the examples, by default 0, 1, ..., and another `repeat` makes another, independent estimate. `label`
    is one for all examples, a number or a name, or one for each, -1 for an example without a label. The denoiser runs
    in `dtype`. `trajectory` is the number of steps, uniform in time, that the model was trained on, 0 for a model of
    continuous time.

    The density of continuous data is that of their standardized values, (x - mean)/std; the log-density of x itself is
    lower by d log std.

    The bound may be given what is `known` of the examples, or what has been `seen` of them (`conversion.pixels`), if
    the denoiser is `mapped`: if it takes a noise level for every pixel.

    Raises InputError for another shape, values that are not finite, images out of range and labels that do not exist.
    """

    denoiser: AnyDenoiser
    spec: DataSpec
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    trajectory: int = 0
    background: Color = WHITE
    mapped: bool = False

    @property
    def quantization(self) -> Quantization | None:
        """The values of the gray levels after encoding, None for continuous data."""
        if self.spec.levels is None:
            return None
        low, high = self.spec.encode(torch.tensor([0.0, self.spec.levels - 1.0])).tolist()
        return Quantization(self.spec.levels, low, high)

    def told(self, channels: Tensor | None) -> Likelihood:
        """These likelihoods with the network told the channels (B, K, *) of B examples (`guidance.informed`)."""
        return self if channels is None else replace(self, denoiser=guidance.informed(self.denoiser, channels))

    def first(self, n: int) -> Likelihood:
        """These likelihoods for the first n of the examples that the network is told of, if it is."""
        channels = guidance.told(self.denoiser)
        return self if channels is None or len(channels) == 1 else self.told(channels[:n])

    @exact_float32()
    def bound(
        self,
        x: Several,
        *,
        steps: int | None = None,
        draws: int | None = 64,
        continuous: bool = False,
        variance_interp: float = 0.0,
        seed: int = 0,
        repeat: int = 0,
        numbers: Sequence[int] | None = None,
        label: Labels | None = None,
        known: Given | None = None,
        seen: Given | None = None,
    ) -> Bound:
        """The trajectory bound on -log p(x) by terms (`bound.bound`), on the grid `times(steps)`.

        With `known` it is that on -log p(hidden | known), and with `seen` that of what has been seen.
        """
        values = self.encode(x)
        numbers = range(len(values)) if numbers is None else numbers
        return bound.bound(
            self.denoiser,
            values,
            self.times(steps),
            quantization=self.quantization,
            draws=draws,
            continuous=continuous,
            variance_interp=variance_interp,
            label=self._labels(label, len(values)),
            randn=example_noise(seed, Stream.PATH, repeat, numbers),
            offset=step_offsets(seed, repeat, numbers),
            known=self.pixels(known, len(values), "known"),
            seen=self.pixels(seen, len(values), "seen"),
        )

    @exact_float32()
    def bound_2015(
        self,
        x: Several,
        *,
        steps: int | None = None,
        draws: int | None = 64,
        continuous: bool = False,
        variance_interp: float = 0.0,
        seed: int = 0,
        repeat: int = 0,
        numbers: Sequence[int] | None = None,
        label: Labels | None = None,
    ) -> Bound2015:
        """K, the bound of 2015 on the log-density of the standardized values (`bound.bound_2015`).

        Images are dequantized.
        """
        encoded = self.encode(x)
        numbers = range(len(encoded)) if numbers is None else numbers
        values = self.dequantized(encoded, seed, repeat, numbers)
        return bound.bound_2015(
            self.denoiser,
            values,
            self.times(steps),
            draws=draws,
            continuous=continuous,
            variance_interp=variance_interp,
            label=self._labels(label, len(values)),
            randn=example_noise(seed, Stream.PATH, repeat, numbers),
            offset=step_offsets(seed, repeat, numbers),
        )

    @exact_float32()
    def flow(
        self,
        x: Several,
        *,
        probes: Hutchinson | None = None,
        solver: Solver | None = None,
        dequantization: Dequantization = "uniform",
        seed: int = 0,
        repeat: int = 0,
        numbers: Sequence[int] | None = None,
        label: Labels | None = None,
    ) -> FlowLikelihood:
        """log p by the probability-flow ODE (`flow.log_likelihood`).

        For continuous data it is the log-density of their standardized values. For images it is a lower bound on the
        log-probability of the 8-bit image, on average over the dequantization, which `repeat` draws. `dequantization`
        is by "uniform" noise, or by the "noise" of the schedule's clean end, which a model that has learned the gray
        levels needs.
        """
        encoded = self.encode(x)
        numbers = range(len(encoded)) if numbers is None else numbers
        require(dequantization in get_args(Dequantization), "dequantization", "uniform or noise", repr(dequantization))
        nats: float | Tensor = self.log_volume
        if dequantization == "noise" and self.quantization is not None:
            randn = example_noise(seed, Stream.DEQUANTIZATION, repeat, numbers)
            values, nats = diffuse(encoded, self.quantization, self.denoiser.schedule, randn)
            values = values.to(self.dtype)
        else:
            values = self.dequantized(encoded, seed, repeat, numbers)
        return flow.log_likelihood(
            self.denoiser,
            values,
            probes=probes,
            solver=solver,
            label=self._labels(label, len(values)),
            randn=example_noise(seed, Stream.PATH, repeat, numbers),
        ).shifted(nats)

    @exact_float32()
    def path_weights(
        self,
        x: Several,
        *,
        steps: int | None = None,
        paths: int = 16,
        variance_interp: float = 0.0,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        label: Labels | None = None,
    ) -> PathWeights:
        """The importance weights of `paths` paths (`importance.path_weights`) on the grid `times(steps)`, 256 steps by
        default.
        """
        values = self.encode(x)
        return importance.path_weights(
            self.denoiser,
            values,
            self.times((self.trajectory or PATH_STEPS) if steps is None else steps),
            paths=paths,
            quantization=self.quantization,
            variance_interp=variance_interp,
            label=self._labels(label, len(values)),
            randn=example_noise(seed, Stream.PATH, 0, range(len(values)) if numbers is None else numbers),
        )

    @property
    def log_volume(self) -> float:
        """The log of the volume by which a density of the model's values is multiplied, in nats per example.

        It is d log spacing for quantized data, which makes a log-probability of gray levels. For continuous data it is
        0, as their density is that of the standardized values.
        """
        quantization = self.quantization
        return 0.0 if quantization is None else self.spec.dim * math.log(quantization.spacing)

    def times(self, steps: int | None = None) -> Tensor:
        """The timestep grid of a number of steps: (steps + 1,).

        It is the model's own trajectory, if it has one and `steps` is None or its number of steps. Otherwise it has
        `steps` steps, 100,000 by default, uniform in log-SNR over the whole schedule.
        """
        schedule = self.denoiser.schedule
        if self.trajectory and steps in (None, self.trajectory):
            return grids.UniformTime()(schedule, self.trajectory)
        return even_times(schedule, STEPS if steps is None else steps)

    def encode(self, x: Several) -> Tensor:
        """Encodes examples as the model's values, (B, *) in `dtype` on its device."""
        given = Border(self.spec, self.background).batch(x)
        if self.spec.levels is None:
            return ((given - self.spec.mean) / self.spec.std).to(self.device, self.dtype)
        values = self.spec.quantize(given) if given.is_floating_point() else given
        return self.spec.encode(values).to(self.device, self.dtype)

    def pixels(self, value: Given | None, n: int, name: str) -> Tensor | None:
        """A mask of n examples on the device, (n or 1, 1, *). Raises InputError for a denoiser that takes no map."""
        if value is None:
            return None
        if not self.mapped:
            raise InputError(
                f"{name}: must be left out with this model, which takes one noise level for all pixels; train one that "
                "learns from what is known of an example (observed.share)"
            )
        return pixels(value, n, self.spec.shape, name).to(self.device)

    def continuous(self, x: Several, seed: int, repeat: int, numbers: Sequence[int]) -> Tensor:
        """Encodes examples, and adds uniform noise as wide as one gray level to quantized data."""
        return self.dequantized(self.encode(x), seed, repeat, numbers)

    def dequantized(self, values: Tensor, seed: int, repeat: int, numbers: Sequence[int]) -> Tensor:
        """Adds uniform noise as wide as one gray level to values (B, *) of quantized data; returns others unchanged."""
        quantization = self.quantization
        if quantization is None:
            return values
        randn = example_noise(seed, Stream.DEQUANTIZATION, repeat, numbers)
        return dequantize(values, quantization, randn).to(self.dtype)

    def _labels(self, label: Labels | None, n: int) -> Tensor | None:
        return self.spec.label_numbers(plain_label(label), n, unlabeled=True, device=self.device)


@lru_cache(maxsize=8)
def even_times(schedule: Schedule, steps: int) -> Tensor:
    """A grid of `steps` steps, uniform in log-SNR: (steps + 1,).

    It is cached because inverting a schedule may take longer than a batch.
    """
    return grids.UniformLogSNR()(schedule, steps)


def example_noise(seed: int, stream: int, repeat: int, numbers: Sequence[int]) -> ExampleNoise:
    """The source of normal noise for examples, from one random stream."""
    return ExampleNoise([example_seed(seed, stream, repeat, number) for number in numbers])


def step_offsets(seed: int, repeat: int, numbers: Sequence[int]) -> Tensor:
    """Draws a number uniform in [0, 1) for each example, the offset of its steps: (B,) float64."""
    return torch.tensor(
        [example_seed(seed, Stream.OFFSET, repeat, number) / 2**63 for number in numbers], dtype=torch.float64
    )
