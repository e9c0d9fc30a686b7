"""Ways to run the same network that may or may not be available: what sets them up, and why it did not.

Compilation, CUDA graphs and the memory layout change a network in place, from outside of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmarks.common import Contestant

BUILD_S = 5.0


@dataclass(frozen=True)
class Variant:
    """One way to train or sample: what sets it up and returns the call to time, and the seconds that may take."""

    build: Callable[[], Contestant]
    seconds: float = BUILD_S


@dataclass(frozen=True)
class Prepared:
    """Variants that are ready to be timed, their peak memory in bytes, and why the others are not."""

    contestants: dict[str, Contestant] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def prepare(variants: Mapping[str, Variant], device: torch.device, until: float) -> Prepared:
    """Builds each variant and runs it twice, as long as there is time until that second of the monotonic clock."""
    result = Prepared()
    for name, variant in variants.items():
        if time.monotonic() + variant.seconds > until:
            result.notes[name] = f"left out: fewer than {variant.seconds:.0f} s were left"
            continue
        before = _start_memory(device)
        try:
            contestant = variant.build()
            for _ in range(2):
                contestant.call()
        except Exception as error:
            result.notes[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            continue
        result.contestants[name] = contestant
        if device.type == "cuda":
            result.memory[name] = torch.cuda.max_memory_allocated(device) - before
    return result


def _start_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


class ChannelsFirst(TorchFunctionMode):
    """Ignores every wish for the channels-last layout."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        options = dict(kwargs or {})
        if options.get("memory_format") is torch.channels_last:
            options["memory_format"] = torch.contiguous_format
        return func(*args, **options)


def compiled(network: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Compiles a network in place."""
    network.compile()


def graphed(network: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Captures the network's passes on a batch (B, C, H, W) without labels as CUDA graphs, in place."""
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a CUDA device")
    x = torch.randn(*shape, device=device)
    torch.cuda.make_graphed_callables(network, (x, torch.zeros(len(x), device=device)))
    replay = network.forward
    network.forward = lambda x, log_snr, label=None: replay(x, log_snr)  # type: ignore[method-assign]


Change = Callable[[nn.Module, Sequence[int], torch.device], None]
