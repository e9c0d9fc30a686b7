"""Variants of training and sampling at one size, and the reason for each that is not available.

Compilation, CUDA graphs and the memory layout change a network in place, without a change of its code.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmarks.common import Contestant
from benchmarks.gpu.parts import reason
from benchmarks.gpu.place import Place
from diffusion import config
from diffusion.backbones import Backbone
from diffusion.config import Config
from diffusion.data import Dataset
from diffusion.precision import Precision, network_dtype
from diffusion.training.prefetch import Prefetch
from diffusion.training.trainer import Trainer

# Seconds that building a variant may take, and compiling the passes of training, or of sampling.
BUILD_S = 5.0
COMPILE_S = {"train": 40.0, "sample": 25.0}
STEPS = 10**9


@dataclass(frozen=True)
class Variant:
    """One way to train or sample: `build` sets it up and returns the calls to time by what they are, in at most about
    `seconds`.
    """

    build: Callable[[], dict[str, Contestant]]
    seconds: float = BUILD_S


@dataclass(frozen=True)
class Prepared:
    """Variants that are ready to be timed, their peak memory in bytes, and notes that say why others are not."""

    contestants: dict[str, dict[str, Contestant]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def prepare(variants: Mapping[str, Variant], device: torch.device, until: float) -> Prepared:
    """Builds each variant and calls it three times, while there is time until the second `until` of the monotonic
    clock.
    """
    result = Prepared()
    for name, variant in variants.items():
        if time.monotonic() + variant.seconds > until:
            result.notes[name] = f"left out: fewer than {variant.seconds:.0f} s were left"
            continue
        before = _start_memory(device)
        try:
            calls = variant.build()
            for _ in range(3):
                for contestant in calls.values():
                    contestant.call()
        except Exception as error:
            result.notes[name] = f"failed: {reason(error)}"
            continue
        result.contestants[name] = calls
        if device.type == "cuda":
            result.memory[name] = torch.cuda.max_memory_allocated(device) - before
    return result


def _start_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


class ChannelsFirst(TorchFunctionMode):
    """Ignores every request for the channels-last layout."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        options = dict(kwargs or {})
        if options.get("memory_format") is torch.channels_last:
            options["memory_format"] = torch.contiguous_format
        return func(*args, **options)


Change = Callable[[Backbone, Sequence[int], torch.device], None]


def whole(network: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Compiles a network as one, in place."""
    network.compile()


def graphed(network: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Captures the network's passes on a batch (B, C, H, W) without labels as CUDA graphs, in place."""
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a CUDA device")
    x = torch.randn(*shape, device=device)
    bf16 = network_dtype("auto", device) == torch.bfloat16
    # The capture is in the precision of the later calls. A graph must not refer to autocast's cache of cast weights.
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16, cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (x, torch.zeros(len(x), device=device)))
    replay = network.forward
    network.forward = lambda x, log_snr, label=None: replay(x, log_snr)


def is_compiled(network: Backbone) -> bool:
    """Whether the blocks of a network are compiled."""
    return any(block._compiled_call_impl is not None for block in network.residual_blocks())


class Steps:
    """Steps of one Trainer: on a batch that is given, on batches that are made as the Trainer's loop makes them, and
    what the host does for a batch.
    """

    def __init__(self, trainer: Trainer, place: Place) -> None:
        self.trainer, self.made_so_far = trainer, 0
        # Without a device that works while the host does, there is nothing to make ahead for.
        device = place.device if place.events else torch.device("cpu")
        self.prefetch = Prefetch(trainer.maker.on_host, STEPS, device)
        self.batch = trainer.maker(0)

    def given(self) -> None:
        """Takes a step on the same batch as before."""
        self.trainer.update(self.batch)

    def made(self) -> None:
        """Takes a step on a new batch."""
        batch = self.trainer.maker.on_device(self.prefetch(self.made_so_far))
        self.made_so_far += 1
        self.trainer.update(batch)

    def host(self) -> None:
        """Makes the host's part of a batch."""
        self.trainer.maker.on_host(0)

    def contestants(self, repeats: int) -> dict[str, Contestant]:
        """Returns the three by name; the first two, `repeats` in a row."""
        images = self.trainer.config.training.batch
        return {
            "given": Contestant(self.given, images).repeated(repeats),
            "made": Contestant(self.made, images).repeated(repeats),
            "host": Contestant(self.host, images),
        }


@dataclass(frozen=True)
class Ours:
    """An experiment with data for it, whose training and sampling have variants; trainers write into `folder`."""

    experiment: Config
    data: Dataset
    folder: Path
    place: Place

    @property
    def repeats(self) -> int:
        """Calls in a row, so that the device need not wait for the next one."""
        return 1 if self.place.tiny else 5

    def trainer(self, name: str, *overrides: str) -> Trainer:
        """Returns a new Trainer."""
        experiment = config.override(self.experiment, overrides)
        return Trainer(experiment, self.data, self.data.subset([]), self.folder / name.replace(" ", "-"))

    def train(self, *overrides: str, change: Change | None = None) -> dict[str, Contestant]:
        """Returns training steps, with the network changed in place."""
        trainer = self.trainer("-".join([change.__name__ if change else "plain", *overrides]), *overrides)
        if change:
            change(trainer.network, (self.experiment.training.batch, *self.data.spec.shape), self.place.device)
        return Steps(trainer, self.place).contestants(self.repeats)

    def train_channels_first(self) -> dict[str, Contestant]:
        """Returns training steps with every request for channels last ignored."""
        with ChannelsFirst():
            steps = Steps(self.trainer("channels-first", "training.compile=false"), self.place)
        return {name: _within(ChannelsFirst, call) for name, call in steps.contestants(self.repeats).items()}

    def train_searched(self) -> dict[str, Contestant]:
        """Returns training steps for whose convolutions cuDNN tries its algorithms."""
        steps = Steps(self.trainer("searched", "training.compile=false"), self.place)
        searched = partial(torch.backends.cudnn.flags, enabled=True, benchmark=True)
        return {name: _within(searched, call) for name, call in steps.contestants(self.repeats).items()}

    def sample(
        self, n: int, steps: int, *, change: Change | None = None, precision: Precision = "auto"
    ) -> dict[str, Contestant]:
        """Returns sampling of n images by DPM-Solver++ 2M with an averaged network, changed in place."""
        model = self.trainer("sampling", "training.compile=false", "sampling.compile=false").model
        network = copy.deepcopy(model.denoiser.backbone)
        if change:
            change(network, (n, *self.data.spec.shape), self.place.device)  # type: ignore[arg-type]
        options = replace(model.config.sampling, precision=precision)
        denoiser = replace(model.denoiser, backbone=network)
        model = replace(model, denoiser=denoiser, config=replace(model.config, sampling=options))
        return {"sample": Contestant(lambda: model.sample(n, sampler="dpmpp_2m", steps=steps, batch=n), n)}


def _within(context: Callable[[], Any], contestant: Contestant) -> Contestant:
    def call() -> None:
        with context():
            contestant.call()

    return Contestant(call, contestant.work)
