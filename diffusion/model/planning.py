"""What restorations will take, before they are begun: windows, evaluations of the network, and about how long.

Windows and values are counted. The passes of a method through the network are counted on a denoiser of white data,
which costs next to nothing, and the network is timed on one batch of windows.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from diffusion import distributed
from diffusion.denoiser import AnyDenoiser, Prediction
from diffusion.guidance import informed, told
from diffusion.model.solving import Solver
from diffusion.operators import Mask
from diffusion.restoration import Method, Problem, fitting, noise_maps, restore
from diffusion.restoration.parts import split
from diffusion.restoration.posterior import Jacobian
from diffusion.schedules import Schedule, expand

# The Jacobian of a trained network takes about so many times the backward passes of white data: conjugate gradients
# take several iterations. In 8 to 32 steps on flowers and on digits it was 1.6 to 1.9.
JACOBIAN_PASSES = 1.8
# Values of the small problem on which passes are counted.
VALUES = 32
# The share of the work that timing the network may take; of less work no time is told. A backward pass takes about as
# long as two evaluations.
TIMING, BACKWARD = 0.05, 2.0
# How often the network is timed. At first it may wait for memory, or be compiled.
ROUNDS = 2


@dataclass(frozen=True)
class Plan:
    """What n restorations of an example take: `windows` for each of them in `parts` separate parts, and `evaluations`
    of the network on a window for all of them and all steps. `values` are to be restored in the example, a pixel being
    one for each of its channels. It takes about so many `seconds` on this machine as it is now; None is next to none.
    """

    parts: int
    windows: int
    values: int
    evaluations: int
    seconds: float | None = None


def plan(solver: Solver, problem: Problem, n: int, *, shared: bool = False) -> Plan:
    """What it takes a solver to draw n solutions, with `shared` by all processes together.

    Raises InputError where the method cannot use the noise.
    """
    parts, spec, method = split(problem, solver.window), solver.spec, solver.method
    count = sum(fitting.count(part.problem, solver.window, part.tiling) for part in parts)
    if not count:
        return Plan(0, 0, 0, 0)
    scaled = replace(problem, noise=problem.noise * spec.top / spec.std)
    each = passes(method, solver.denoiser.schedule, solver.times, scaled)
    batch, seconds = min(solver.batch, count * n), None
    timing = ROUNDS * batch * (1 + BACKWARD * method.differentiates)
    if timing <= TIMING * (each.evaluations + BACKWARD * each.backward) * count * n:
        t = solver.denoiser.schedule.time(torch.zeros(())).to(solver.device)
        # What a network is told of a large image is not of the size of a window.
        alone = solver.denoiser if told(solver.denoiser) is None else informed(solver.denoiser, None)
        evaluating, differentiating = seconds_of(
            alone, spec.shape, t, solver.label, batch, backward=method.differentiates
        )
        processes = min(distributed.count(), n) if shared and method.independent else 1
        share = math.ceil(n / processes)
        seconds = (each.evaluations * evaluating + each.backward * differentiating) * count * share
    values = sum(part.count for part in parts)
    return Plan(len(parts), count, values, round(each.evaluations * count * n), seconds)


@dataclass(frozen=True)
class Passes:
    """How many evaluations and backward passes a method makes for each restoration, on average."""

    evaluations: float
    backward: float


@dataclass
class White:
    """The exact denoiser of white data of unit variance. It counts its evaluations and backward passes by example."""

    schedule: Schedule
    evaluations: int = field(default=0, init=False)
    backward: int = field(default=0, init=False)

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        """E[x|x_t] = α/(α² + σ²) x_t. x_t: (B, C, *); t: () or (B,)."""
        alpha, sigma = (expand(v, x_t) for v in self.schedule(t.double()))
        self.evaluations += len(x_t)
        mean = alpha / (alpha.square() + sigma.square()) * x_t
        if mean.requires_grad:
            mean.register_hook(self._count)  # type: ignore[no-untyped-call]
        return Prediction(mean, None)

    def _count(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


def passes(method: Method, schedule: Schedule, times: Tensor, problem: Problem) -> Passes:
    """Counts the passes of a method on a grid, on white data with as few observations and as much noise as a problem
    in the model's units has.

    Raises InputError where the method cannot use the noise.
    """
    white = White(schedule)
    known = torch.arange(VALUES) < (problem.observations if problem.few else VALUES - 8)
    y = torch.linspace(-1, 1, VALUES)[None, None] * known
    restore(
        white,
        Problem(Mask(known), y, noise_maps.most(problem.noise), (1, VALUES)),
        torch.linspace(1, -1, VALUES)[None, None],
        times,
        method=method,
    )
    rough = JACOBIAN_PASSES if isinstance(getattr(method, "covariance", None), Jacobian) and not problem.few else 1.0
    return Passes(white.evaluations, rough * white.backward)


def seconds_of(
    denoiser: AnyDenoiser, shape: tuple[int, ...], t: Tensor, label: Tensor | None, count: int, *, backward: bool
) -> tuple[float, float]:
    """Times an evaluation and a backward pass of a denoiser on `count` examples of a shape, by example; a backward pass
    that is not needed takes none.
    """
    x = torch.zeros(count, *shape, device=t.device)
    labels = None if label is None else label.expand(count)
    evaluating = differentiating = math.inf
    for _ in range(ROUNDS):
        start = _now(t.device)
        with torch.set_grad_enabled(backward):
            leaf = x.clone().requires_grad_(backward)
            mean = denoiser(leaf, t, labels).mean
        middle = _now(t.device)
        if backward:
            torch.autograd.grad(mean.sum(), leaf)
        evaluating = min(evaluating, middle - start)
        differentiating = min(differentiating, _now(t.device) - middle)
    return evaluating / count, differentiating / count if backward else 0.0


def _now(device: torch.device) -> float:
    """The time, once the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
