"""Entropy, heat, work and entropy production of a diffusion by noise level.

The forward process is the overdamped motion dx = f dt + √(2T) dw in a linear force, with (Ikeda et al. 2024, arXiv
2407.04495, eq. 22-24)

    f = (d log α/dt) x,        T = ½ dσ²/dt - σ² d log α/dt = -½ σ² dλ/dt > 0.

Its distribution p_t moves with the velocity ν = f - T ∇log p_t, and (eq. 36-39)

    Ṡ_sys = -E ν·∇log p_t      the change of the entropy of x_t, h(x_t)
    Ṡ_bath = E f·ν/T           the heat that x_t gives to the bath, divided by T
    Ṡ_tot = E‖ν‖²/T            their sum, the entropy production, not below 0

∫ Ṡ_tot dt is the KL between the forward paths and those of the same force, run backward from p_T (eq. 47-49). In the
variable λ no time is left: with a = d log α/dλ, d scalars and the mean square M of x, per unit of falling log-SNR

    E‖x_t‖² = α² M + d σ²,    k = 2a/σ²,
    S_sys' = -a d + ½ (d - SNR mmse),        S_bath' = a (k E‖x_t‖² - d).

The force is that of a spring, f/T = -k x. Divided by T, its energy is U = ½ k ‖x_t‖², and the work that changes k does
is W' = ½ (dk/d(-λ)) E‖x_t‖². So

    first law     ΔU = W - S_bath
    second law    S_tot = W - ΔF >= 0,        F = U - h(x_t), the free energy out of equilibrium

k = 1 where α² + σ² = 1. There no work is done, F = KL(p_t || N(0, I)) up to a constant, and S_tot is the fall of this
KL. Where α = 1 nothing holds x_t: k = 0, no heat is exchanged, and S_tot is the growth of the entropy alone.

The learned reverse process has the drift of an estimate x̂ in place of E[x|x_t]. Relative to the same force run
backward, its paths account for the part of the forward entropy production

    S_learned' = S_tot' - ½ SNR (E‖x - x̂‖² - mmse),

the same expression with the error of x̂ in place of the mmse. The difference is KL(forward paths || learned reverse
paths) but for the prior: what the objective minimizes, and what the bound has above the entropy of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.schedules import Schedule
from diffusion.thermodynamics.information import cumulative

# The steps over which rates that are known at every log-SNR are integrated.
FINE = 4096


@dataclass(frozen=True)
class Balance:
    """The balance of a diffusion at log-SNRs (T,), increasing, in nats per example: (*, T) float64.

    `information`, `system`, `bath` and `work` are rates per unit of falling log-SNR: information that is lost, S_sys',
    S_bath' and W'. `energy` is U itself. `transport` is E‖ν‖² in the time -λ, the square of a speed.
    """

    log_snr: Tensor
    information: Tensor
    system: Tensor
    bath: Tensor
    work: Tensor
    energy: Tensor
    transport: Tensor

    @property
    def production(self) -> Tensor:
        """S_tot', the rate of entropy production: (*, T)."""
        return self.system + self.bath

    def integral(self, rate: Tensor) -> Tensor:
        """The integral of a rate (*, T) from each log-SNR to the lowest one, by the trapezoidal rule: (*, T)."""
        return cumulative(rate, self.log_snr)


def balance(schedule: Schedule, log_snr: Tensor, error: Tensor, second_moment: Tensor | float, dim: int) -> Balance:
    """The balance for the mean square errors E‖x - x̂‖², `error` (*, T), of x̂ at log-SNRs (T,), increasing.

    `second_moment` is E‖x‖², () or (*, 1), of examples of `dim` scalars. With the mmse the balance is that of the
    forward process, with the error of a denoiser that of its learned reverse process.
    """
    a, k, slope = springs(schedule, log_snr)
    alpha, sigma = schedule(schedule.time(log_snr))
    square = alpha.square() * second_moment + dim * sigma.square()
    lost, square = log_snr.exp() * error / 2 + 0 * square, square + 0 * error
    system = dim * (0.5 - a) - lost
    bath = a * (k * square - dim)
    return Balance(
        log_snr=log_snr,
        information=lost,
        system=system,
        bath=bath,
        work=-slope / 2 * square,
        energy=k / 2 * square,
        transport=sigma.square() / 2 * (system + bath),
    )


def springs(schedule: Schedule, log_snr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d log α/dλ, the stiffness k of the force divided by T, and dk/dλ, by differentiation: (T,) float64 each."""
    with torch.enable_grad():
        t = schedule.time(log_snr).detach().requires_grad_()
        alpha, sigma = schedule(t)
        # α may be constant, which has no derivative for torch.
        log_alpha, zero = alpha.log() + 0 * t, 0 * t
        (speed,) = torch.autograd.grad((schedule.log_snr(t) + zero).sum(), t, create_graph=True)
        (growth,) = torch.autograd.grad(log_alpha.sum(), t, create_graph=True)
        a = growth / speed
        k = 2 * a / sigma.square()
        (slope,) = torch.autograd.grad((k + zero).sum(), t)
    return a.detach(), k.detach(), (slope / speed).detach()


def exchanged(schedule: Schedule, second_moment: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The heat, the work and the change of the energy from the clean to the noisy end: (B,) nats each.

    They are linear in the squares ‖x‖² (B,), and depend on nothing else of x. Heat and work are integrals over `FINE`
    steps, the energy is the difference of its values at the ends.
    """
    log_snr = torch.linspace(schedule.log_snr_min, schedule.log_snr_max, FINE + 1, dtype=torch.float64)
    of_none_and_one = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = balance(schedule, log_snr, torch.zeros_like(log_snr), of_none_and_one, dim)
    heat, work = (found.integral(rate)[:, -1] for rate in (found.bath, found.work))
    ends = heat, work, found.energy[:, 0] - found.energy[:, -1]
    heat, work, energy = (none + second_moment.double() * (one - none) for none, one in ends)
    return heat, work, energy


def entropy(schedule: Schedule, log_snr: Tensor, known: Tensor, dim: int) -> Tensor:
    """h(x_t) = I(x; x_t) + (d/2) log(2πe σ²) at log-SNRs (T,): (*, T) nats, of the information `known` (*, T).

    With the information of a denoiser that does not know the distribution it is a cross-entropy, not below h(x_t).
    """
    _, sigma = schedule(schedule.time(log_snr))
    return known + dim / 2 * (math.log(2 * math.pi * math.e) + 2 * sigma.log())
