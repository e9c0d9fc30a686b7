"""Images with a known posterior: a stationary Gaussian process on a torus, seen through a linear operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffusion.denoiser import Prediction
from diffusion.operators import Linear, Mask
from diffusion.schedules import EDM, Schedule, expand

# Correlation length in pixels, and the exponent by which the spectrum decays at frequencies above it: photographs have
# edges, which are not smooth.
SCALE = 8.0
EXPONENT = 3.0


@dataclass(frozen=True)
class Field:
    """Images (1, side, side) of mean 0 and variance 1, and their exact denoiser."""

    side: int = 32
    schedule: Schedule = EDM()

    @cached_property
    def spectrum(self) -> Tensor:
        """The eigenvalues of the covariance by frequency, (side, side // 2 + 1) float64."""
        rows = torch.fft.fftfreq(self.side, dtype=torch.float64)[:, None]
        columns = torch.fft.rfftfreq(self.side, dtype=torch.float64)
        power = ((rows.square() + columns.square()) * SCALE**2 + 1) ** (-EXPONENT / 2)
        return power / float(torch.fft.irfft2(power, s=(self.side, self.side))[0, 0])

    @cached_property
    def covariance(self) -> Tensor:
        """The covariance of the pixels, (side², side²)."""
        return self.filtered(torch.eye(self.side**2, dtype=torch.float64), self.spectrum)

    def filtered(self, x: Tensor, gain: Tensor) -> Tensor:
        """Multiplies x (B, *), of side² values each, by a gain in Fourier space."""
        images = x.reshape(-1, self.side, self.side)
        return torch.fft.irfft2(torch.fft.rfft2(images) * gain.to(x), s=images.shape[1:]).reshape(x.shape)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Returns E[x|x_t] for one time t (), or for a map of times (1, 1, side, side); the label is ignored."""
        if t.ndim:
            return Prediction(self._by_pixel(x_t, t))
        alpha, sigma = (expand(v, self.spectrum) for v in self.schedule(t.double()))
        return Prediction(self.filtered(x_t, alpha * self.spectrum / (alpha.square() * self.spectrum + sigma.square())))

    def _by_pixel(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x|x_t] = C A (A C A + S)⁻¹ x_t with A = diag α and S = diag σ², by a Cholesky factor."""
        alpha, sigma = (v.flatten() for v in self.schedule(t.double()))
        scaled = self.covariance * alpha
        factor = torch.linalg.cholesky(alpha[:, None] * scaled + torch.diag(sigma.square()))
        return (torch.cholesky_solve(x_t.double().flatten(1).mT, factor).mT @ scaled.mT).reshape(x_t.shape).to(x_t)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n images, (n, 1, side, side)."""
        white = torch.randn(n, 1, self.side, self.side, generator=generator, dtype=torch.float64)
        return self.filtered(white, self.spectrum.sqrt())


@dataclass(frozen=True)
class Known:
    """The exact posterior of a field given y = A x + N(0, noise²), for any y.

    `noise` is a number, or the standard deviation of each value of y, (1, *), positive also where a mask shows nothing.
    """

    field: Field
    operator: Linear
    noise: float | Tensor

    @cached_property
    def gain(self) -> tuple[Tensor, Tensor]:
        """A C, (M, side²), and the Cholesky factor of σ² + A C Aᵀ, (M, M)."""
        side = self.field.side
        cross = self.operator(self.field.covariance.reshape(-1, 1, side, side)).flatten(1)
        inner = self.operator(cross.mT.reshape(-1, 1, side, side)).flatten(1)
        variance = torch.as_tensor(self.noise, dtype=torch.float64).square().flatten().expand(len(inner))
        return cross.mT, torch.linalg.cholesky(inner + torch.diag(variance))

    @cached_property
    def judged(self) -> Tensor:
        """The pixels that restorations are judged by, bool (side²,): those that a mask hides, and all pixels of other
        operators and of maps of noise.
        """
        if isinstance(self.operator, Mask) and not isinstance(self.noise, Tensor):
            return ~self.operator.known.flatten()
        return torch.ones(self.field.side**2, dtype=torch.bool)

    @cached_property
    def std(self) -> Tensor:
        """The posterior standard deviation of every pixel, (side²,)."""
        cross, factor = self.gain
        explained = torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(0)
        return (self.field.covariance.diagonal() - explained).sqrt()

    def mean(self, y: Tensor) -> Tensor:
        """Returns the posterior mean (side²,) given y (1, *)."""
        cross, factor = self.gain
        return cross.mT @ torch.cholesky_solve(y.reshape(-1, 1), factor)[:, 0]
