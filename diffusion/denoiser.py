"""From a network F to a denoiser x̂(x_t, t) = E[x | x_t] = c_skip x_t + c_out F(c_in x_t, λ_t).

A parameterization is three coefficients of (α_t, σ_t), after Karras et al. (2022, arXiv 2206.00364, eq. 7), extended
from their variance-exploding process to any (α, σ). The target of the network is F = (x - c_skip x_t) / c_out:

    eps   ε = (x_t - α x) / σ                                Ho et al. 2020, arXiv 2006.11239
    x0    x
    v     (α ε - σ x) / √(α² + σ²)                           Salimans and Ho 2022, arXiv 2202.00512
    edm   (σ x - α σ_d² ε) / (σ_d √(α² σ_d² + σ²))           Karras et al. 2022; σ_d is the root mean square of the data
    flow  ε - x                                              Lipman et al. 2023, arXiv 2210.02747

The network is conditioned on λ_t alone, so the schedule may be replaced after training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diffusion import levels
from diffusion.errors import require
from diffusion.schedules import Schedule, VariancePreserving, expand, expand_all, rows
from diffusion.transfers import to_device


class Prediction(NamedTuple):
    """The output of a denoiser for x_t.

    `mean` is E[x|x_t], (B, C, *). `variance_interp` interpolates between the two fixed reverse variances
    (`gaussian.reverse`), (B, C, *) in [0, 1], or is None when the variance is not learned. That of an imported model is
    not kept from lying beyond.
    """

    mean: Tensor
    variance_interp: Tensor | None = None


class AnyDenoiser(Protocol):
    """An estimator of E[x|x_t]: a trained network, a guided or conditioned one, or an exact oracle."""

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that `t` refers to."""

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x|x_t]. x_t: (B, C, *); t: () or (B,), or a map of times (`levels`) if the denoiser takes one;
        label: (B,) int64, -1 for none.
        """


@dataclass(frozen=True)
class Rescaled:
    """A denoiser in variance-preserving units: it takes x_t/√(α_t² + σ_t²), and its schedule has the same log-SNR."""

    denoiser: AnyDenoiser

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser, in units where α² + σ² = 1."""
        return VariancePreserving(self.denoiser.schedule)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x|x_t]. x_t: (B, C, *), in these units; t: () or (B,) or a map; label: (B,)."""
        alpha, sigma = self.denoiser.schedule(levels.seen(levels.widened(t)))
        return self.denoiser(expand((alpha.square() + sigma.square()).sqrt(), x_t) * x_t, t, label)


class Scalings(NamedTuple):
    """The coefficients c_in, c_skip and c_out, with the shape of α and σ."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor


class Parameterization(ABC):
    """The map from (α, σ) to the three coefficients that turn the output of a network into E[x|x_t]."""

    @abstractmethod
    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """Returns c_in, c_skip and c_out for alpha and sigma (*)."""


@dataclass(frozen=True)
class Eps(Parameterization):
    """The network predicts the noise: x̂ = (x_t - σ F) / α."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """c_skip = 1/α, c_out = -σ/α."""
        return Scalings(input_scale(alpha, sigma), 1 / alpha, -sigma / alpha)


@dataclass(frozen=True)
class X0(Parameterization):
    """The network predicts the clean example: x̂ = F."""

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """c_skip = 0, c_out = 1."""
        return Scalings(input_scale(alpha, sigma), torch.zeros_like(alpha), torch.ones_like(alpha))


@dataclass(frozen=True)
class V(Parameterization):
    """The network predicts v = (α ε - σ x)/√(α² + σ²).

    This is the paper's v where α² + σ² = 1, and depends on the schedule through the log-SNR alone.
    """

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """c_skip = α/(α² + σ²), c_out = -σ/√(α² + σ²)."""
        c_in = input_scale(alpha, sigma)
        return Scalings(c_in, alpha * c_in.square(), -sigma * c_in)


@dataclass(frozen=True)
class EDMPrecond(Parameterization):
    """The network sees an input and learns a target of unit variance, for data of root mean square `sigma_data`
    (Karras et al. 2022, table 1, appendix B.6).
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data", "a positive number", self.sigma_data)

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """With S = α² σ_data² + σ²: c_in = 1/√S, c_skip = α σ_data²/S, c_out = σ σ_data/√S."""
        total = (alpha * self.sigma_data).square() + sigma.square()
        return Scalings(total.rsqrt(), alpha * self.sigma_data**2 / total, sigma * self.sigma_data * total.rsqrt())


@dataclass(frozen=True)
class Velocity(Parameterization):
    """The network predicts ε - x, the velocity of the straight path from data to noise (Lipman et al. 2023, eq. 23; Liu
    et al. 2023, arXiv 2209.03003, eq. 1).

    It sees the point of that path, where α + σ = 1, whose variance is not 1.
    """

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """c_in = c_skip = 1/(α + σ), c_out = -σ/(α + σ)."""
        scale = 1 / (alpha + sigma)
        return Scalings(scale, scale, -sigma * scale)


def input_scale(alpha: Tensor, sigma: Tensor) -> Tensor:
    """c_in = 1/√(α² + σ²): data of unit variance give an input of unit variance. It is 1 where α² + σ² = 1."""
    return (alpha.square() + sigma.square()).rsqrt()


class Network(Protocol):
    """The signature of a backbone."""

    def __call__(
        self,
        x: Tensor,
        log_snr: Tensor,
        label: Tensor | None = None,
        log_snr_map: Tensor | None = None,
        condition: Tensor | None = None,
        /,
    ) -> Tensor:
        """Returns F, (B, C or 2C, *), for x (B, C, *), log_snr (B,) and label (B,), and for networks that take them a
        log-SNR for every pixel, (B, 1, *), and channels of a condition, (B, K, *).
        """


@dataclass(frozen=True)
class Denoiser:
    """A backbone, a schedule and a parameterization. It owns no parameters, so the backbone may be wrapped, compiled
    or averaged freely.

    Times may be a map with one for every pixel (`levels`), where the backbone takes one. `condition` (B, K, *) are
    channels that the backbone receives beside x_t, where it was built for them; (1, K, *) are those of every example,
    and those of B examples are those of their copies too, as guidance makes them.

    The outputs v for the variance, where the backbone has them, stand for `variance_interp` = sigmoid(v), or with
    `linear_variance` for (v + 1)/2 (Nichol and Dhariwal 2021, arXiv 2102.09672, in their code).
    """

    backbone: Network
    schedule: Schedule
    parameterization: Parameterization
    condition: Tensor | None = None
    linear_variance: bool = False

    def network(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Evaluates the network: F (B, C, *), and `variance_interp` (B, C, *) if it has 2C channels, else None. x_t:
        (B, C, *); t: () or (B,) or a map; label: (B,) int64, -1 for none.
        """
        times = levels.seen(levels.widened(t))
        c_in = self.parameterization(*self.schedule(times)).c_in
        log_snr = rows(self.schedule.log_snr(levels.widened(levels.of_trajectory(t, x_t))), x_t)
        # The network may run in a lower precision; the algebra around it stays in the dtype of x_t.
        shown = levels.shown(expand(c_in, x_t) * x_t, t)
        output = self.backbone(shown, log_snr, label, *self._beside(x_t, times)).to(x_t.dtype)
        channels = x_t.shape[1]
        if output.shape[1] == channels:
            return output, None
        v = output[:, channels:]
        return output[:, :channels], (v + 1) / 2 if self.linear_variance else torch.sigmoid(v)

    def _beside(self, x_t: Tensor, times: Tensor) -> tuple[Tensor | None, ...]:
        """What the backbone receives beside x_t, log-SNR and label: a map and a condition, or nothing."""
        beside = self.schedule.log_snr(times) if levels.is_map(times, x_t) else None, self.condition
        if beside == (None, None):
            return ()
        moved = (None if part is None else to_device(part.to(x_t.dtype), x_t.device) for part in beside)
        return tuple(None if part is None else _for_rows(part, len(x_t)) for part in moved)

    def combine(self, network: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂ = c_skip x_t + c_out F, with F = `network` (B, C, *): (B, C, *). t: () or (B,) or a map."""
        times = levels.seen(levels.widened(t))
        _, c_skip, c_out = expand_all(self.parameterization(*self.schedule(times)), x_t)
        return c_skip * x_t + c_out * network

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Estimates E[x|x_t]. x_t: (B, C, *); t: () or (B,) or a map; label: (B,) int64, -1 for none."""
        network, variance_interp = self.network(x_t, t, label)
        return Prediction(self.combine(network, x_t, t), variance_interp)


def _for_rows(part: Tensor, count: int) -> Tensor:
    """A part (1 or B, *) for `count` examples, a multiple of B: all of them once, then again."""
    if len(part) in (1, count):
        return part.expand(count, *part.shape[1:])
    return part.repeat(count // len(part), *[1] * (part.ndim - 1))


PARAMETERIZATIONS: dict[str, type[Parameterization]] = {
    "eps": Eps,
    "x0": X0,
    "v": V,
    "edm": EDMPrecond,
    "flow": Velocity,
}
