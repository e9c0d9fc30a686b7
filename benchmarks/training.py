"""The speed of training against public packages at equal work, and against what the machine can do.

    python -m benchmarks.training [--sizes 28 32 64] [--rounds 7] [--out FILE] [--check]

A step is a full one: forward, backward, clipping, optimizer, EMA of the weights. Ours is a step of the package's own
Trainer with its defaults, which includes making the batch. A peer gets finished tensors, and the better of two batch
sizes. Widths are chosen so that the FLOP per image agree within 5 %.

Both train in every precision that the machine multiplies in: fp32, and bf16 under autocast where it has instructions
for it. The ratio is that of equal precisions. The roofline of a precision is the fastest convolution in it, forward and
backward in channels-last layout, among those that our step runs; it is timed by turns with the steps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch._subclasses import FakeTensorMode

from benchmarks import common, flops, peers
from benchmarks.common import Call, Contestant, Goal, Make, Rows, Spread, Timing, alternate, apart
from benchmarks.flops import Convolution
from benchmarks.peers import Peer
from diffusion.backbones import UNetConfig
from diffusion.config import Config, TrainingConfig
from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import standardized
from diffusion.precision import Precision, network_dtype
from diffusion.training.trainer import Trainer

EXAMPLES = 1024
ROOFLINE_ROUNDS, ROOFLINE_CALLS = 9, 20
# The goals: how many times the better peer at equal precision, and the share of the roofline of that precision.
SPEEDUP: dict[Precision, float] = {"fp32": 2.0, "bf16": 3.0}
SHARE = 0.60
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """One kind of image: our batch size, the peers' batch sizes to choose from, and the width of each peer."""

    size: int
    channels: int
    batch: int
    peer_batches: tuple[int, ...]
    widths: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.size}x{self.size}x{self.channels}"


SETTINGS = {
    28: Setting(28, 1, 64, (16, 32), (("denoising-diffusion-pytorch", 64), ("diffusers", 64))),
    32: Setting(32, 3, 64, (16, 32), (("denoising-diffusion-pytorch", 64), ("diffusers", 64))),
    64: Setting(64, 3, 32, (8, 16), (("denoising-diffusion-pytorch", 32), ("diffusers", 64))),
}


def dataset(size: int, channels: int, count: int = EXAMPLES) -> Dataset:
    """Returns images of uniform noise in memory; the content does not change the time of a step."""
    values = np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    names = tuple(map(str, range(count)))
    return standardized(Dataset(values, DataSpec((channels, size, size), 256), None, names))


def precisions() -> tuple[Precision, ...]:
    """Returns the precisions that the CPU of this machine multiplies in."""
    return ("fp32", "bf16") if network_dtype("auto", torch.device("cpu")) == torch.bfloat16 else ("fp32",)


def trainer(setting: Setting, widths: tuple[int, ...], run: Path, precision: Precision = "auto") -> Trainer:
    """Returns our Trainer, with the package's defaults but for widths, batch and precision."""
    options = TrainingConfig(batch=setting.batch, precision=precision)
    # Accelerate keeps the precision of the first trainer of a process, unless it is told to forget.
    AcceleratorState._reset_state()
    experiment = Config(backbone=UNetConfig(channels=widths), training=options)
    data = dataset(setting.size, setting.channels)
    return Trainer(experiment, data, data.subset([]), run)


def step(trainer: Trainer) -> Callable[[], object]:
    """Returns a call that makes a batch and does a training step."""
    return lambda: trainer.update(trainer.maker(trainer.step))


def seconds_per_step(trainer: Trainer, steps: int) -> float:
    """Returns the mean seconds of the last three quarters of `steps` steps."""
    call, warmup = step(trainer), steps // 4
    for _ in range(warmup):
        call()
    begin = time.perf_counter()
    for _ in range(steps - warmup):
        call()
    return (time.perf_counter() - begin) / (steps - warmup)


def peer_step(peer: Peer, batch: int) -> Callable[[], object]:
    """Returns a call that does a peer's training step on a batch made beforehand."""
    images = torch.rand(batch, peer.channels, peer.size, peer.size, device=peer.device)
    return lambda: peer.step(images)


def make_ours(setting: Setting, widths: tuple[int, ...], run: Path, precision: Precision) -> Call:
    """Returns our training step."""
    return step(trainer(setting, widths, run, precision))


def make_theirs(package: str, setting: Setting, width: int, batch: int, precision: Precision) -> Call:
    """Returns a peer's training step."""
    return peer_step(build(package, setting, width, precision), batch)


def build(package: str, setting: Setting, width: int, precision: Precision = "fp32") -> Peer:
    """Returns a peer for the images of a setting."""
    return peers.PEERS[package](setting.size, setting.channels, width, device="cpu", bf16=precision == "bf16")


@cache
def cost(size: int, channels: int, widths: tuple[int, ...]) -> float:
    """Returns the FLOP per image of training our network, on tensors without values.

    Only the forward pass is counted. The backward pass costs twice as much, but for the gradient of the input, which is
    not computed.
    """
    with FakeTensorMode(), torch.no_grad():
        network = UNetConfig(channels=widths).build(channels, channels)
        x, log_snr = torch.empty(1, channels, size, size), torch.empty(1)
        return 3 * flops.count(lambda: network(x, log_snr))


@dataclass(frozen=True)
class Duel:
    """A peer's step at several batch sizes, and ours at equal FLOP per image, both in every one of `precisions`.

    `image` has both FLOP, ours first.
    """

    setting: Setting
    peer: Peer
    ours: Trainer
    image: tuple[float, float]
    precisions: tuple[Precision, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of our network."""
        network = self.ours.config.backbone
        assert isinstance(network, UNetConfig)
        return network.channels

    def contestants(self, run: Path) -> dict[str, tuple[Make, int]]:
        """Returns by name how to make each contestant, and the number of images of its step."""
        name, batch, setting = self.peer.package, self.ours.config.training.batch, self.setting
        found: dict[str, tuple[Make, int]] = {}
        for precision in self.precisions:
            ours = partial(make_ours, setting, self.widths, run / precision, precision)
            found[f"ours as {name}, {precision}"] = ours, batch
            for n in setting.peer_batches:
                theirs = partial(make_theirs, name, setting, self.peer.width, n, precision)
                found[f"{name} by {n}, {precision}"] = theirs, n
        return found

    def pair(self, timings: Mapping[str, Timing], precision: Precision) -> tuple[Timing, Timing]:
        """Returns the timing of ours, and of the peer at the batch size at which it is fastest, in one precision."""
        name = self.peer.package
        theirs = (timings[f"{name} by {batch}, {precision}"] for batch in self.setting.peer_batches)
        return timings[f"ours as {name}, {precision}"], max(theirs, key=lambda timing: timing.rate().median)

    def figures(self, timings: Mapping[str, Timing], roofline: Timing, precision: Precision) -> tuple[Spread, Spread]:
        """Returns our images/s as a multiple of the peer's, and our share of the roofline, in one precision."""
        ours, theirs = self.pair(timings, precision)
        return ours.over(theirs), replace(ours, work=ours.work * self.image[0]).over(roofline)

    def rows(self, timings: Mapping[str, Timing], roofline: Timing, precision: Precision) -> Rows:
        """Returns the rows of the table for ours and for the peer in one precision."""
        ours, theirs = self.pair(timings, precision)
        rows: Rows = []
        for name, timing, flop in (
            (f"diffusion {self.widths}", ours, self.image[0]),
            (f"{self.peer.package} ({self.peer.width})", theirs, self.image[1]),
        ):
            rows.append(
                {
                    "trainer": name,
                    "precision": precision,
                    "batch": int(timing.work),
                    "GFLOP/image": flop / 1e9,
                    "images/s": timing.rate(),
                    "GFLOP/s": timing.rate(timing.work * flop / 1e9),
                    "share of roofline": replace(timing, work=timing.work * flop).over(roofline),
                }
            )
        rows[0]["times the peer"] = self.figures(timings, roofline, precision)[0]
        return rows


def duel(setting: Setting, peer: Peer, run: Path) -> Duel:
    """Returns the duel of a peer with our Trainer at equal FLOP per image. Raises ValueError if no widths match."""
    target = flops.count(peer_step(peer, 2)) / 2
    widths = flops.matched_widths(lambda widths: cost(setting.size, setting.channels, widths), target)
    ours = trainer(setting, widths, run)
    image = flops.count(step(ours)) / setting.batch
    flops.check_match(image, target)
    return Duel(setting, peer, ours, (image, target), precisions())


def convolution_rows(calls: Mapping[Convolution, int], timings: Mapping[str, Timing]) -> Rows:
    """Returns the rates of the convolutions of a step, each on its own, and of all as often as the step runs them."""
    rows: Rows = []
    flop = seconds = 0.0
    for shape, times in calls.items():
        timing = timings[str(shape)]
        rows.append({"convolution": str(shape), "calls": times, "GFLOP/s": timing.rate(timing.work / 1e9)})
        flop, seconds = flop + times * timing.work, seconds + times * timing.spread.median
    rows.append({"convolution": "all, one after the other", "GFLOP/s": flop / seconds / 1e9})
    return rows


def measure(
    setting: Setting, rounds: int, place: Callable[[Make], AbstractContextManager[Call]] = apart
) -> tuple[dict[str, Rows], list[Goal]]:
    """Returns the tables and goals of one size; `place` says in which process a contestant runs."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        duels = []
        for name, width in setting.widths:
            duels.append(duel(setting, build(name, setting, width), Path(folder) / name))
        calls = [flops.convolutions(step(match.ours)) for match in duels]
        peaks, rates = rooflines(set().union(*calls), precisions())
        steps = {
            name: Contestant(stack.enter_context(place(make)), images)
            for match in duels
            for name, (make, images) in match.contestants(Path(folder) / match.peer.package).items()
        }
        timings = alternate({**peaks, **steps}, rounds=rounds, warmup=2)
    return tables(setting, duels, timings, rates, calls), [
        goal for precision in precisions() for goal in goals(setting, duels, timings, precision)
    ]


def rooflines(
    shapes: set[Convolution], kinds: Sequence[Precision]
) -> tuple[dict[str, Contestant], dict[Precision, dict[str, Timing]]]:
    """Returns the fastest convolution of each precision by the precision's name, and the timings of all of them."""
    peaks: dict[str, Contestant] = {}
    rates: dict[Precision, dict[str, Timing]] = {}
    for precision in kinds:
        alone = flops.contestants(shapes, "cpu", dtype=DTYPES[precision])
        rates[precision] = alternate(alone, rounds=ROOFLINE_ROUNDS)
        # Right after a step its tensors are not in the cache; repeated calls measure it with a warm cache.
        peaks[precision] = alone[flops.roofline(rates[precision])].repeated(ROOFLINE_CALLS)
    return peaks, rates


def tables(
    setting: Setting,
    duels: Sequence[Duel],
    timings: Mapping[str, Timing],
    rates: Mapping[Precision, Mapping[str, Timing]],
    calls: Sequence[Mapping[Convolution, int]],
) -> dict[str, Rows]:
    """Returns the table of steps, with the precision of each row, and of the convolutions of our steps."""
    found = {
        f"Training, {setting}": [row for p in rates for match in duels for row in match.rows(timings, timings[p], p)]
    }
    for precision, alone in rates.items():
        for match, shapes in zip(duels, calls, strict=True):
            title = f"Convolutions of a step, {setting}, {match.widths}, {precision}"
            found[title] = convolution_rows(shapes, alone)
    return found


def goals(setting: Setting, duels: Sequence[Duel], timings: Mapping[str, Timing], precision: Precision) -> list[Goal]:
    """Returns the goals of one precision: those of the duel that goes worse."""
    figures = [match.figures(timings, timings[precision], precision) for match in duels]
    speedup, share = (min(figure[i].median for figure in figures) for i in (0, 1))
    at = f"{setting}, {precision}"
    return [
        Goal(f"{at}: training images/s against the better peer", speedup, SPEEDUP[precision]),
        Goal(f"{at}: share of the convolution roofline", share, SHARE),
    ]


def main() -> None:
    options = common.parser(__doc__, "training")
    options.add_argument("--sizes", type=int, nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    peers.require()
    measured: dict[str, Rows] = {}
    reached: list[Goal] = []
    for size in chosen.sizes:
        print(f"measuring {SETTINGS[size]}", flush=True)
        found, bounds = measure(SETTINGS[size], chosen.rounds)
        measured |= found
        reached += bounds
    common.finish(reached, measured, chosen.out, check=chosen.check)


if __name__ == "__main__":
    main()
