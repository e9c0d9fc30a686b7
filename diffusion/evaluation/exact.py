"""The exact denoiser of data whose distribution is known, for measurements that need it beside a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffusion.data import DataSpec, SwissRoll
from diffusion.data.sources import DataOptions
from diffusion.data.synthetic.points import ROLL_NOISE
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.schedules import Schedule


@dataclass(frozen=True)
class RollDenoiser:
    """E[x|x_t] of a Swiss roll, by quadrature along its spiral."""

    roll: SwissRoll
    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """Computes E[x|x_t] on the CPU. x_t: (B, 2); t: (). The label is ignored."""
        mean, _ = self.roll.posterior(x_t.double().cpu(), *self.schedule(t.double().cpu()))
        return Prediction(mean.to(x_t))


def exact_denoiser(options: DataOptions, spec: DataSpec, schedule: Schedule) -> AnyDenoiser | None:
    """The exact denoiser of the data that options describe, in units of a model; None where none is known."""
    noise = ROLL_NOISE if options.noise is None else options.noise
    if options.source != "swiss_roll" or (spec.mean, spec.std) != (0.0, 1.0):
        return None
    return RollDenoiser(SwissRoll(noise), schedule)
