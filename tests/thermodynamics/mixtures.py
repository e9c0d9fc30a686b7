"""A mixture in one dimension, whose densities, distribution functions and errors are known sums and integrals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedules import Schedule
from tests.oracles import MixtureOracle

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([[-1.2], [0.8]], dtype=torch.float64)
VARIANCE = 0.05
SECOND_MOMENT = float((WEIGHTS * (MEANS[:, 0] ** 2 + VARIANCE)).sum())
POINTS = 6001


@dataclass(frozen=True)
class Marginal:
    """The distribution of x_t at a time t, on a grid of points that holds all of it."""

    schedule: Schedule
    t: Tensor

    @property
    def law(self) -> MixtureOracle:
        """x_t as a mixture of its own."""
        alpha, sigma = self.schedule(self.t)
        return MixtureOracle(self.schedule, alpha * MEANS, float(alpha**2 * VARIANCE + sigma**2), WEIGHTS)

    @property
    def points(self) -> Tensor:
        """(POINTS,), over ten standard deviations beyond the means."""
        reach = float(self.law.means.abs().max()) + 10 * math.sqrt(self.law.variance)
        return torch.linspace(-reach, reach, POINTS, dtype=torch.float64)

    def density(self, x: Tensor) -> Tensor:
        """p_t: (n,) -> (n,)."""
        return (-self.law.nll(x[:, None])).exp()

    def below(self, x: Tensor) -> Tensor:
        """P(x_t < x): (n,) -> (n,)."""
        shares: Tensor = torch.special.ndtr((x[:, None] - self.law.means[:, 0]) / self.law.variance**0.5)
        return (WEIGHTS * shares).sum(1)

    def score(self, x: Tensor) -> Tensor:
        """d log p_t/dx, by differentiation: (n,) -> (n,)."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(-self.law.nll(leaf[:, None]).sum(), leaf)
        return slope

    def mean(self, values: Tensor) -> float:
        """The mean of values at `points` under p_t."""
        return float(torch.trapezoid(self.density(self.points) * values, self.points))

    @property
    def entropy(self) -> float:
        """h(x_t) in nats."""
        return self.mean(self.law.nll(self.points[:, None]))

    @property
    def mmse(self) -> float:
        """E x^2 - E E[x|x_t]^2."""
        data = MixtureOracle(self.schedule, MEANS, VARIANCE, WEIGHTS)
        return SECOND_MOMENT - self.mean(data(self.points[:, None], self.t).mean[:, 0] ** 2)
