"""What a network is told of an example beside x_t: an observation of it, in channels (Saharia et al. 2022,
arXiv 2111.05826, section 3).

    channels = (A⁺ y, the place of each ranged option, the place of the noise, 1),    y = A(x) + N(0, σ_y²)

in the units of the model, or zeros for the share of the examples that is told nothing. A network that is trained so
estimates E[x | x_t, y] with the channels and E[x | x_t] without them: restoring with A is plain sampling. A⁺ y has the
shape of the image (`families.brought_back`), places are maps from -1 to 1 from the low to the high end of a range, and
the last channel says that something was told.

The observation may be an image that the data have, as the sketch of a photograph. Then there are its own channels and
the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.errors import InputError, require
from diffusion.families import VALUES, Family, Shape, brought_back, observation, steps
from diffusion.operators import standardized
from diffusion.restoration.problem import Problem
from diffusion.transfers import to_device

# Noise may be farther from what was learned by that of rounding to 8 bits, which all files have, and a little more.
ROUNDING = 0.002


@dataclass(frozen=True)
class Condition:
    """What a network learns to restore, beside what it learns without being told anything.

    `operator` is what damages the images, as for restoring them: blur:sigma=2, or several joined by +. An option may be
    a range, as in blur:sigma=1..3, from which each example takes one of 33 evenly spaced values.
    `noise` is the standard deviation of the noise on what the operator makes, in units of [0, 1], or a pair between
    which that of each example lies.
    `dropout` is the share of the examples that are told nothing, so that the network also samples by itself. It counts
    for pairs (data.condition) too.

    Raises InputError for an operator that is not understood, and for an option that is out of its range.
    """

    operator: str = ""
    noise: float | tuple[float, float] = 0.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require(0 < self.dropout < 1, "dropout", "between 0 and 1", self.dropout)
        low, high = self.noises
        pair = not isinstance(self.noise, tuple) or low < high
        require(low >= 0 and pair and high < math.inf, "noise", "a number from 0, or an increasing pair", self.noise)
        if not self.operator:
            require(self.noise == 0, "noise", "0 without condition.operator", self.noise)
            return
        try:
            assert self.family
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith("operator") else f"operator: {text}") from None

    @cached_property
    def family(self) -> Family:
        """The operators that are learned."""
        return Family.parse(self.operator)

    @property
    def noises(self) -> tuple[float, float]:
        """The least and the greatest standard deviation of the noise."""
        return self.noise if isinstance(self.noise, tuple) else (self.noise, self.noise)

    @property
    def ranged_noise(self) -> bool:
        """Whether the noise is drawn from a range."""
        return isinstance(self.noise, tuple)

    @property
    def draws(self) -> int:
        """The number of uniform numbers that an example takes: one for each range, and one for what is told."""
        return len(self.family.spans) + self.ranged_noise + 1 if self.operator else 1

    def channels(self, observed: int) -> int:
        """K, the number of channels that a network receives of an observation of so many channels."""
        return observed + self.draws

    def values(self, shape: Shape) -> int:
        """The most values that an observation of an example of a shape (C, *) has, if it has noise; else 0."""
        if not self.operator or not self.noises[1]:
            return 0
        return max(math.prod(steps(parts, shape)[-1][1]) for parts in self.family.ends)

    def told(self, u: Tensor) -> Tensor:
        """Which examples are told something, bool (B,), by the last of their uniform numbers u (B, draws)."""
        return u[:, -1] >= self.dropout

    def __call__(self, x: Tensor, u: Tensor, noise: Tensor | None, mean: float, std: float) -> Tensor:
        """Returns the channels (B, K, *) of examples x (B, C, *), where mean + std x are those in units of [0, 1].

        Uniform numbers u (B, draws) on the CPU choose the options, the noise and who is told. `noise` (B, values) is
        standard normal, None without noise. Examples of the same options are observed together.
        """
        sigmas, groups = self._noise_at(u), self._groups(u)
        strengths = to_device((sigmas / std).to(x.dtype), x.device)
        found, places = torch.empty_like(x), u.new_empty(len(u), len(self.family.spans))
        for chosen, numbers in groups.items():
            rows = to_device(torch.tensor(numbers), x.device)
            parts = self.family.at(chosen)
            y = standardized(observation(parts), mean, std)(x[rows])
            if noise is not None:
                drawn = noise[rows, : y[0].numel()].reshape(y.shape)
                y = y + strengths[rows].reshape(-1, *[1] * (y.ndim - 1)) * drawn
            found[rows] = brought_back(parts, y, tuple(x.shape[1:]))
            places[numbers] = places.new_tensor(self.family.places(observation(parts)))
        return _joined(found, torch.cat([places, self._noise_places(sigmas)], 1), self.told(u))

    def paired(self, observed: Tensor, u: Tensor) -> Tensor:
        """Returns the channels (B, K, *) of observations (B, C, *) that the data have, in the units of the model, for
        uniform numbers u (B, draws) on the CPU.
        """
        return _joined(observed, u.new_empty(len(u), 0), self.told(u))

    def of(self, problem: Problem, std: float) -> Tensor:
        """Returns the channels (1, K, *) of the observation of a problem in the units of the model, std x + mean in
        units of [0, 1].

        Raises InputError, which says what differs, for another operator or noise than the network learned.
        """
        places = self.family.places(problem.stated or problem.operator)
        require(isinstance(problem.noise, (int, float)), "noise", "a number, as this network learned", "a map")
        low, high = self.noises
        sigma = float(problem.noise) * std
        rule = f"{low:g}" if low == high else f"in [{low:g}, {high:g}]"
        inside = low - ROUNDING <= sigma <= high + ROUNDING
        require(inside, "noise", f"{rule}, which this network learned", f"{sigma:.4g}")
        level = self._noise_places(torch.tensor([min(high, max(low, sigma))], dtype=torch.float64))
        y = brought_back(self.family.at(places), problem.y, problem.x_shape)
        ends = torch.cat([level.new_tensor([places]), level], 1)
        return _joined(y, ends, torch.ones(1, dtype=torch.bool))

    def _groups(self, u: Tensor) -> dict[tuple[float, ...], list[int]]:
        """The numbers of the examples by the places of their options, for uniform numbers u (B, draws)."""
        groups: dict[tuple[float, ...], list[int]] = {}
        chosen = (u[:, : len(self.family.spans)] * VALUES).floor() / (VALUES - 1)
        for number, places in enumerate(chosen.tolist()):
            groups.setdefault(tuple(places), []).append(number)
        return groups

    def _noise_at(self, u: Tensor) -> Tensor:
        """The standard deviations of the noise (B,) for uniform numbers u (B, draws)."""
        low, high = self.noises
        share = u[:, len(self.family.spans)] if self.ranged_noise else torch.zeros_like(u[:, 0])
        return low + share * (high - low)

    def _noise_places(self, sigmas: Tensor) -> Tensor:
        """The places of standard deviations (B,) in their range, (B, 1); (B, 0) where there is but one."""
        low, high = self.noises
        return ((sigmas - low) / (high - low))[:, None] if self.ranged_noise else sigmas.new_empty(len(sigmas), 0)


def _joined(observed: Tensor, places: Tensor, told: Tensor) -> Tensor:
    """Returns the channels (B, K, *): the observation (B, C, *), places (B, P) as maps from -1 to 1, and ones; zeros
    for the examples that are not told, bool (B,).
    """
    levels = torch.cat([2 * places - 1, places.new_ones(len(places), 1)], 1)
    levels = torch.where(told[:, None], levels, 0.0).to(observed.dtype)
    maps = to_device(levels, observed.device).reshape(*levels.shape, *[1] * (observed.ndim - 2))
    shown = torch.where(maps[:, -1:] == 1, observed, 0.0)
    return torch.cat([shown, maps.expand(*levels.shape, *observed.shape[2:])], 1)
