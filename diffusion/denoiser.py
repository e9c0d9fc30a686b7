"""From a network F to a denoiser x̂(x_t, t) = E[x | x_t] = c_skip x_t + c_out F(c_in x_t, λ_t).

A parameterization is three coefficients of (α_t, σ_t), after Karras et al. (2022, arXiv 2206.00364, eq. 7), carried
over from their variance-exploding process to any (α, σ). What the network learns, its target, is (x - c_skip x_t) /
c_out:

    eps   (x_t - α x) / σ                                  Ho et al. 2020, arXiv 2006.11239
    x0    x
    v     (α ε - σ x) / √(α² + σ²)                         Salimans and Ho 2022, arXiv 2202.00512
    edm   as near to unit variance as σ_data allows        Karras et al. 2022

The network is conditioned on λ_t alone, so the schedule may be replaced after training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diffusion.errors import require
from diffusion.schedules import Schedule, VariancePreserving, expand


class Prediction(NamedTuple):
    """What a denoiser knows about x given x_t.

    `mean` is E[x|x_t], (B, C, *). `variance_interp` is where between its two fixed values the reverse variance lies,
    (B, C, *) in [0, 1], or None when the variance is not learned (`process.reverse`).
    """

    mean: Tensor
    variance_interp: Tensor | None = None


class AnyDenoiser(Protocol):
    """Whatever estimates E[x|x_t]: a trained network, a guided or conditioned one, an exact oracle."""

    @property
    def schedule(self) -> Schedule:
        """The noise schedule that `t` refers to."""

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """x_t: (B, C, *); t: () or (B,); label: (B,) int64, -1 for none."""


@dataclass(frozen=True)
class Rescaled:
    """A denoiser of x_t/√(α_t² + σ_t²): the same one on the variance-preserving schedule of the same log-SNR."""

    denoiser: AnyDenoiser

    @property
    def schedule(self) -> Schedule:
        """That of the denoiser, in units where α² + σ² = 1."""
        return VariancePreserving(self.denoiser.schedule)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """x_t: (B, C, *); t: () or (B,); label: (B,)."""
        alpha, sigma = self.denoiser.schedule(t.double())
        return self.denoiser(expand((alpha.square() + sigma.square()).sqrt(), x_t) * x_t, t, label)


class Scalings(NamedTuple):
    """c_in, c_skip and c_out, of the shape of α and σ."""

    c_in: Tensor
    c_skip: Tensor
    c_out: Tensor


class Parameterization(ABC):
    """(α, σ) -> the three coefficients that turn a network's output into E[x|x_t]."""

    @abstractmethod
    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """alpha, sigma: (*)."""


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
    """The network predicts (α ε - σ x)/√(α² + σ²): the paper's v where α² + σ² = 1, and of the same size on every
    schedule.
    """

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """c_skip = α/(α² + σ²), c_out = -σ/√(α² + σ²)."""
        c_in = input_scale(alpha, sigma)
        return Scalings(c_in, alpha * c_in.square(), -sigma * c_in)


@dataclass(frozen=True)
class EDMPrecond(Parameterization):
    """Input and target of unit variance for data of root mean square `sigma_data` (Karras et al. 2022, table 1,
    appendix B.6).
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data", "a positive number", self.sigma_data)

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Scalings:
        """With S = α² σ_data² + σ²: c_in = 1/√S, c_skip = α σ_data²/S, c_out = σ σ_data/√S."""
        total = (alpha * self.sigma_data).square() + sigma.square()
        return Scalings(total.rsqrt(), alpha * self.sigma_data**2 / total, sigma * self.sigma_data * total.rsqrt())


def input_scale(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1/√(α² + σ²): unit variance for data of unit variance, and 1 on every variance-preserving schedule."""
    return (alpha.square() + sigma.square()).rsqrt()


class Network(Protocol):
    """The call that a backbone answers."""

    def __call__(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None, /) -> Tensor:
        """x: (B, C, *); log_snr: (B,); label: (B,). Returns (B, C or 2C, *)."""


@dataclass(frozen=True)
class Denoiser:
    """A backbone, a schedule and a parameterization. It owns no parameters: wrap, compile or average the backbone
    as you like.
    """

    backbone: Network
    schedule: Schedule
    parameterization: Parameterization

    def network(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """F of shape (B, C, *) and, when the backbone gives 2C channels, the variance fraction of the same shape in
        (0, 1).
        """
        alpha, sigma = self.schedule(t.double())
        c_in = self.parameterization(alpha, sigma).c_in
        log_snr = self.schedule.log_snr(t.double()).expand(len(x_t)).to(x_t)
        # The network may run in a lower precision; the algebra around it stays in that of x_t.
        output = self.backbone(expand(c_in, x_t) * x_t, log_snr, label).to(x_t.dtype)
        channels = x_t.shape[1]
        if output.shape[1] == channels:
            return output, None
        return output[:, :channels], torch.sigmoid(output[:, channels:])

    def combine(self, network: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x̂ = c_skip x_t + c_out F: (B, C, *)."""
        _, c_skip, c_out = (expand(c, x_t) for c in self.parameterization(*self.schedule(t.double())))
        return c_skip * x_t + c_out * network

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """x_t: (B, C, *); t: () or (B,); label: (B,) int64, -1 for none."""
        network, variance_interp = self.network(x_t, t, label)
        return Prediction(self.combine(network, x_t, t), variance_interp)


PARAMETERIZATIONS: dict[str, type[Parameterization]] = {"eps": Eps, "x0": X0, "v": V, "edm": EDMPrecond}
