"""The speed of sampling against public packages, and how few calls of the network a good sample needs.

    python -m benchmarks.sampling --data DIR --models FOLDER [--reference 1000] [--rounds 5] [--out FILE] [--check]

DIR holds the four original .gz files of Fashion-MNIST; FOLDER is what `python -m benchmarks.quality` left beside its
JSON. Three tables: images/s of untrained networks of equal FLOP per call; the Fréchet distance of every sampler at a
number of calls, for each of our trained models, and at `--reference` calls of the same model's default sampler; seconds
per 1,000 images, ours with as few calls as give at least the quality that the peer's own 50 steps give.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import common, peers, quality, training
from benchmarks.common import Contestant, Goal, Timing, alternate
from benchmarks.quality import PEER_STEPS, Referee
from diffusion.backbones import UNetConfig
from diffusion.model import Model, load
from diffusion.samplers import SAMPLERS

CALLS = (4, 6, 8, 12, 16, 24, 50)
FEW = (2, 3, 4, 5, 6, 8, 12, 16, 24, 50)
STEPS = 10
BATCH = 64
NEAR, FEWEST, SPEEDUP = 0.05, 12, 15.0

Rows = list[dict[str, object]]


def speed(size: int, rounds: int) -> Rows:
    """Images/s of our default sampler and of each peer's, at 10 calls of networks of equal cost."""
    setting = training.SETTINGS[size]
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, width in setting.widths:
            peer = peers.PEERS[name](size, setting.channels, width, device="cpu")
            match = training.duel(setting, peer, Path(folder) / name)
            model, n = match.ours.model, setting.batch
            timings = alternate(
                {
                    "ours": Contestant(lambda model=model, n=n: model.sample(n, steps=STEPS, batch=n), n),
                    name: Contestant(lambda peer=peer, n=n: peer.sample(n, STEPS), n),
                },
                rounds=rounds,
            )
            network = match.ours.config.backbone
            assert isinstance(network, UNetConfig)
            rows.append(
                {
                    "images": str(setting),
                    "against": name,
                    "our widths": str(network.channels),
                    "ours, images/s": timings["ours"].rate(),
                    "theirs": timings[name].rate(),
                    "ratio": timings["ours"].over(timings[name]),
                }
            )
    return rows


def calls_needed(distances: dict[int, float], reference: float) -> float:
    """The fewest calls whose distance is at most 5 % above the reference; not a number if none is."""
    near = [calls for calls, distance in distances.items() if distance <= (1 + NEAR) * reference]
    return float(min(near, default=float("nan")))


def curves(model: Model, referee: Referee, samples: int, calls: Sequence[int]) -> dict[str, dict[int, float]]:
    """Fréchet distance by sampler and calls per sample; a guided call, of a doubled batch, counts once."""
    found: dict[str, dict[int, float]] = {}
    for name, sampler in SAMPLERS.items():
        each = sampler().calls_per_step
        found[name] = {}
        for count in calls:
            # The last step of a two-call sampler takes one.
            steps = count if each == 1 else (count + 1) // 2
            x = quality.draw(model, samples, steps=steps, sampler=name)
            found[name][count] = referee.distance(x)
            print(f"{name} {count}: {found[name][count]:.2f}", flush=True)
    return found


def fewest_steps(model: Model, referee: Referee, samples: int, target: float) -> tuple[int, float]:
    """The fewest calls of the model's own sampler with a distance of at most the target, and that distance."""
    for steps in FEW:
        distance = referee.distance(quality.draw(model, samples, steps=steps))
        if distance <= target:
            return steps, distance
    raise ValueError(f"no number of steps up to {FEW[-1]} comes to a distance of {target:.1f}; train for longer")


def equal_quality(model: Model, folder: Path, referee: Referee, samples: int, rounds: int) -> Rows:
    """Seconds per 1,000 images of each peer at 50 steps, and ours at its quality."""
    rows: Rows = []
    for name in peers.PEERS:
        peer = quality.build_peer(name)
        peer.restore(torch.load(folder / f"{name}.pt", weights_only=True))
        target = referee.distance(quality.draw_peer(peer, samples))
        steps, distance = fewest_steps(model, referee, samples, target)
        timings = alternate(
            {
                "ours": Contestant(lambda steps=steps: model.sample(BATCH, steps=steps, batch=BATCH), BATCH),
                name: Contestant(lambda peer=peer: peer.sample(BATCH, PEER_STEPS), BATCH),
            },
            rounds=rounds,
        )
        rows.append(
            {
                "against": name,
                "its distance": target,
                "ours": distance,
                "our calls": steps,
                "its s per 1,000": per_thousand(timings[name]),
                "ours, s per 1,000": per_thousand(timings["ours"]),
                "times faster": timings["ours"].over(timings[name]),
            }
        )
    return rows


def per_thousand(timing: Timing) -> common.Spread:
    """Seconds per 1,000 images."""
    return common.Spread.of([1000 * s / timing.work for s in timing.seconds])


def main() -> None:
    options = common.parser(__doc__, "sampling")
    options.add_argument("--data", type=Path, required=True, help="folder of the four .gz files")
    options.add_argument("--models", type=Path, default=Path("runs/benchmark-quality"))
    options.add_argument("--sizes", type=int, nargs="*", choices=training.SETTINGS, default=list(training.SETTINGS))
    options.add_argument("--calls", type=int, nargs="+", default=list(CALLS))
    options.add_argument("--reference", type=int, default=1000, help="calls that few calls are compared with")
    options.add_argument("--samples", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    peers.require()
    referee = Referee.of(chosen.data)
    tables: dict[str, Rows] = {}
    goals: list[Goal] = []
    if chosen.sizes:
        tables[f"Sampling at {STEPS} calls, untrained networks of equal FLOP"] = [
            row for size in chosen.sizes for row in speed(size, chosen.rounds)
        ]
    for name in quality.OURS:
        model = load(chosen.models / name)
        distances = curves(model, referee, chosen.samples, chosen.calls)
        limit = referee.distance(quality.draw(model, chosen.samples, steps=chosen.reference))
        tables[f"Fréchet distance by calls, {name}; {limit:.2f} at {chosen.reference:,} calls"] = [
            {"sampler": sampler, **{str(calls): d for calls, d in row.items()}} for sampler, row in distances.items()
        ]
        best = min(calls_needed(row, limit) for row in distances.values())
        goals.append(Goal(f"{name}: calls to come within 5 % of {chosen.reference:,}", best, FEWEST, "at most"))
        rows = equal_quality(model, chosen.models, referee, chosen.samples, chosen.rounds)
        tables[f"Seconds per 1,000 images at the peer's quality, {name}"] = rows
        slowest = min(row["times faster"].median for row in rows if isinstance(row["times faster"], common.Spread))
        goals.append(Goal(f"{name}: times faster at the peer's 50-step quality", slowest, SPEEDUP))
    common.finish(goals, tables, chosen.out, check=chosen.check)


if __name__ == "__main__":
    main()
