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

from benchmarks.common import Contestant, alternate
from benchmarks.peers import Peer
from benchmarks.training import Setting, duel, peer_step, step, trainer
from diffusion.precision import Precision, use_bf16
from diffusion.training.trainer import Trainer

DEFAULT = "ours"
REPEATS = {"cuda": 4, "cpu": 1}
SAMPLES = {"cuda": 256, "cpu": 2}
SAMPLING_STEPS = {"cuda": 15, "cpu": 2}
# Seconds that compiling the passes of training, or of sampling, may take.
COMPILE_S = {"train": 100.0, "sample": 50.0}
BUILD_S = 5.0


@dataclass(frozen=True)
class Variant:
    """One way to train or sample: `build` sets it up and returns the call to time, in at most about `seconds`."""

    build: Callable[[], Contestant]
    seconds: float = BUILD_S


@dataclass(frozen=True)
class Prepared:
    """Variants that are ready to be timed, their peak memory in bytes, and notes that say why others are not."""

    contestants: dict[str, Contestant] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def prepare(variants: Mapping[str, Variant], device: torch.device, until: float) -> Prepared:
    """Builds each variant and runs it twice, while there is time until the second `until` of the monotonic clock."""
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
            result.notes[name] = reason(error)
            continue
        result.contestants[name] = contestant
        if device.type == "cuda":
            result.memory[name] = torch.cuda.max_memory_allocated(device) - before
    return result


def reason(error: Exception) -> str:
    """Returns an error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _start_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
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


def compiled(network: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Compiles a network in place."""
    network.compile()


def graphed(network: nn.Module, shape: Sequence[int], device: torch.device) -> None:
    """Captures the network's passes on a batch (B, C, H, W) without labels as CUDA graphs, in place."""
    if device.type != "cuda":
        raise RuntimeError("CUDA graphs need a CUDA device")
    x = torch.randn(*shape, device=device)
    # The capture is in the precision of the later calls. A graph must not refer to autocast's cache of cast weights.
    with torch.autocast("cuda", torch.bfloat16, enabled=use_bf16("auto", device), cache_enabled=False):
        torch.cuda.make_graphed_callables(network, (x, torch.zeros(len(x), device=device)))
    replay = network.forward
    network.forward = lambda x, log_snr, label=None: replay(x, log_snr)


Change = Callable[[nn.Module, Sequence[int], torch.device], None]


def repeated(call: Callable[[], object], work: float, device: torch.device) -> Contestant:
    """Returns a contestant of a few calls in a row, so that the device need not wait for the next one."""
    return Contestant(call, work).repeated(REPEATS[device.type])


def better_batch(peer: Peer, batches: Sequence[int]) -> int:
    """Returns the batch size at which a peer trains the most images per second."""
    calls = {str(batch): Contestant(peer_step(peer, batch), batch) for batch in batches}
    timings = alternate(calls, rounds=2, device=peer.device)
    return int(max(timings, key=lambda batch: timings[batch].rate().median))


@dataclass(frozen=True)
class Section:
    """The training and sampling of one size, where our widths match the peer's network in FLOP per image."""

    setting: Setting
    peer: type[Peer]
    width: int
    widths: tuple[int, ...]
    image: float
    peer_image: float
    folder: Path
    device: torch.device
    compile: bool

    def trainer(self, name: str) -> Trainer:
        """Returns a new Trainer of ours."""
        return trainer(self.setting, self.widths, self.folder / f"{self.setting}-{name}".replace(" ", "-"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image."""
        return self.setting.channels, self.setting.size, self.setting.size

    def optional(self, purpose: str, build: Callable[..., Contestant]) -> dict[str, Variant]:
        """Returns the optional variants of our network; `build` makes the contestant from a change of the network."""
        found = {f"{DEFAULT}, CUDA graphs": Variant(partial(build, graphed))}
        if self.compile:
            found[f"{DEFAULT}, compiled"] = Variant(partial(build, compiled), COMPILE_S[purpose])
        return found

    def train(self, change: Change | None = None) -> Contestant:
        """Returns training steps of our Trainer, with its network changed in place."""
        ours = self.trainer(change.__name__ if change else "plain")
        if change:
            change(ours.network, (self.setting.batch, *self.shape), self.device)
        return repeated(step(ours), self.setting.batch, self.device)

    def train_channels_first(self) -> Contestant:
        """Returns training steps of our Trainer, with every request for channels last ignored."""
        with ChannelsFirst():
            ours = self.trainer("channels-first")

        def call() -> None:
            with ChannelsFirst():
                step(ours)()

        return repeated(call, self.setting.batch, self.device)

    def build_peer(self, *, bf16: bool) -> Peer:
        """Returns a new network of the peer."""
        return self.peer(self.setting.size, self.setting.channels, self.width, device=self.device, bf16=bf16)

    def train_peer(self, *, bf16: bool) -> Contestant:
        """Returns training steps as in the peer's script, at the better of its batch sizes."""
        peer = self.build_peer(bf16=bf16)
        batch = better_batch(peer, self.setting.peer_batches)
        return repeated(peer_step(peer, batch), batch, self.device)

    def sample(self, change: Change | None = None, *, precision: Precision = "auto") -> Contestant:
        """Returns sampling by DPM-Solver++ 2M with our averaged network, changed in place."""
        model = self.trainer("sampling").model
        network = copy.deepcopy(model.denoiser.backbone)
        n = SAMPLES[self.device.type]
        if change:
            change(network, (n, *self.shape), self.device)
        options = replace(model.config.sampling, precision=precision)
        denoiser = replace(model.denoiser, backbone=network)
        model = replace(model, denoiser=denoiser, config=replace(model.config, sampling=options))
        steps = SAMPLING_STEPS[self.device.type]

        def call() -> None:
            model.sample(n, sampler="dpmpp_2m", steps=steps, batch=n)

        return Contestant(call, n)

    def sample_peer(self, *, bf16: bool) -> Contestant:
        """Returns sampling by the peer's own DPM-Solver++ 2M, with the same number of steps."""
        peer = self.build_peer(bf16=bf16)
        n = SAMPLES[self.device.type]
        return Contestant(lambda: peer.sample(n, SAMPLING_STEPS[self.device.type]), n)


def section(setting: Setting, peer: type[Peer], folder: Path, device: torch.device, *, compile: bool) -> Section:
    """Matches our widths to the peer's FLOP per image. Raises ValueError if none match."""
    ((_, width),) = setting.widths
    match = duel(setting, peer(setting.size, setting.channels, width, device=device), folder / "matched")
    return Section(setting, peer, width, match.widths, *match.image, folder, device, compile)
