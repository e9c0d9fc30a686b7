"""The likelihoods of a trained model, for examples in the units of their data.

Images are weighed as 8-bit images: by the discrete decoder in the bound and in works, and by dequantization for the
flow and for K, which measure densities. Every example has random numbers of its own, a function of (seed, its
number), so that no answer depends on the batch or the process it is computed in, up to the rounding of the network,
except that of the flow by an adaptive solver, the default, which steps alike for all examples of a batch.

A model that was trained on the bound of a trajectory of few steps is the model of that trajectory, and is measured on
it unless told otherwise; any other is one of continuous time, for which finer steps are tighter and cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor

from diffusion import grids
from diffusion.data import DataSpec
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.likelihood import bound, flow, importance
from diffusion.likelihood.bound import Bound, Bound2015, Quantization
from diffusion.likelihood.flow import Dequantization, FlowLikelihood, Hutchinson, dequantize, diffuse
from diffusion.likelihood.importance import PathWeights
from diffusion.likelihood.ode import Solver
from diffusion.model.labels import Label, labels
from diffusion.randomness import ExampleNoise, Stream, example_seed
from diffusion.schedules import Schedule

STEPS, PATH_STEPS = 100_000, 256


@dataclass(frozen=True)
class Likelihood:
    """What `Model.likelihood` returns. Everything is in nats per example, (B,), float64.

    x: (B, C, H, W) uint8, or float in [0, 1], which is rounded to 8 bits; or points (B, D). `numbers` are those of the
    examples, 0, 1, ... by default, and `repeat` makes another, independent estimate. The denoiser runs in `dtype`.
    `trajectory` is the number of steps, even in time, that the model was trained for, 0 for any. `label` is one for all
    examples, by number or name, or one for each, -1 for an example without.

    Densities of continuous data are those of their standardized values, (x - mean)/std; that of x itself is lower by
    d log std.

    Raises InputError for another shape, values that are not finite, images out of range and labels that do not exist.
    """

    denoiser: AnyDenoiser
    spec: DataSpec
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    trajectory: int = 0

    @property
    def quantization(self) -> Quantization | None:
        """The values that 8-bit data take after encoding, None for continuous data."""
        if self.spec.levels is None:
            return None
        low, high = self.spec.encode(torch.tensor([0.0, self.spec.levels - 1.0])).tolist()
        return Quantization(self.spec.levels, low, high)

    def bound(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        draws: int | None = 64,
        continuous: bool = False,
        variance_interp: float = 0.0,
        seed: int = 0,
        repeat: int = 0,
        numbers: Sequence[int] | None = None,
        label: Label | None = None,
    ) -> Bound:
        """The trajectory bound on -log p(x) by terms (`bound.bound`), on so many steps (`times`)."""
        numbers = range(len(x)) if numbers is None else numbers
        return bound.bound(
            self.denoiser,
            self.encode(x),
            self.times(steps),
            quantization=self.quantization,
            draws=draws,
            continuous=continuous,
            variance_interp=variance_interp,
            label=self._labels(label, len(x)),
            randn=noise(seed, Stream.PATH, repeat, numbers),
            offset=places(seed, repeat, numbers),
        )

    def bound_2015(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        draws: int | None = 64,
        continuous: bool = False,
        variance_interp: float = 0.0,
        seed: int = 0,
        repeat: int = 0,
        numbers: Sequence[int] | None = None,
        label: Label | None = None,
    ) -> Bound2015:
        """K, the bound of 2015 on the log-density of the model's standardized values (`bound.bound_2015`);
        of images, after dequantization.
        """
        numbers = range(len(x)) if numbers is None else numbers
        return bound.bound_2015(
            self.denoiser,
            self.continuous(x, seed, repeat, numbers),
            self.times(steps),
            draws=draws,
            continuous=continuous,
            variance_interp=variance_interp,
            label=self._labels(label, len(x)),
            randn=noise(seed, Stream.PATH, repeat, numbers),
            offset=places(seed, repeat, numbers),
        )

    def flow(
        self,
        x: Tensor,
        *,
        probes: Hutchinson | None = None,
        solver: Solver | None = None,
        dequantization: Dequantization = "uniform",
        seed: int = 0,
        repeat: int = 0,
        numbers: Sequence[int] | None = None,
        label: Label | None = None,
    ) -> FlowLikelihood:
        """log p by the probability-flow ODE (`flow.log_likelihood`): of continuous data the density of their
        standardized values; of images a lower bound on the probability of the 8-bit image, on average over the
        dequantization that `repeat` draws, by "uniform" noise or that of the "noise" of the schedule's clean end, which
        a model that knows its levels needs.
        """
        numbers = range(len(x)) if numbers is None else numbers
        require(dequantization in get_args(Dequantization), "dequantization", "uniform or noise", repr(dequantization))
        nats: float | Tensor = self.log_volume
        if dequantization == "noise" and self.quantization is not None:
            randn = noise(seed, Stream.DEQUANTIZATION, repeat, numbers)
            values, nats = diffuse(self.encode(x), self.quantization, self.denoiser.schedule, randn)
            values = values.to(self.dtype)
        else:
            values = self.continuous(x, seed, repeat, numbers)
        return flow.log_likelihood(
            self.denoiser,
            values,
            probes=probes,
            solver=solver,
            label=self._labels(label, len(x)),
            randn=noise(seed, Stream.PATH, repeat, numbers),
        ).shifted(nats)

    def path_weights(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        paths: int = 16,
        variance_interp: float = 0.0,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        label: Label | None = None,
    ) -> PathWeights:
        """The importance weights of `paths` paths (`importance.path_weights`) on the grid `times(steps)`, 256 steps by
        default.
        """
        return importance.path_weights(
            self.denoiser,
            self.encode(x),
            self.times((self.trajectory or PATH_STEPS) if steps is None else steps),
            paths=paths,
            quantization=self.quantization,
            variance_interp=variance_interp,
            label=self._labels(label, len(x)),
            randn=noise(seed, Stream.PATH, 0, range(len(x)) if numbers is None else numbers),
        )

    @property
    def log_volume(self) -> float:
        """What turns a log-density of the model's values into nats per example: d log spacing for quantized data, the
        log-probability of a level; 0 for continuous data, whose density is that of the standardized values.
        """
        quantization = self.quantization
        return 0.0 if quantization is None else self.spec.dim * math.log(quantization.spacing)

    def times(self, steps: int | None = None) -> Tensor:
        """The model's own trajectory, if it has one and no other number of steps is asked for; else `steps` even steps
        of log-SNR over the whole schedule, 100,000 by default: (steps + 1,).
        """
        schedule = self.denoiser.schedule
        if self.trajectory and steps in (None, self.trajectory):
            return grids.UniformTime()(schedule, self.trajectory)
        return even_times(schedule, STEPS if steps is None else steps)

    def encode(self, x: Tensor) -> Tensor:
        """Examples as the model's values, (B, *) in `dtype` on its device."""
        if x.shape[1:] != self.spec.shape or len(x) == 0:
            raise InputError(f"x: must be (B, {str(self.spec.shape)[1:-1]}) of the data, got {tuple(x.shape)}")
        bound.finite(x)
        if self.spec.levels is None:
            return ((x - self.spec.mean) / self.spec.std).to(self.device, self.dtype)
        rule = "x: must lie in [0, 1], or be uint8"
        if x.dtype == torch.bool:
            raise InputError(f"{rule}, got bool")
        # In float64, as some integers know no order.
        exact, top = x.double(), 1 if x.is_floating_point() else self.spec.top
        if not 0 <= float(exact.min()) <= float(exact.max()) <= top:
            number = int(((exact < 0) | (exact > top)).flatten(1).any(1).nonzero()[0])
            worst = exact[number].flatten()[(exact[number].flatten() - top / 2).abs().argmax()]
            raise InputError(f"{rule}, got {float(worst):g} in example {number}")
        values = self.spec.quantize(x) if x.is_floating_point() else x
        return self.spec.encode(values).to(self.device, self.dtype)

    def continuous(self, x: Tensor, seed: int, repeat: int, numbers: Sequence[int]) -> Tensor:
        """`encode`, with uniform noise of one level's width for quantized data."""
        values, quantization = self.encode(x), self.quantization
        if quantization is None:
            return values
        randn = noise(seed, Stream.DEQUANTIZATION, repeat, numbers)
        return dequantize(values, quantization, randn).to(self.dtype)

    def _labels(self, label: Label | None, n: int) -> Tensor | None:
        return labels(label, n, self.spec.classes, self.device, unlabeled=True)


@lru_cache(maxsize=8)
def even_times(schedule: Schedule, steps: int) -> Tensor:
    """`steps` even steps of log-SNR, kept because inverting a schedule may cost more than a batch: (steps + 1,)."""
    return grids.UniformLogSNR()(schedule, steps)


def noise(seed: int, stream: int, repeat: int, numbers: Sequence[int]) -> ExampleNoise:
    """The normal numbers of examples, of one stream."""
    return ExampleNoise([example_seed(seed, stream, repeat, number) for number in numbers])


def places(seed: int, repeat: int, numbers: Sequence[int]) -> Tensor:
    """Uniform in [0, 1), one for each example: (B,) float64."""
    return torch.tensor(
        [example_seed(seed, Stream.PLACE, repeat, number) / 2**63 for number in numbers], dtype=torch.float64
    )
