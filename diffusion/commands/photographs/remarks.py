"""What is said of one image's restorations: how much was filled, how well they agree with it, and what looks wrong."""

from __future__ import annotations

import math

from torch import Tensor

from diffusion.model.planning import Plan
from diffusion.model.restoration import Diagnostics
from diffusion.model.solving import RESTORATION_STEPS
from diffusion.progress import duration
from diffusion.restoration.noise_maps import Noise, most

# The standard deviation of the error of rounding to 8 bits, which is uniform within half a gray level of 0.
ROUNDING = 1 / 255 / math.sqrt(12)
# Residuals, in units of the noise, beyond which the noise is not what it is said to be.
TOO_SMALL, TOO_LARGE = 2.0, 0.5
# The most noise that an image is taken to have.
LIKELY = 0.3
# The fewest values whose residual tells that noise is smaller than it is said to be.
FEWEST = 100
# The share of hidden pixels below which their number says more.
SMALL_SHARE = 0.01


def filled(known: Tensor) -> str:
    """How much of an image is unknown: known (1 or C, H, W)."""
    hidden = ~known.all(0)
    count = int(hidden.sum())
    if count < SMALL_SHARE * hidden.numel():
        return f"{count} pixel{'s' * (count != 1)} filled"
    return f"{count / hidden.numel():.0%} filled"


def work(plan: Plan, sides: tuple[int, ...], n: int) -> str:
    """How much work n restorations are, and about how long they take, where it is more than one window."""
    if plan.windows <= 1:
        return ""
    places = f" in {plan.parts:,} places" if plan.parts > 1 else ""
    times = f", {n} times" if n > 1 else ""
    about = "" if plan.seconds is None else f", about {duration(plan.seconds)}"
    return f"{plan.windows:,} windows of {sides[1]}x{sides[0]}{places}{times}{about}"


def done(name: str, diagnostics: Diagnostics, n: int, seed: int, noise: Noise, filling: str = "") -> str:
    """The line about restorations that were written."""
    windows = f" in {diagnostics.windows} windows" * (diagnostics.windows > 1)
    times = f" {n} times" if n > 1 else ""
    agreement = f", residual {diagnostics.residual:.2g}" if most(noise) else ""
    by = f"{name} restored{times} by {diagnostics.method.name}{windows}"
    return f"{by}{filling and f', {filling}'} in {diagnostics.seconds:.1f} s, seed {seed}{agreement}"


def noise_warning(noise: Noise, residual: float, observations: int, steps: int = RESTORATION_STEPS) -> str:
    """A warning that noise cannot be what it is said to be, with what it likely is; empty if all is well.

    `residual` is in units of the noise. Without noise there is nothing to say. Noise of rounding is what a file of 8
    bits has at least. With fewer `steps` than by default restorations may miss an image for that reason. Of a map it is
    said by which factor it is off.
    """
    if not most(noise):
        return ""
    if isinstance(noise, Tensor):
        off = residual > TOO_SMALL or (residual < TOO_LARGE and observations >= FEWEST and most(noise) > 2 * ROUNDING)
        return f"warning: the restorations miss the image by {residual:.2g} times the noise of the map" if off else ""
    likely = f"{residual * noise:.2g}"
    if residual > TOO_SMALL:
        causes = [f"the noise is likely about {likely} (--noise {likely})"] * (residual * noise <= LIKELY)
        causes += [f"{steps} steps are too few (--steps)"] * (steps < RESTORATION_STEPS)
        causes += ["the image was degraded in another way"]
        return (
            f"warning: the restorations miss the image by {residual:.3g} times the noise of {noise:.2g}: "
            + ", or ".join(causes)
        )
    if residual < TOO_LARGE and observations >= FEWEST and noise > 2 * ROUNDING:
        return (
            f"warning: the restorations miss the image by no more than {residual:.2g} times the noise of {noise:.2g}: "
            f"the noise is likely about {likely} or less (--noise {likely}), as a share of white: 25 of 255 is 0.1"
        )
    return ""
