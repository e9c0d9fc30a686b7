"""Training and sampling beside diffusers, where it is installed, with widths of ours that match its work per image."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import training
from benchmarks.common import Contestant, Goal, Rows, Timing, alternate
from benchmarks.gpu.kernels import best_product
from benchmarks.gpu.parts import NOTE, UNREACHED, Finding
from benchmarks.gpu.place import Place
from benchmarks.gpu.shipped import memory, timed
from benchmarks.gpu.variants import Ours, Variant, prepare
from benchmarks.peers import PEERS, Peer, missing
from benchmarks.training import Setting, peer_step

SETTINGS = {
    8: Setting(8, 3, 4, (4,), (("diffusers", 32),)),
    32: Setting(32, 3, 256, (64, 256), (("diffusers", 128),)),
    64: Setting(64, 3, 64, (16, 64), (("diffusers", 128),)),
}
SPEEDUP = 2.0
OURS, PEER, PEER_BF16 = "ours", "diffusers, fp32 (its default)", "diffusers, bf16"
RATIOS = {"times diffusers fp32": PEER, "times diffusers bf16": PEER_BF16}


def goal(setting: Setting, value: float = math.nan, needs: str = "") -> Goal:
    """Returns the goal of one size."""
    return Goal(f"{setting}: training images/s against diffusers' script", value, SPEEDUP, needs=needs)


def measure(settings: Sequence[Setting], place: Place, until: float, *, rounds: int = 5) -> Iterator[Finding]:
    """Yields the tables and goals of the settings. Where diffusers is not installed, they say so."""
    absent = "diffusers" if "diffusers" in missing() else ""
    for setting in settings:
        note = f"not measured: {absent} is not installed" if absent else UNREACHED
        for kind in ("Training", "Sampling"):
            yield (
                f"{kind} beside diffusers, {setting}",
                [{"network": name, NOTE: note} for name in (OURS, *RATIOS.values())],
            )
        yield goal(setting, needs=absent)
    for number, setting in enumerate(() if absent else settings):
        halt = time.monotonic() + (until - time.monotonic()) / (len(settings) - number)
        with tempfile.TemporaryDirectory() as folder:
            pair = match(setting, PEERS["diffusers"], Path(folder), place)
            yield from pair.training(time.monotonic() + (halt - time.monotonic()) * 2 / 3, rounds)
            yield from pair.sampling(halt, rounds)


@dataclass(frozen=True)
class Pair:
    """Our network and a peer's, which take as many FLOP per image: `image` has both, ours first."""

    setting: Setting
    ours: Ours
    peer: type[Peer]
    image: tuple[float, float]

    def build(self, *, bf16: bool) -> Peer:
        """Returns a new network of the peer."""
        ((_, width),) = self.setting.widths
        device = self.ours.place.device
        return self.peer(self.setting.size, self.setting.channels, width, device=device, bf16=bf16)

    def train_peer(self, *, bf16: bool) -> dict[str, Contestant]:
        """Returns training steps as in the peer's script, at the better of its batch sizes."""
        peer = self.build(bf16=bf16)
        batch = better_batch(peer, self.setting.peer_batches)
        return {"made": Contestant(peer_step(peer, batch), batch).repeated(self.ours.repeats)}

    def sample_peer(self, n: int, steps: int, *, bf16: bool) -> dict[str, Contestant]:
        """Returns sampling by the peer's own DPM-Solver++ 2M, with the same number of steps."""
        peer = self.build(bf16=bf16)
        return {"sample": Contestant(lambda: peer.sample(n, steps), n)}

    def training(self, until: float, rounds: int) -> Iterator[Finding]:
        """Yields the table and the goal of training; ours is as shipped, and makes its batches."""
        variants = {
            OURS: Variant(self.ours.train),
            PEER: Variant(partial(self.train_peer, bf16=False)),
            PEER_BF16: Variant(partial(self.train_peer, bf16=True)),
        }
        ready = prepare(variants, self.ours.place.device, until)
        name, peak = best_product(self.ours.place)
        calls = {variant: found["made"] for variant, found in ready.contestants.items()}
        timings = timed({name: peak, **calls}, self.ours.place, rounds, until)
        rows: Rows = []
        for variant in variants:
            row: dict[str, object] = {"network": variant}
            if variant in timings:
                timing, image = timings[variant], self.image[variant != OURS]
                row |= {"images/s": timing.rate(), "TFLOP/s": timing.rate(timing.work * image / 1e12)}
                row["share of matmul"] = replace(timing, work=timing.work * image).over(timings[name])
                row |= ratios(timings) if variant == OURS else {}
                row |= memory(ready.memory.get(variant), int(timing.work / self.ours.repeats))
            else:
                row[NOTE] = ready.notes[variant]
            rows.append(row)
        yield f"Training beside diffusers, {self.setting}", rows
        if OURS in timings and PEER in timings:
            yield goal(self.setting, timings[OURS].over(timings[PEER]).median)

    def sampling(self, until: float, rounds: int) -> Iterator[Finding]:
        """Yields the table of sampling."""
        n, steps = (2, 2) if self.ours.place.tiny else (256, 15)
        variants = {
            OURS: Variant(partial(self.ours.sample, n, steps)),
            PEER: Variant(partial(self.sample_peer, n, steps, bf16=False)),
            PEER_BF16: Variant(partial(self.sample_peer, n, steps, bf16=True)),
        }
        ready = prepare(variants, self.ours.place.device, until)
        calls = {variant: found["sample"] for variant, found in ready.contestants.items()}
        timings = timed(calls, self.ours.place, rounds, until)
        rows: Rows = [
            {"network": v, "images/s": timings[v].rate(), **(ratios(timings) if v == OURS else {})}
            if v in timings
            else {"network": v, NOTE: ready.notes[v]}
            for v in variants
        ]
        yield f"Sampling beside diffusers, {self.setting}", rows


def ratios(timings: Mapping[str, Timing]) -> dict[str, object]:
    """Returns our rate as a multiple of the peer's in each of its precisions."""
    return {column: timings[OURS].over(timings[peer]) for column, peer in RATIOS.items() if peer in timings}


def better_batch(peer: Peer, batches: Sequence[int]) -> int:
    """Returns the batch size at which a peer trains the most images per second."""
    calls = {str(batch): Contestant(peer_step(peer, batch), batch) for batch in batches}
    timings = alternate(calls, rounds=2, device=peer.device)
    return int(max(timings, key=lambda batch: timings[batch].rate().median))


def match(setting: Setting, peer: type[Peer], folder: Path, place: Place) -> Pair:
    """Matches our widths to the peer's FLOP per image. Raises ValueError if none match."""
    ((_, width),) = setting.widths
    duel = training.duel(setting, peer(setting.size, setting.channels, width, device=place.device), folder / "matched")
    return Pair(setting, Ours(duel.ours.config, duel.ours.maker.dataset, folder, place), peer, duel.image)
