"""Restoration by multiplying distributions, as Sohl-Dickstein et al. (2015, arXiv 1503.03585, section 2.5) propose it.

With r(x) = N(y; A x, noise²) every step of the reverse trajectory is multiplied by r_s(x_s) and normalized (eq. 22),

    p̃(x_s|x_t) ∝ p(x_s|x_t) r_s(x_s),        r_s = r  or  r^(1 - s)                                          (eq. 23)

This is biased. The reverse steps of the exact posterior have r_s(x_s) = E[r(x)|x_s], the likelihood of y given the
noisy x_s, whereas r demands that x_s itself agrees with y. `posterior.py` and `particles.py` approximate that
expectation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from diffusion import gaussian
from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.operators import Linear, conjugate_gradients
from diffusion.samplers import RandN, Sampler, State

Power = Literal["constant", "annealed"]


@dataclass(frozen=True)
class ProductStep(Sampler):
    """Ancestral sampling of the product, biased as published.

    For a linear A the product of the two Gaussians is a Gaussian. It is drawn exactly, by correcting a draw of
    p(x_s|x_t) by its misfit to y. With known pixels and no noise this overwrites them by y, as the paper's code does.
    `power` chooses r_s in eq. 23: "constant" is r, "annealed" is r^(1 - s).
    """

    operator: Linear
    y: Tensor
    noise: float = 0.0
    power: Power = "constant"

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", "0 or more", self.noise)
        require(self.power in ("constant", "annealed"), "power", "constant or annealed", repr(self.power))

    def step(
        self, denoiser: AnyDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: State, randn: RandN
    ) -> tuple[Tensor, State]:
        """Draws from p̃(x_s|x_t)."""
        mean, learned = denoiser(x_t, t)
        variance_interp = 0.0 if learned is None else learned
        reverse = gaussian.reverse(denoiser.schedule, mean, x_t, t, s, variance_interp=variance_interp)
        power = 1.0 if self.power == "constant" else 1 - float(s)
        # r^power is r with the noise divided by √power, and the constant 1 at power 0.
        if power == 0:
            return reverse.sample(randn(x_t)), None
        noise = self.noise / math.sqrt(power)
        drawn = reverse.sample(randn(x_t))
        seen = self.operator(drawn)
        misfit = (self.y - seen).broadcast_to(seen.shape)
        if noise:
            misfit = misfit - noise * randn(seen)

        def matrix(u: Tensor) -> Tensor:
            return noise**2 * u + self.operator(reverse.variance * self.operator.adjoint(u, x_t))

        solution, _ = conjugate_gradients(matrix, misfit, tolerance=1e-6)
        return drawn + reverse.variance * self.operator.adjoint(solution, x_t), None
