"""Methods of restoration under one signature, and the one that is taken unless another is named.

A method draws from its idea of p(x|y), y = A(x) + N(0, noise²), starting from noise on a grid of times. What they are
worth is measured against posteriors that are known by `python -m benchmarks.posterior`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require
from diffusion.guidance import Labeled
from diffusion.restoration import corrections, product, replacement
from diffusion.restoration.observation import Observation
from diffusion.restoration.particles import Particles, particles
from diffusion.restoration.posterior import Covariance, Diagonal, Isotropic, Jacobian, Posterior, Zero
from diffusion.restoration.product import Power
from diffusion.restoration.resampling import resample_at, split_at
from diffusion.samplers import DDPM, RandN, Sampler, SDESolver, prior, sample


class Method(ABC):
    """A way to draw x given y. Methods are frozen dataclasses with defaults.

    `independent` says whether each restoration is drawn by itself, `differentiates` whether the denoiser is.
    """

    independent: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Its key in `METHODS`, or that of its class for one of your own."""
        return next((name for name, kind in METHODS.items() if kind is type(self)), type(self).__name__)

    def with_sampler(self, sampler: Sampler) -> Method:
        """The same with another sampler. Raises InputError where it has none."""
        if "sampler" not in (field.name for field in fields(self)):  # type: ignore[arg-type]
            raise InputError(f"sampler: must not be given, as {self.name} is one by itself, got {sampler}")
        return replace(self, sampler=sampler)  # type: ignore[type-var]

    @abstractmethod
    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Restorations on the grid `times` from standard normal noise (n, C, *), n of them.

        Raises InputError where the method does not know what to do with the operator or its noise.
        """


def restore(
    denoiser: AnyDenoiser,
    seen: Observation,
    noise: Tensor,
    times: Tensor,
    *,
    method: Method | None = None,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Particles:
    """n restorations of one example from standard normal noise (n, C, *) on a grid of times, by the default method
    unless another is given. `label`: (1,) int64.
    """
    if label is not None:
        denoiser = Labeled(denoiser, label)
    chosen = default(seen) if method is None else method
    with torch.no_grad():
        return chosen(denoiser, seen, noise, times, randn)


def default(seen: Observation) -> Method:
    """Selected particles for few observations, which leave open of what kind x is; for images, which do not, the
    Jacobian alone.
    """
    return Resampling() if seen.few else Guided()


def unweighted(x: Tensor) -> Particles:
    """Independent samples, of which no evidence is known."""
    return Particles(x, torch.tensor(torch.nan, dtype=torch.float64), torch.ones(0, dtype=torch.float64), len(x))


@dataclass(frozen=True)
class Guided(Method):
    """A sampler of the posterior denoiser with a covariance model."""

    covariance: Covariance = Jacobian()
    sampler: Sampler = SDESolver()

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Independent samples."""
        posterior = Posterior(denoiser, seen.operator, seen.y, seen.noise, self.covariance)
        return unweighted(sample(posterior, self.sampler, prior(denoiser, noise, times[0]), times, randn=randn))


@dataclass(frozen=True)
class TMPD(Guided):
    """`Guided` by the diagonal model (TMPD)."""

    covariance: Covariance = Diagonal()


@dataclass(frozen=True)
class PiGDM(Guided):
    """`Guided` by the isotropic model (ΠGDM)."""

    covariance: Covariance = Isotropic()


@dataclass(frozen=True)
class NoCovariance(Guided):
    """`Guided` by no covariance: what DPS stands for."""

    covariance: Covariance = Zero()


@dataclass(frozen=True)
class Twisted(Method):
    """Sequential Monte Carlo with `particles` of them for each restoration asked for."""

    particles: int = 4
    covariance: Covariance = Jacobian()
    sampler: Sampler = SDESolver()
    threshold: float = 0.5
    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.particles >= 1, "particles", "at least 1", self.particles)

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Resampled particles."""
        n, draw = len(noise), in_parts(randn, len(noise))
        posterior = twisting_function(denoiser, seen, self.covariance)
        start = prior(denoiser, multiplied(noise, self.particles, randn), times[0])
        found = particles(posterior, self.sampler, start, times, n=n, threshold=self.threshold, randn=draw)
        return complete(found, posterior)


@dataclass(frozen=True)
class Resampling(Method):
    """`particles` of the prior for each restoration asked for, selected at the log-SNR `at`: with data of unit
    variance, where what is undecided is a quarter of their standard deviation.
    """

    particles: int = 4
    at: float = 3.0
    covariance: Covariance = Jacobian()
    sampler: Sampler = SDESolver()
    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.particles >= 1, "particles", "at least 1", self.particles)

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Independent but for common ancestors."""
        n, draw = len(noise), in_parts(randn, len(noise))
        posterior = twisting_function(denoiser, seen, self.covariance)
        start = prior(denoiser, multiplied(noise, self.particles, randn), times[0])
        found = resample_at(
            posterior,
            start,
            split_at(denoiser.schedule, times, self.at),
            at=self.at,
            n=n,
            sampler=self.sampler,
            randn=draw,
        )
        return complete(found, posterior)


def twisting_function(denoiser: AnyDenoiser, seen: Observation, covariance: Covariance) -> Posterior:
    """p(y|x_t) for weights: of observations as few as that, with its determinant."""
    compact = seen.compact
    return Posterior(denoiser, compact.operator, compact.y, seen.noise, covariance, dense=seen.few)


def complete(found: Particles, posterior: Posterior) -> Particles:
    """With the evidence where it lacks no constant, else NaN."""
    return found if posterior.dense else replace(found, log_evidence=found.log_evidence * torch.nan)


def multiplied(noise: Tensor, times: int, randn: RandN) -> Tensor:
    """noise (n, *) and further draws like it: (n times, *)."""
    return torch.cat([noise, *(randn(noise) for _ in range(times - 1))])


def in_parts(randn: RandN, n: int) -> RandN:
    """A source of noise for n examples as one for any number of them."""
    return lambda like: torch.cat([randn(part) for part in torch.split(like, n)])


@dataclass(frozen=True)
class RePaint(Method):
    """Replacement of what is known, each step taken `repeats` times; for masks, without noise or as if without."""

    repeats: int = 10
    sampler: Sampler = DDPM()
    differentiates: ClassVar[bool] = False

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Independent samples."""
        sampler = replacement.ReplacementStep(self.sampler, seen.mask(self.name), seen.y, self.repeats)
        return unweighted(sample(denoiser, sampler, prior(denoiser, noise, times[0]), times, randn=randn))


@dataclass(frozen=True)
class Replacement(RePaint):
    """Replacement without repeats."""

    repeats: int = 1


@dataclass(frozen=True)
class Product(Method):
    """The product of distributions of 2015."""

    power: Power = "constant"
    differentiates: ClassVar[bool] = False

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Independent samples."""
        sampler = product.ProductStep(seen.linear(self.name), seen.y, seen.noise, self.power)
        return unweighted(sample(denoiser, sampler, prior(denoiser, noise, times[0]), times, randn=randn))


@dataclass(frozen=True)
class DPS(Method):
    """DPS with its heuristic step."""

    scale: float = 1.0
    sampler: Sampler = DDPM()

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Independent samples."""
        sampler = corrections.DPSStep(self.sampler, seen.operator, seen.y, self.scale)
        return unweighted(sample(denoiser, sampler, prior(denoiser, noise, times[0]), times, randn=randn))


@dataclass(frozen=True)
class DDNM(Method):
    """DDNM: the range of Aᵀ from y, its complement from the denoiser."""

    sampler: Sampler = DDPM()
    differentiates: ClassVar[bool] = False

    def __call__(
        self, denoiser: AnyDenoiser, seen: Observation, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Independent samples."""
        corrected = corrections.RangeNull(denoiser, seen.linear(self.name), seen.y, seen.noise)
        return unweighted(sample(corrected, self.sampler, prior(denoiser, noise, times[0]), times, randn=randn))


METHODS: dict[str, type[Method]] = {
    "product": Product,
    "replacement": Replacement,
    "repaint": RePaint,
    "dps": DPS,
    "ddnm": DDNM,
    "zero": NoCovariance,
    "pigdm": PiGDM,
    "tmpd": TMPD,
    "mmps": Guided,
    "particles": Twisted,
    "resampling": Resampling,
}
