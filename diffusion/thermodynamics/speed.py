"""How fast a diffusion may be undone: the speed-accuracy relations, and what a timestep grid spends.

x_t moves through the space of distributions with the speed v = √(E‖ν‖²) (`balance`), and T Ṡ_tot = v². Over a duration
τ, with D_0 = χ²(start of the reverse flow || p_T) (Ikeda et al. 2024, arXiv 2407.04495, eq. 77, 79 and 92)

    (ΔW_1)² / (τ D_0) <= ∫ T Ṡ_tot dt = ∫ v² dt,        ∫ v² dt >= L²/τ >= W_2(p_0, p_T)²/τ,        L = ∫ v dt,

where ΔW_1 is the change of the 1-Wasserstein distance between p_t and what the exact probability flow makes of another
start. L is the same for any timing, ∫ v² dt is least at constant speed. A timestep grid is a timing in which every step
takes the same time, here 1/N, so that τ = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.denoiser import AnyDenoiser
from diffusion.errors import require
from diffusion.grids import interp
from diffusion.samplers import DDIM, prior, sample
from diffusion.thermodynamics.information import cumulative


@dataclass(frozen=True)
class Timing:
    """What a timing of the diffusion spends: `action` = ∫ v² dt over τ = 1, and the `length` L, in units of x.

    The steps of a grid are its `steps`.
    """

    action: float
    length: float
    steps: int

    @property
    def efficiency(self) -> float:
        """L²/action, at most 1, which constant speed reaches."""
        return self.length**2 / self.action

    def accuracy(self, mismatch: float) -> float:
        """√(D_0 ∫ T Ṡ_tot dt), the most that W_1 can change on the exact probability flow, for D_0 = `mismatch`."""
        return math.sqrt(mismatch * self.action)


def timing(log_snr: Tensor, transport: Tensor, grid: Tensor) -> Timing:
    """The timing of steps between the log-SNRs of a `grid` (N + 1,), of a diffusion with E‖ν‖² = `transport` (T,).

    The latter is that of `balance` at log-SNRs (T,), increasing, which cover the grid. Raises InputError where they do
    not, and unless the grid increases or decreases strictly.
    """
    grid = grid.double().sort().values
    require(len(grid) >= 2 and bool((grid.diff() > 0).all()), "grid", "two or more different log-SNRs", grid.tolist())
    inside = log_snr[0] - 1e-9 <= grid[0] and grid[-1] <= log_snr[-1] + 1e-9
    rule = f"between the log-SNRs {float(log_snr[0]):g} and {float(log_snr[-1]):g}"
    require(inside, "grid", rule, [float(grid[0]), float(grid[-1])])
    squares, lengths = (interp(grid, log_snr, cumulative(v, log_snr)) for v in (transport, transport.sqrt()))
    steps = len(grid) - 1
    # Within a step the log-SNR changes at the rate N Δλ.
    action = steps * float((grid.diff() * squares.diff()).sum())
    return Timing(action, float(lengths[-1] - lengths[0]), steps)


def largest_mismatch(snr: float, second_moment: float, square_of_mean: float) -> float:
    """The most that χ²(N(0, σ² I) || p_T) can be, for data with E‖x‖² and ‖E x‖² and the SNR at T; may be infinite.

    By Jensen's inequality log p_T(z) >= E log N(z; α x, σ² I), so that 1 + χ² <= exp(½ SNR (E‖x‖² + ‖E x‖²)).
    """
    return float(torch.tensor(snr * (second_moment + square_of_mean) / 2, dtype=torch.float64).expm1())


@torch.no_grad()
def error_of_grid(
    denoiser: AnyDenoiser, noise: Tensor, times: Tensor, finer: Tensor, label: Tensor | None = None
) -> Tensor:
    """‖x - x'‖ of DDIM on the grids `times` and `finer`, both decreasing, from the same `noise` (B, C, *): (B,).

    Its mean is an upper bound on W_1 between what the two grids draw, since it is the cost of one coupling of them.
    """
    one, other = (
        sample(denoiser, DDIM(), prior(denoiser, noise, grid[0]), grid, label=label) for grid in (times, finer)
    )
    return (one - other).double().square().flatten(1).sum(1).sqrt()
