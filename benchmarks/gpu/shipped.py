"""Training and sampling by the shipped configurations, with their own widths and batches, on images of noise."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import shapes
from benchmarks.common import Contestant, Goal, Rows, Spread, Timing, alternate
from benchmarks.gpu.kernels import best_product
from benchmarks.gpu.parts import NOTE, UNREACHED, Finding
from benchmarks.gpu.place import Meter, Place
from benchmarks.gpu.variants import COMPILE_S, Ours, Variant, graphed, is_compiled, prepare, whole
from diffusion import config
from diffusion.backbones import Backbone
from diffusion.config import Config
from diffusion.data import Dataset, DataSpec
from diffusion.data.dataset import standardized

NAMES = ("cifar10", "folder64", "folder128", "folder256")
EXAMPLES = {False: 512, True: 32}
# Small networks of the same design, for what does not depend on the size, and tiny ones for a CPU.
SMALL = (
    "data.size=32",
    "backbone.channels=[64,128]",
    "backbone.blocks=1",
    "backbone.attention=[1]",
    "training.batch=8",
    "training.compile=false",
)
TINY = (
    "data.size=12",
    "data.margin=1",
    "backbone.channels=[16,32]",
    *SMALL[2:4],
    "backbone.patch=1",
    "training.batch=4",
    "training.compile=false",
)
EAGER, BLOCKS, SHIPPED = "eager", "blocks compiled", " (as shipped)"
SHARE, OVERLAP = 0.45, 0.95
SAMPLES = {12: 2, 32: 256, 64: 256, 128: 64, 256: 32}
FEW = 4


def ours(name: str, place: Place, folder: Path, overrides: Sequence[str] | None = None) -> Ours:
    """Returns the experiment of a shipped configuration; on a tiny place, a tiny one of its design."""
    chosen = overrides if overrides is not None else TINY if place.tiny else ()
    experiment = config.load(Path(name), [*chosen, "training.steps=1000000"])
    return Ours(experiment, noise(experiment, EXAMPLES[place.tiny]), folder, place)


def noise(experiment: Config, count: int) -> Dataset:
    """Returns images of uniform noise in memory, with the margin of an experiment but without labels."""
    data = experiment.data
    height, width = data.shape
    stored = count, data.channels, height + 2 * data.margin, width + 2 * data.margin
    values = np.random.default_rng(0).integers(0, 256, stored, dtype=np.uint8)
    spec = DataSpec((data.channels, height, width), 256)
    return standardized(Dataset(values, spec, None, tuple(map(str, range(count))), data.margin))


def goals(name: str) -> tuple[Goal, ...]:
    """Returns the goals of a configuration, not measured yet."""
    return (
        Goal(f"{name}: share of the bf16 matmul rate in training", float("nan"), SHARE),
        Goal(f"{name}: rate with batches made, over the rate on one given", float("nan"), OVERLAP),
    )


def measure(name: str, place: Place, until: float, *, rounds: int = 5, compile: bool = True) -> Iterator[Finding]:
    """Yields the tables and goals of one configuration: training first, then sampling."""
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(name, place, Path(folder))
        halt = time.monotonic() + (until - time.monotonic()) * 0.7
        yield from training(name, mine, halt, rounds, compile=compile)
        yield from sampling(name, mine, until, rounds, compile=compile)


def training(name: str, mine: Ours, until: float, rounds: int, *, compile: bool) -> Iterator[Finding]:
    """Yields the table of training and its goals, again after each phase: first what needs no compilation."""
    plain = mine.trainer("as-shipped")
    shipped = BLOCKS if is_compiled(plain.network) else EAGER
    eager = {
        EAGER: Variant(partial(mine.train, "training.compile=false")),
        "channels last not asked for": Variant(mine.train_channels_first),
        "convolutions searched (cudnn.benchmark)": Variant(mine.train_searched),
        "CUDA graphs": Variant(partial(mine.train, "training.compile=false", change=graphed)),
    }
    seconds = COMPILE_S["train"]
    compiled = {
        BLOCKS: Variant(partial(mine.train, "training.compile=true"), seconds),
        "network compiled as one": Variant(partial(mine.train, "training.compile=false", change=whole), seconds),
    }
    names = [*eager, *(compiled if compile else ())]
    rows = {n: {"trainer": n + SHIPPED * (n == shipped), NOTE: UNREACHED} for n in names}
    image = shapes.cost(mine.experiment).training
    title = f"Training by {name}, batch {mine.experiment.training.batch}, {image / 1e9:.3g} GFLOP per image and step"
    yield title, list(rows.values())
    product, peak = best_product(mine.place)
    for phase in (eager, {EAGER: eager[EAGER], **compiled}) if compile else (eager,):
        ready = prepare(phase, mine.place.device, until)
        calls = {f"{n}: {what}": call for n, found in ready.contestants.items() for what, call in found.items()}
        with Meter(mine.place.device) as meter:
            timings = timed({product: peak, **calls}, mine.place, rounds, until)
        for variant in phase:
            rows[variant] = {"trainer": str(rows[variant]["trainer"])}
            if variant in ready.contestants:
                found = {what: timings[f"{variant}: {what}"] for what in ("given", "made", "host")}
                rows[variant] |= figures(found, timings[product], image, mine.repeats)
                rows[variant] |= memory(ready.memory.get(variant), mine.experiment.training.batch) | meter.found
            else:
                rows[variant][NOTE] = ready.notes[variant]
        yield title, list(rows.values())
        if "share of matmul" in rows.get(shipped, {}):
            yield from bounds(name, rows[shipped])


def timed(calls: Mapping[str, Contestant], place: Place, rounds: int, until: float) -> dict[str, Timing]:
    """Returns the seconds of calls that take turns, until a second of the monotonic clock."""
    budget = max(0.0, until - time.monotonic())
    return alternate(calls, rounds=rounds, budget=budget, device=place.device, seconds=place.seconds)


def figures(found: Mapping[str, Timing], product: Timing, image: float, repeats: int) -> dict[str, object]:
    """Returns the figures of a row from the timings of steps on a given batch, on batches made, and of their making."""
    given, made = found["given"], found["made"]
    return {
        "images/s, batch given": given.rate(),
        "images/s, batch made": made.rate(),
        "made over given": made.over(given),
        "ms a step": scaled(given.spread, 1e3 / repeats),
        "host's ms a batch": scaled(found["host"].spread, 1e3),
        "TFLOP/s": given.rate(given.work * image / 1e12),
        "share of matmul": replace(made, work=made.work * image).over(product),
    }


def scaled(spread: Spread, factor: float) -> Spread:
    """Returns a figure in another unit."""
    return Spread(spread.median * factor, spread.low * factor, spread.high * factor)


def memory(peak: int | None, batch: int) -> dict[str, object]:
    """Returns the peak memory of training beyond what was held before it, in all and per image."""
    return {} if peak is None else {"peak GiB": peak / 2**30, "MiB per image": peak / 2**20 / batch}


def bounds(name: str, row: Mapping[str, object]) -> Iterator[Goal]:
    """Yields the goals of a configuration with the values of its row."""
    for goal, column in zip(goals(name), ("share of matmul", "made over given"), strict=True):
        figure = row[column]
        assert isinstance(figure, Spread)
        yield replace(goal, value=figure.median)


def sampling(name: str, mine: Ours, until: float, rounds: int, *, compile: bool) -> Iterator[Finding]:
    """Yields the table of sampling, of few images and of many."""
    tiny = mine.place.tiny
    steps, size = 2 if tiny else 15, mine.data.spec.shape[-1]
    title = f"Sampling by {name}, {steps} steps"
    variants: dict[str, Variant] = {}
    numbers: dict[str, int] = {}
    for n in (1, 2) if tiny else (FEW, SAMPLES[size]):
        build = partial(mine.sample, n, steps)
        kinds = {EAGER: Variant(build), "fp32": Variant(partial(build, precision="fp32"))}
        kinds["CUDA graphs"] = Variant(partial(build, change=graphed))
        if compile:
            kinds[BLOCKS] = Variant(partial(build, change=blocks), COMPILE_S["sample"])
        variants |= {f"{kind}, {n} images": variant for kind, variant in kinds.items()}
        numbers |= {f"{kind}, {n} images": n for kind in kinds}
    variants = dict(sorted(variants.items(), key=lambda item: item[1].seconds))
    yield title, [{"sampler": variant, NOTE: UNREACHED} for variant in variants]
    ready = prepare(variants, mine.place.device, until)
    timings = timed({v: found["sample"] for v, found in ready.contestants.items()}, mine.place, rounds, until)
    rows: Rows = []
    for variant in variants:
        row: dict[str, object] = {"sampler": variant}
        if variant in timings:
            row |= {"images/s": timings[variant].rate(), "ms a step": scaled(timings[variant].spread, 1e3 / steps)}
            row |= memory(ready.memory.get(variant), numbers[variant])
        else:
            row[NOTE] = ready.notes[variant]
        rows.append(row)
    yield title, rows


def blocks(network: Backbone, shape: Sequence[int], device: object) -> None:
    """Compiles each block of a network, in place."""
    network.compile_blocks()
