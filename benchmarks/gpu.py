"""Training and sampling on a CUDA device, against diffusers and against the rate of a bf16 matrix product.

    python -m benchmarks.gpu [--device cuda] [--minutes 8] [--sizes 32 64] [--no-compile] [--out FILE] [--check]

Optional accelerations are timed beside the package's defaults: compilation, CUDA graphs, and the memory layout. A
variant that is not available here, or for which no time is left, has the reason in its row. The benchmark runs
unattended within its minutes. On the CPU it runs the same code with tiny images, which shows only that it works.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks import common, flops, peers
from benchmarks.common import Contestant, Goal, Rows, Timing, alternate
from benchmarks.peers import Peer
from benchmarks.training import Setting, step
from benchmarks.variants import DEFAULT, SAMPLING_STEPS, Prepared, Section, Variant, prepare, reason, repeated, section
from diffusion.training.trainer import Trainer

SETTINGS = {
    8: Setting(8, 3, 4, (4,), (("diffusers", 32),)),
    32: Setting(32, 3, 256, (64, 256), (("diffusers", 128),)),
    64: Setting(64, 3, 64, (16, 64), (("diffusers", 128),)),
}
MATMUL = {"cuda": (2048, 4096, 8192, 16384), "cpu": (256, 512)}
SHARE, SPEEDUP = 0.45, 2.0
PEER, PEER_BF16 = "diffusers, fp32 (its default)", "diffusers, bf16"


def matmul(device: torch.device, rounds: int) -> tuple[Rows, str, Contestant]:
    """Returns the rates of square bf16 matrix products, and the name and contestant of the best one."""
    contestants = {}
    for n in MATMUL[device.type]:
        a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
        contestants[f"{n} x {n}"] = repeated(partial(torch.mm, a, b), 2.0 * n**3, device)
    timings = alternate(contestants, rounds=rounds, warmup=2, device=device)
    best = flops.roofline(timings)
    rows: Rows = [{"bf16 matmul": name, "TFLOP/s": timing.rate(timing.work / 1e12)} for name, timing in timings.items()]
    return rows, best, contestants[best]


def layouts(ours: Trainer, device: torch.device, rounds: int) -> Rows:
    """Returns the rates of the convolutions of a step, each on its own, in both memory layouts."""
    shapes = flops.convolutions(step(ours))
    formats = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
    contestants = {
        f"{layout}: {name}": repeated(contestant.call, contestant.work, device)
        for layout, memory_format in formats.items()
        for name, contestant in flops.contestants(shapes, device, memory_format).items()
    }
    timings = alternate(contestants, rounds=rounds, warmup=2, device=device)
    rows = []
    for shape in shapes:
        last, first = (timings[f"{layout}: {shape}"] for layout in formats)
        rate = {layout: t.rate(t.work / 1e12) for layout, t in zip(formats, (last, first), strict=True)}
        rows.append({"convolution, TFLOP/s": str(shape), **rate, "ratio": last.over(first)})
    return rows


def compare(
    variants: Mapping[str, Variant], device: torch.device, rounds: int, until: float, extra: Mapping[str, Contestant]
) -> tuple[Prepared, dict[str, Timing]]:
    """Prepares the variants and times those that are ready, with `extra` among them."""
    ready = prepare(variants, device, until)
    budget = max(0.0, until - time.monotonic())
    return ready, alternate({**ready.contestants, **extra}, rounds=rounds, budget=budget, device=device)


def ratios(timings: Mapping[str, Timing], name: str) -> dict[str, object]:
    """Returns a variant's rate as a multiple of our default, and of the peer in each of its two precisions."""
    references = {"times ours": DEFAULT, "times diffusers fp32": PEER, "times diffusers bf16": PEER_BF16}
    return {
        column: timings[name].over(timings[reference])
        for column, reference in references.items()
        if reference in timings and reference != name
    }


def training(part: Section, best: str, product: Contestant, rounds: int, until: float) -> tuple[Rows, list[Goal]]:
    """Returns the table and goals of training at one size."""
    variants = {
        DEFAULT: Variant(part.train),
        PEER: Variant(partial(part.train_peer, bf16=False)),
        PEER_BF16: Variant(partial(part.train_peer, bf16=True)),
        f"{DEFAULT}, channels last not asked for": Variant(part.train_channels_first),
        **part.optional("train", part.train),
    }
    ready, timings = compare(variants, part.device, rounds, until, {best: product})
    rows: Rows = []
    value = {"speedup": math.nan, "share": math.nan}
    for name in variants:
        row: dict[str, object] = {"trainer": name}
        if name in timings:
            timing = timings[name]
            work = timing.work * (part.peer_image if name in (PEER, PEER_BF16) else part.image)
            share = replace(timing, work=work).over(timings[best])
            row |= {"images/s": timing.rate(), "TFLOP/s": timing.rate(work / 1e12)}
            row |= {"share of matmul": share, **ratios(timings, name)}
            if name == DEFAULT:
                value["share"] = share.median
                value["speedup"] = timing.over(timings[PEER]).median if PEER in timings else math.nan
        rows.append({**row, **_aside(ready, name)})
    return rows, goals(part.setting, value["speedup"], value["share"])


def goals(setting: Setting, speedup: float, share: float) -> list[Goal]:
    """Returns the goals of training at one size."""
    return [
        Goal(f"{setting}: training images/s against diffusers' script", speedup, SPEEDUP),
        Goal(f"{setting}: share of the bf16 matmul rate in training", share, SHARE),
    ]


def sampling(part: Section, rounds: int, until: float) -> Rows:
    """Returns the table of sampling at one size."""
    variants = {
        DEFAULT: Variant(part.sample),
        f"{DEFAULT}, fp32": Variant(partial(part.sample, precision="fp32")),
        PEER: Variant(partial(part.sample_peer, bf16=False)),
        PEER_BF16: Variant(partial(part.sample_peer, bf16=True)),
        **part.optional("sample", part.sample),
    }
    ready, timings = compare(variants, part.device, rounds, until, {})
    return [
        {
            "sampler": name,
            **({"images/s": timings[name].rate(), **ratios(timings, name)} if name in timings else {}),
            **_aside(ready, name),
        }
        for name in variants
    ]


def _aside(ready: Prepared, name: str) -> dict[str, object]:
    memory = {"peak GiB": ready.memory[name] / 2**30} if name in ready.memory else {}
    return {**memory, **({"note": ready.notes[name]} if name in ready.notes else {})}


def measure(
    settings: Sequence[Setting],
    peer: type[Peer],
    device: torch.device,
    *,
    minutes: float,
    rounds: int,
    compile: bool = True,
) -> tuple[dict[str, Rows], list[Goal]]:
    """Returns all tables and goals. Each size gets an equal share of the time, two thirds of it for training.

    A size that fails has a table with the reason; the sizes after it are measured all the same.
    """
    begin = time.monotonic()
    rows, best, product = matmul(device, rounds)
    tables = {"Matrix products": rows}
    bounds: list[Goal] = []
    for number, setting in enumerate(settings):
        until = begin + 60 * minutes * (number + 1) / len(settings)
        halt = time.monotonic() + (until - time.monotonic()) * 2 / 3
        found = goals(setting, math.nan, math.nan)
        try:
            with tempfile.TemporaryDirectory() as folder:
                part = section(setting, peer, Path(folder), device, compile=compile)
                title = f"{setting}, {part.image / 1e9:.1f} GFLOP per image and step, ours {part.widths}"
                tables[f"Training, {title}"], found = training(part, best, product, rounds, halt)
                tables[f"Sampling, {SAMPLING_STEPS[device.type]} steps, {title}"] = sampling(part, rounds, until)
                tables[f"Convolutions, {title}"] = layouts(part.trainer("layouts"), device, rounds)
        except Exception as error:
            tables[f"{setting}, not finished"] = [{"reason": reason(error)}]
        bounds += found
    return tables, bounds


def main() -> None:
    options = common.parser(__doc__, "gpu")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--minutes", type=float, default=8.0, help="time for the whole benchmark")
    options.add_argument("--sizes", type=int, nargs="+", choices=SETTINGS, help="default: 32 64, on the CPU 8")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    chosen = options.parse_args()
    peers.require()
    device = torch.device(chosen.device)
    sizes = chosen.sizes or ([32, 64] if device.type == "cuda" else [8])
    tables, bounds = measure(
        [SETTINGS[size] for size in sizes],
        peers.Diffusers,
        device,
        minutes=chosen.minutes,
        rounds=chosen.rounds,
        compile=chosen.compile,
    )
    common.finish(bounds, tables, chosen.out, check=chosen.check, device=device)


if __name__ == "__main__":
    main()
