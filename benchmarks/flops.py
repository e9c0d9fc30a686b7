"""Counting, matching and bounding the work of a training step.

FLOP are counted by torch: two per multiply-add of convolutions and matrix products, nothing else. The roofline is the
best rate at which the machine computes any convolution of the step, forward and backward, on its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Contestant, Timing

TOLERANCE = 0.05
UNIT, HEAD = 16, 64


def count(step: Callable[[], object]) -> int:
    """Returns the FLOP of a call, run eagerly: the counter cannot see compiled code or fused attention on a CPU."""
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        counter = stack.enter_context(FlopCounterMode(display=False))
        step()
    return int(counter.get_total_flops())


def matched_widths(cost: Callable[[tuple[int, ...]], float], target: float) -> tuple[int, ...]:
    """Returns widths (a, b, c) of three stages whose cost is within 5 % of `target`; `cost` must grow with every width.

    a is the largest multiple of 16 for which (a, 2a, 4a) costs no more than the target. c is the first of 4a, 4a + 64
    and 4a + 128 for which some multiple of 16, a or more, is a suitable b. (Attention divides wide stages into heads of
    64 channels.)

    Raises ValueError if no widths are suitable.
    """
    a = _last(lambda n: cost((n * UNIT, 2 * n * UNIT, 4 * n * UNIT)) <= target) * UNIT
    for c in (4 * a, 4 * a + HEAD, 4 * a + 2 * HEAD):
        b = UNIT * _last(partial(_affords, cost, target, a, c), first=a // UNIT)
        best = min((a, b, c), (a, b + UNIT, c), key=lambda widths: abs(cost(widths) - target))
        if abs(cost(best) / target - 1) <= TOLERANCE:
            return best
    raise ValueError(f"no widths of ours cost within {TOLERANCE:.0%} of {target / 1e9:.3f} GFLOP per image")


def _affords(cost: Callable[[tuple[int, ...]], float], target: float, a: int, c: int, n: int) -> bool:
    return cost((a, n * UNIT, c)) <= target


def _last(holds: Callable[[int], bool], first: int = 1) -> int:
    """Returns the last of 64 integers from `first` on for which a condition still holds; `first` if it never does."""
    low, high = first, first + 64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def check_match(ours: float, theirs: float) -> None:
    """Raises ValueError unless two costs agree within 5 % of the second."""
    if abs(ours / theirs - 1) > TOLERANCE:
        raise ValueError(
            f"training FLOP per image must agree within {TOLERANCE:.0%}, got {ours / 1e9:.3f} and {theirs / 1e9:.3f} "
            "GFLOP; choose another width of the peer"
        )


@dataclass(frozen=True)
class Convolution:
    """A convolution of the step: its shapes and options, without the values."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    options: tuple[Any, ...]

    def step(
        self, device: torch.device | str, memory_format: torch.memory_format, dtype: torch.dtype = torch.bfloat16
    ) -> Callable[[], object]:
        """Returns a call that runs its forward and backward pass in a precision, on random values."""
        x, weight = (
            torch.randn(shape, device=device, dtype=dtype).to(memory_format=memory_format)
            for shape in (self.input, self.weight)
        )
        upstream = torch.randn_like(self._forward(x, weight))
        mask = [True, True, False]

        def call() -> None:
            self._forward(x, weight)
            torch.ops.aten.convolution_backward(upstream, x, weight, None, *self.options, mask)

        return call

    def _forward(self, x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten.convolution(x, weight, None, *self.options)
        return y

    def __str__(self) -> str:
        kernel, stride, size = ("x".join(map(str, n)) for n in (self.weight[2:], self.options[0], self.input[2:]))
        return f"{kernel} / {stride}, {self.weight[1]} to {self.weight[0]} channels at {size}, batch {self.input[0]}"


class _Recorder(TorchDispatchMode):
    """Notes every convolution that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Convolution] = Counter()

    def __torch_dispatch__(
        self, func: object, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        if func is torch.ops.aten.convolution.default:
            x, weight, _, *options = args
            plain = tuple(tuple(o) if isinstance(o, list) else o for o in options)
            self.seen[Convolution(tuple(x.shape), tuple(weight.shape), plain)] += 1
        assert callable(func)
        return func(*args, **(kwargs or {}))


def convolutions(step: Callable[[], object]) -> Counter[Convolution]:
    """Returns the distinct convolutions of a call, run eagerly, and how often each runs."""
    with torch.compiler.set_stance("force_eager"), _Recorder() as recorder:
        step()
    if not recorder.seen:
        raise ValueError("the step runs no convolution, so there is no roofline to hold it against")
    return recorder.seen


def contestants(
    shapes: Iterable[Convolution],
    device: torch.device | str,
    memory_format: torch.memory_format = torch.channels_last,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, Contestant]:
    """Returns contestants that run each convolution on its own, with its FLOP as the work."""
    calls = {str(shape): shape.step(device, memory_format, dtype) for shape in shapes}
    return {name: Contestant(call, count(call)) for name, call in calls.items()}


def roofline(timings: Mapping[str, Timing]) -> str:
    """Returns the name of the convolution with the best median rate."""
    return max(timings, key=lambda name: timings[name].rate().median)
