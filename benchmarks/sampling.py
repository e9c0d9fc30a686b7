"""The speed of sampling against public packages, and how few denoiser evaluations (NFE) a good sample needs.

    python -m benchmarks.sampling --data DIR --models FOLDER [--only NAME ...] [--reference 1000] [--rounds 5]
                                  [--out FILE] [--check]

DIR holds the four original .gz files of Fashion-MNIST; FOLDER is what `python -m benchmarks.quality` left beside its
JSON. One table compares the images/s of untrained networks of equal FLOP per evaluation, and one the images/s by batch
size. For each of our trained models there are the Fréchet distance of every sampler by NFE, beside that of the model's
own sampler at `--reference` evaluations, the distances of three timestep grids, and those of distilled models. The last
table has seconds per 1,000 images, where ours takes the fewest evaluations that reach the quality of the peer's own
50 steps.
"""

from __future__ import annotations

import math
import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path

from benchmarks import common, nfe, peers, quality, training
from benchmarks.common import Call, Contestant, Goal, Make, Rows, Timing, alternate, apart
from benchmarks.judge import Images
from benchmarks.quality import PEER_STEPS, Referee
from benchmarks.training import Setting
from diffusion.model import Model, load
from diffusion.samplers import SAMPLERS

NFE = (4, 6, 8, 12, 16, 24, 50)
FEW = (2, 3, 4, 5, 6, 8, 12, 16, 24, 50)
BATCHES, BATCH_STEPS, IMAGES = (8, 32, 64, 128, 256), 2, 256
STEPS = 10
BATCH = 64
FEWEST, SPEEDUP = 12, 15.0


def make_untrained(setting: Setting, widths: tuple[int, ...], run: Path) -> Call:
    """Returns a call that samples a batch with our default sampler, from a network with random weights."""
    model, n = training.trainer(setting, widths, run).model, setting.batch
    return lambda: model.sample(n, steps=STEPS, batch=n)


def make_untrained_peer(package: str, setting: Setting, width: int) -> Call:
    """Returns a call that samples a batch with a peer's sampler, from a network with random weights."""
    peer = training.build(package, setting, width)
    return lambda: peer.sample(setting.batch, STEPS)


def make_trained(run: Path, steps: int) -> Call:
    """Returns a call that samples a batch from a trained model of ours, with its own sampler."""
    model = load(run)
    return lambda: quality.draw(model, BATCH, steps=steps)


def make_trained_peer(package: str, folder: Path) -> Call:
    """Returns a call that samples a batch from a trained peer."""
    peer = quality.load_peer(package, folder)
    return lambda: peer.sample(BATCH, PEER_STEPS)


def take_turns(ours: Make, theirs: Make, images: int, rounds: int) -> tuple[Timing, Timing]:
    """Times `ours` and `theirs` by turns, each in a process of its own; a call makes `images` images."""
    with apart(ours) as first, apart(theirs) as second:
        pair = {"ours": Contestant(first, images), "theirs": Contestant(second, images)}
        timings = alternate(pair, rounds=rounds)
    return timings["ours"], timings["theirs"]


def speed(size: int, rounds: int) -> Rows:
    """Returns the images/s of our default sampler and of each peer's, at 10 evaluations of networks of equal cost."""
    setting = training.SETTINGS[size]
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, width in setting.widths:
            match = training.duel(setting, training.build(name, setting, width), Path(folder) / name)
            ours, theirs = take_turns(
                partial(make_untrained, setting, match.widths, Path(folder) / name),
                partial(make_untrained_peer, name, setting, width),
                setting.batch,
                rounds,
            )
            rows.append(
                {
                    "images": str(setting),
                    "against": name,
                    "our widths": str(match.widths),
                    "ours, images/s": ours.rate(),
                    "theirs": theirs.rate(),
                    "ratio": ours.over(theirs),
                }
            )
    return rows


def batch_sizes(size: int, rounds: int) -> Rows:
    """Returns the images/s of an untrained network by batch size; None is the batch size that the package chooses."""
    setting = training.SETTINGS[size]
    _, width = setting.widths[0]
    with tempfile.TemporaryDirectory() as folder:
        model = training.trainer(setting, (width,) * 3, Path(folder)).model
        timings = alternate(
            {
                str(batch): Contestant(partial(model.sample, IMAGES, steps=BATCH_STEPS, batch=batch), IMAGES)
                for batch in (*BATCHES, None)
            },
            rounds=rounds,
        )
    return [{"images": str(setting), "batch": name, "images/s": t.rate()} for name, t in timings.items()]


def fewest_steps(model: Model, referee: Referee, samples: int, target: float) -> tuple[int, float]:
    """Returns the fewest steps of the model's own sampler with a distance of at most `target`, and that distance.

    Raises ValueError if no number of steps in FEW reaches the target.
    """
    for steps in FEW:
        distance = referee.distance(quality.draw(model, samples, steps=steps))
        if distance <= target:
            return steps, distance
    raise ValueError(f"no number of steps up to {FEW[-1]} comes to a distance of {target:.1f}; train for longer")


def equal_quality(run: Path, folder: Path, referee: Referee, samples: int, rounds: int) -> Rows:
    """Returns the seconds per 1,000 images of each peer at 50 steps, and of ours at no worse a Fréchet distance.

    A peer is left out if benchmarks.quality left no samples of it in `folder`.
    """
    rows: Rows = []
    for name in peers.PEERS:
        left = quality.samples_left(name, folder)
        if left is None:
            continue
        target = referee.distance(left)
        steps, distance = fewest_steps(load(run), referee, samples, target)
        ours, theirs = take_turns(
            partial(make_trained, run, steps), partial(make_trained_peer, name, folder), BATCH, rounds
        )
        rows.append(
            {
                "against": name,
                "its distance": target,
                "ours": distance,
                "our steps": steps,
                "its s per 1,000": per_thousand(theirs),
                "ours, s per 1,000": per_thousand(ours),
                "times faster": ours.over(theirs),
            }
        )
    return rows


def per_thousand(timing: Timing) -> common.Spread:
    """Returns seconds per 1,000 images."""
    return common.Spread.of([1000 * s / timing.work for s in timing.seconds])


def of_model(name: str, chosen: Namespace, images: Images, referee: Referee) -> tuple[dict[str, Rows], list[Goal]]:
    """Returns the tables and goals of one of our trained models."""
    run, samples = chosen.models / name, chosen.samples
    model = load(run)
    tables: dict[str, Rows] = {}
    goals = []
    if chosen.nfe:
        distances = nfe.curves(model, referee, samples, chosen.nfe)
        limit = referee.distance(quality.draw(model, samples, steps=chosen.reference))
        tables[f"Fréchet distance by NFE, {name}; {limit:.2f} at {chosen.reference:,}"] = [
            {"sampler": sampler, "NFE": count, "distance": distance}
            for sampler, row in distances.items()
            for count, distance in row.items()
        ]
        own = next(key for key, kind in SAMPLERS.items() if type(model.config.sampler) is kind)
        best = nfe.needed(distances[own], limit)
        goals.append(Goal(f"{name}: NFE to come within 5 % of {chosen.reference:,}", best, FEWEST, "at most"))
        tables[f"Fréchet distance by grid, {name}"] = nfe.grids(model, referee, samples)
    if chosen.student_steps:
        rows = nfe.students(run, images, referee, samples, chosen.student_steps)
        tables[f"Distilled models after {chosen.student_steps:,} steps of training, {name}"] = rows
    rows = equal_quality(run, chosen.models, referee, samples, chosen.rounds)
    tables[f"Seconds per 1,000 images at the peer's quality, {name}"] = rows
    times = [row["times faster"].median for row in rows if isinstance(row["times faster"], common.Spread)]
    goals.append(Goal(f"{name}: times faster at the peer's 50-step quality", min(times, default=math.nan), SPEEDUP))
    return tables, goals


def main() -> None:
    options = common.parser(__doc__, "sampling")
    options.add_argument("--data", type=Path, required=True, help="folder of the four .gz files")
    options.add_argument("--only", nargs="*", choices=quality.OURS, default=list(quality.OURS), help="trained models")
    options.add_argument("--models", type=Path, default=Path("runs/benchmark-quality"))
    options.add_argument("--sizes", type=int, nargs="*", choices=training.SETTINGS, default=list(training.SETTINGS))
    options.add_argument("--nfe", type=int, nargs="*", default=list(NFE), help="none leaves these tables out")
    options.add_argument("--student-steps", type=int, default=2000, help="to distill a model; 0 for none")
    options.add_argument("--reference", type=int, default=1000, help="NFE that the others are compared with")
    options.add_argument("--samples", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    peers.require()
    images = Images.read(chosen.data, "train")
    referee = Referee.of(chosen.data, images, chosen.models)
    tables: dict[str, Rows] = {}
    goals: list[Goal] = []
    if chosen.sizes:
        tables[f"Sampling at {STEPS} evaluations, untrained networks of equal FLOP"] = [
            row for size in chosen.sizes for row in speed(size, chosen.rounds)
        ]
        tables["Sampling by batch size"] = [row for size in chosen.sizes for row in batch_sizes(size, chosen.rounds)]
    for name in chosen.only:
        more, found = of_model(name, chosen, images, referee)
        tables |= more
        goals += found
    common.finish(goals, tables, chosen.out, check=chosen.check)


if __name__ == "__main__":
    main()
