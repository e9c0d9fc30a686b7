"""Methods of restoration under one signature, and the default.

A method draws from its approximation of p(x|y), y = A(x) + N(0, noise²), starting from noise, on a grid of times.
`python -m benchmarks.posterior` measures how far each one is from posteriors that are known exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser
from diffusion.errors import InputError, require, require_one
from diffusion.guidance import Labeled, LastEstimate
from diffusion.operators import Identity
from diffusion.restoration.corrections import DPSStep, RangeNull
from diffusion.restoration.learned import Observed
from diffusion.restoration.noise_maps import Noise
from diffusion.restoration.particles import Particles, particles
from diffusion.restoration.posterior import Covariance, Diagonal, Isotropic, Jacobian, Posterior, Zero
from diffusion.restoration.problem import Problem
from diffusion.restoration.product import Power, ProductStep
from diffusion.restoration.replacement import ReplacementStep
from diffusion.restoration.resampling import resample_at, split_at
from diffusion.samplers import DDPM, RandN, Sampler, SDESolver, prior, sample

AUTO = "auto"


class Method(ABC):
    """A way to draw x given y. Methods are frozen dataclasses with defaults.

    `independent` says whether each restoration is drawn without regard to the others, `differentiates` whether the
    denoiser is differentiated, `takes_maps` whether the noise may be a map (`noise_maps`).
    """

    independent: ClassVar[bool] = True
    differentiates: ClassVar[bool] = True
    takes_maps: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The key of the method in `METHODS`, or the name of its class if it is not registered."""
        return next((name for name, kind in METHODS.items() if kind is type(self)), type(self).__name__)

    def with_sampler(self, sampler: Sampler) -> Method:
        """The method with another sampler. Raises InputError for a method that has none."""
        if "sampler" not in (field.name for field in fields(self)):  # type: ignore[arg-type]
            raise InputError(f"sampler: must not be given, as {self.name} is one by itself, got {sampler}")
        return replace(self, sampler=sampler)  # type: ignore[type-var]

    def memory_probe(self, denoiser: AnyDenoiser) -> AnyDenoiser:
        """A denoiser whose evaluation takes as much memory as one of this method does."""
        if not self.differentiates:
            return denoiser
        return Posterior(denoiser, Identity(), torch.zeros(()), 1.0, Isotropic())

    @abstractmethod
    def __call__(
        self, denoiser: AnyDenoiser, problem: Problem, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Draws n restorations on the grid `times` from standard normal noise (n, C, *).

        Raises InputError where the method cannot use the operator or its noise.
        """


def restore(
    denoiser: AnyDenoiser,
    problem: Problem,
    noise: Tensor,
    times: Tensor,
    *,
    method: Method | None = None,
    label: Tensor | None = None,
    randn: RandN = torch.randn_like,
) -> Particles:
    """Draws n restorations of one example from standard normal noise (n, C, *) on the grid `times`.

    `method` is `default(problem)` unless another is given. `label` is (1,) int64. Raises InputError for a map of noise
    that the method does not take.
    """
    if label is not None:
        denoiser = Labeled(denoiser, label)
    chosen = default(problem) if method is None else method
    _noise(chosen, problem)
    with torch.no_grad():
        return chosen(denoiser, problem, noise, times, randn)


def default(problem: Problem, *, learned: bool = False, told: bool = False) -> Method:
    """The method to use where none is named; `learned` says that the denoiser takes a noise level for every pixel, and
    `told` that its network is told the observation (`conditioning`).

    What such a denoiser has learned it draws from. Otherwise few observations leave open which mode of the data x
    belongs to, and particles weigh the modes. Images leave no such choice, and the Jacobian is enough.
    """
    if told or (learned and problem.by_pixel):
        return Learned(told=told)
    return Resampling() if problem.few else Guided()


def choose(
    method: str | Method, sampler: Sampler | None, problem: Problem, *, learned: bool = False, told: bool = False
) -> Method:
    """The method of that name, or the `default` for "auto"; with another sampler than its own if one is given.

    Raises InputError for an unknown name, for a sampler or a map of noise that the method does not take, and for the
    method "learned" of a denoiser that has neither `learned` it nor is `told`.
    """
    if isinstance(method, str):
        require_one(method, "method", (AUTO, *METHODS))
        method = default(problem, learned=learned, told=told) if method == AUTO else METHODS[method]()
    if isinstance(method, Learned):
        if not learned and not told:
            raise InputError(
                "method: learned needs a model that learned to restore (observed.share above 0, or condition.operator, "
                "in its configuration); take mmps, or train one from this model with training.init"
            )
        method = replace(method, told=told)
    _noise(method, problem)
    return method if sampler is None else method.with_sampler(sampler)


def _noise(method: Method, problem: Problem) -> Noise:
    """The noise as a method takes it. Raises InputError for a map that it does not take."""
    return problem.noise if method.takes_maps else problem.level


class Direct(Method):
    """A method that samples one denoiser with one sampler, each restoration by itself.

    `conditions` says that y enters through the denoiser. Its last estimate is then the restoration, as for samples;
    where y enters through the steps, it is where the last step leads.
    """

    conditions: ClassVar[bool] = False

    @abstractmethod
    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """The denoiser to sample, and the sampler."""

    def __call__(
        self, denoiser: AnyDenoiser, problem: Problem, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Draws independent samples, whose evidence is not known."""
        chosen, sampler = self.parts(denoiser, problem)
        estimating = LastEstimate(chosen)
        x = sample(estimating, sampler, prior(denoiser, noise, times[0]), times, randn=randn)
        x = estimating.mean if self.conditions and times[-1] == 0 else x
        return Particles(x, torch.tensor(torch.nan, dtype=torch.float64), torch.ones(0, dtype=torch.float64), len(x))


@dataclass(frozen=True)
class Guided(Direct):
    """Samples the posterior denoiser with a model of its covariance; with the Jacobian this is MMPS."""

    covariance: Covariance = Jacobian()
    sampler: Sampler = SDESolver()
    conditions: ClassVar[bool] = True

    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """`Posterior` and the sampler."""
        return Posterior(denoiser, problem.operator, problem.y, problem.level, self.covariance), self.sampler


@dataclass(frozen=True)
class TMPD(Guided):
    """`Guided` with the diagonal covariance."""

    covariance: Covariance = Diagonal()


@dataclass(frozen=True)
class PiGDM(Guided):
    """`Guided` with the isotropic covariance (ΠGDM)."""

    covariance: Covariance = Isotropic()


@dataclass(frozen=True)
class NoCovariance(Guided):
    """`Guided` without a covariance: the posterior that DPS approximates."""

    covariance: Covariance = Zero()


@dataclass(frozen=True)
class RePaint(Direct):
    """Replaces the known pixels, each step taken `repeats` times; for masks, and as if without noise."""

    repeats: int = 10
    sampler: Sampler = DDPM()
    differentiates: ClassVar[bool] = False

    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """The denoiser and `ReplacementStep`."""
        return denoiser, ReplacementStep(self.sampler, problem.mask(self.name), problem.y, self.repeats)


@dataclass(frozen=True)
class Replacement(RePaint):
    """Replaces the known pixels without repeats."""

    repeats: int = 1


@dataclass(frozen=True)
class Product(Direct):
    """Multiplies the distributions of the steps, as published in 2015."""

    power: Power = "constant"
    differentiates: ClassVar[bool] = False

    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """The denoiser and `ProductStep`."""
        return denoiser, ProductStep(problem.linear(self.name), problem.y, problem.level, self.power)


@dataclass(frozen=True)
class DPS(Direct):
    """Takes the heuristic gradient step of DPS after each step of the sampler."""

    scale: float = 1.0
    sampler: Sampler = DDPM()

    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """The denoiser and `DPSStep`."""
        return denoiser, DPSStep(self.sampler, problem.operator, problem.y, self.scale)


@dataclass(frozen=True)
class DDNM(Direct):
    """Takes the range of Aᵀ from y and its complement from the denoiser."""

    sampler: Sampler = DDPM()
    differentiates: ClassVar[bool] = False
    conditions: ClassVar[bool] = True

    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """`RangeNull` and the sampler."""
        noise = problem.level
        return RangeNull(denoiser, problem.linear(self.name), problem.y, noise), self.sampler


@dataclass(frozen=True)
class Learned(Direct):
    """Draws from the posterior that a network has learned which takes a noise level for every pixel; for masks and for
    noise alone.

    `told` says that the network is told the observation in channels of its own, whatever it shows: the denoiser is then
    E[x|x_t, y] as it is.
    """

    sampler: Sampler = SDESolver()
    told: bool = False
    differentiates: ClassVar[bool] = False
    takes_maps: ClassVar[bool] = True
    conditions: ClassVar[bool] = True

    def parts(self, denoiser: AnyDenoiser, problem: Problem) -> tuple[AnyDenoiser, Sampler]:
        """`Observed`, or the denoiser that was told, and the sampler."""
        if self.told:
            return denoiser, self.sampler
        return Observed.of(denoiser, problem.y, problem.pixels(self.name), problem.noise), self.sampler


class Weighted(Method):
    """A method that weighs `particles` particles for each restoration against each other."""

    particles: int
    covariance: Covariance
    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(self.particles >= 1, "particles", "at least 1", self.particles)

    @abstractmethod
    def draw(self, posterior: Posterior, start: Tensor, times: Tensor, n: int, randn: RandN) -> Particles:
        """Draws n samples from the particles `start`, which are at times[0]."""

    def __call__(
        self, denoiser: AnyDenoiser, problem: Problem, noise: Tensor, times: Tensor, randn: RandN
    ) -> Particles:
        """Draws samples with common ancestors, and their evidence where the twisting function is complete."""
        n, posterior = len(noise), twisting_function(denoiser, problem, self.covariance)
        start = prior(denoiser, torch.cat([noise, *(randn(noise) for _ in range(self.particles - 1))]), times[0])
        found = self.draw(posterior, start, times, n, in_parts(randn, n))
        # Without the determinant the evidence lacks a constant.
        return found if posterior.dense else replace(found, log_evidence=found.log_evidence * torch.nan)


@dataclass(frozen=True)
class Twisted(Weighted):
    """Twisted sequential Monte Carlo; particles are resampled where the relative ESS falls below `threshold`."""

    particles: int = 4
    covariance: Covariance = Jacobian()
    sampler: Sampler = SDESolver()
    threshold: float = 0.5

    def draw(self, posterior: Posterior, start: Tensor, times: Tensor, n: int, randn: RandN) -> Particles:
        """Moves the particles with E[x|x_t, y] and weighs them at every step."""
        return particles(posterior, self.sampler, start, times, n=n, threshold=self.threshold, randn=randn)


@dataclass(frozen=True)
class Resampling(Weighted):
    """Importance resampling of particles of the prior at the log-SNR `at`.

    At the default, x given x_t has a standard deviation of about 0.22 for white data of unit variance.
    """

    particles: int = 4
    at: float = 3.0
    covariance: Covariance = Jacobian()
    sampler: Sampler = SDESolver()

    def draw(self, posterior: Posterior, start: Tensor, times: Tensor, n: int, randn: RandN) -> Particles:
        """Moves the particles without y up to `at`, resamples them there, and goes on with E[x|x_t, y]."""
        times = split_at(posterior.schedule, times, self.at)
        return resample_at(posterior, start, times, at=self.at, n=n, sampler=self.sampler, randn=randn)


def twisting_function(denoiser: AnyDenoiser, problem: Problem, covariance: Covariance) -> Posterior:
    """The approximation ψ of p(y|x_t) that weighs particles; with its determinant where observations are few."""
    compact = problem.compact
    return Posterior(denoiser, compact.operator, compact.y, problem.level, covariance, dense=problem.few)


def in_parts(randn: RandN, n: int) -> RandN:
    """Turns a source of noise for n examples into one for any multiple of n."""
    return lambda like: torch.cat([randn(part) for part in torch.split(like, n)])


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
    "learned": Learned,
}
