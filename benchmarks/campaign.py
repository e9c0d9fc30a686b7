"""Faults by the hundred, and whether anything is lost.

    python -m benchmarks.campaign [--kills 300] [--signals 100] [--images 5000] [--files 2000] [--weights 2000]
        [--no-border] [--no-processes] [--seed 0] [--check]

Runs are killed (SIGKILL) or asked to end (SIGTERM) at random moments of start, training, sampling and saving, and
started again by the same command until they end. Then weights, their EMA, optimizer moments, logged numbers and samples
must equal those of an uninterrupted run to the last bit. At no moment may the newest checkpoint be damaged or older
than one seen before. Saving a checkpoint is killed, and made to fail, at each operation on files in turn, and is done
under limits of the size of files.

Images, checkpoints, configurations and files of torch.save are mutated at random. Each must be read, or refused with
one of the package's own errors, within a time limit; nothing may be written elsewhere and no code of the file may run.
Images of every mode, depth, number of bands, profile and orientation go through inspect, train and restore, and what is
known of them must be their own values. In runs of two processes, one of the two is ended by SIGTERM, and in another run
by SIGKILL.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.border_campaign import border
from benchmarks.common import Goal
from benchmarks.data import write_images
from benchmarks.faults import (
    KILLED,
    Outcome,
    digest,
    forked,
    mutated,
    mutated_tree,
    pictures,
    single_threaded,
    state_of,
    watched,
    writes,
)
from benchmarks.weight_files import mutated_weights, weight_files
from diffusion import checkpoint, config, load
from diffusion.checkpoint import CheckpointError, Part, Retention
from diffusion.commands.inspect import toml
from diffusion.config import Config
from diffusion.data import PixelFormat, decode
from diffusion.data.images.decoding import MAX_PIXELS
from diffusion.errors import InputError
from diffusion.exchange import pickled
from diffusion.training import train, trainer

ROOT = Path(__file__).parents[1]
STEPS = 6
SLOW_S, PATIENCE_S = 10.0, 120.0
# Mutated files that one child process reads.
PART = 500


def experiment(images: Path) -> dict[str, dict[str, Any]]:
    """Returns the configuration of a short run that uses all that draws random numbers and saves at each step."""
    return {
        "data": {"path": str(images), "size": 8, "labels": True, "held_out": 0.3, "flip": True, "margin": 1},
        "backbone": {"name": "unet", "channels": [8, 16], "blocks": 1, "attention": [1], "dropout": 0.2},
        "training": {"steps": STEPS, "batch": 8, "accumulate": 2, "precision": "fp32", "warmup": 2},
        "report": {
            "log": 1,
            "samples": 3,
            "evaluate": 3,
            "checkpoint": 1,
            "pictures": 4,
            "images": 4,
            "draws": 2,
            "restored": 1,
        },
        "sampling": {"steps": 2, "precision": "fp32"},
    }


def random_ends(place: Path, kills: int, signals: int, rng: random.Random) -> list[Outcome]:
    """Ends runs at random moments, `kills` and `signals` times in all, and checks that the images are unchanged."""
    images, errors = place / "images", place / "errors.txt"
    write_images(images, 40, 16)
    before, tree = state_of(images), config.from_dict(experiment(images))
    began = time.monotonic()
    if forked(lambda: train(tree, place / "whole"), errors):
        raise RuntimeError(f"the run that is not ended failed:\n{errors.read_text()[-2000:]}")
    duration, expected = time.monotonic() - began, digest(place / "whole")
    outcomes, runs, other = [], 0, []
    for number, count in ((signal.SIGKILL, kills), (signal.SIGTERM, signals)):
        lost: list[str] = []
        ended = 0
        while ended < count:
            run = place / f"run-{runs}"
            times, found, last = until_it_ends(run, tree, errors, number, duration, count - ended, rng)
            ended, runs, lost = ended + times, runs + 1, lost + found
            if last != 0:
                other.append(f"{run.name}: ended with {last}: {errors.read_text()[-300:]}")
            elif digest(run) != expected:
                other.append(f"{run.name}: is not the run that was never ended")
            shutil.rmtree(run, ignore_errors=True)
        outcomes.append(Outcome(f"{number.name} at a random moment of a run", ended, tuple(lost)))
    touched = ("the folder of images was changed",) if state_of(images) != before else ()
    return [
        *outcomes,
        Outcome("runs that ended the same to the last bit", runs, tuple(other)),
        Outcome("folders of images that were left alone", 1, touched),
    ]


def until_it_ends(
    run: Path, tree: Config, errors: Path, number: signal.Signals, duration: float, most: int, rng: random.Random
) -> tuple[int, list[str], int]:
    """Starts a run again and again, and ends it by the signal `number` at a random moment, at most `most` times.

    Returns how often it was ended, what was lost, and the last exit code.
    """
    # Before it handles signals, a run that is asked to end does so as any program.
    by_signal = {-number} if number == signal.SIGKILL else {-number, 128 + number}
    lost: list[str] = []
    times = step = 0
    while True:
        after = rng.uniform(0, duration) if times < most else None
        status = forked(lambda: train(tree, run), errors, after=after, number=number)
        newest, problems = checkpoint.newest(run)
        reached = checkpoint.step_of(newest) if newest else 0
        lost += problems
        if reached < step:
            lost.append(f"{run.name}: step {step} was saved, and is not any more")
        step = reached
        if status not in by_signal:
            return times, lost, status
        times += 1


def parts(step: int) -> dict[str, Part]:
    """Returns the parts of a small checkpoint."""
    values = {"x": torch.full((1000,), float(step))}
    return {"model": Part(values, {"step": step}), "training": Part(values, {"step": step})}


def save(run: Path, at: int, stop: Callable[[], None], counted: Path) -> None:
    """Saves a second checkpoint after a first one, and calls `stop` at operation number `at` on files, counted from 1.

    The moment at which half of a safetensors file is written counts as an operation. The number of operations is
    written to the file `counted`.
    """
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == at:
            stop()

    real_fsync, real_save = os.fsync, checkpoint.save_file

    def half(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        real_save(tensors, path, metadata)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        step()
        path.write_bytes(whole)

    sys.addaudithook(lambda event, arguments: step() if writes(event, arguments) else None)
    os.fsync = lambda descriptor: (step(), real_fsync(descriptor))[1]  # type: ignore[assignment]
    checkpoint.save_file = half  # type: ignore[assignment]
    checkpoint.write(run, 2, parts(2), keep=Retention(1))
    done, count = count, -(10**9)
    counted.write_text(str(done))


def die() -> None:
    """Kills this process, as a power failure would."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    """Raises the error of a full disk."""
    raise OSError(28, "No space left on device")


def write_points(place: Path, name: str, stop: Callable[[], None], statuses: set[int]) -> Outcome:
    """Saves a checkpoint that is stopped by `stop` at each operation in turn, and must end with one of `statuses`."""
    lost, errors, counted, at, total = [], place / "errors.txt", place / "count", 0, 1
    while at <= total:
        run = place / f"{name}-{at}"
        checkpoint.write(run, 1, parts(1), keep=Retention(1))
        status = forked(lambda run=run, at=at: save(run, at, stop, counted), errors)  # type: ignore[misc]
        if at == 0:
            total = int(counted.read_text())
        if status not in (statuses if at else {0}):
            lost.append(f"operation {at}: ended with {status}")
        lost += [f"operation {at}: {line}" for line in unusable(run)]
        shutil.rmtree(run)
        at += 1
    return Outcome(f"saving {name} at each of its operations", total, tuple(lost))


def unusable(run: Path) -> list[str]:
    """Returns a line for each fault of a run whose second save was stopped."""
    newest, problems = checkpoint.newest(run)
    if newest is None or problems:
        return ["no whole checkpoint" if newest is None else problems[0]]
    value, step = checkpoint.read(newest, "model").tensors["x"], checkpoint.verify(newest)
    checkpoint.write(run, 3, parts(3), keep=Retention(1))
    left = [path.name for path in (run / "checkpoints").iterdir()]
    wrong = [] if bool((value == step).all()) and step in (1, 2) else [f"step {step} holds other values"]
    return wrong + ([] if left == ["step-00000003"] else [f"left behind: {left}"])


def size_limits(place: Path) -> Outcome:
    """Saves checkpoints under limits of the size of a file, to which safetensors and Python react differently."""
    lost, limits = [], (0, 1, 100, 1000, 4000, 4050)
    for limit in limits:
        run = place / f"limit-{limit}"
        checkpoint.write(run, 1, parts(1), keep=Retention(1))

        def work(run: Path = run, limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                checkpoint.write(run, 2, parts(2), keep=Retention(1))
            except CheckpointError:
                os._exit(7)

        if (status := forked(work, place / "errors.txt")) != 7:
            lost.append(f"{limit} bytes: ended with {status}")
        lost += [f"{limit} bytes: {line}" for line in unusable(run)]
    return Outcome("saving under a limit of the size of files", len(limits), tuple(lost))


def reading(name: str, place: Path, count: int, seed: int, read: Callable[[random.Random, Path], None]) -> Outcome:
    """Reads `count` mutated files in child processes: `read` makes one in a folder and reads it."""
    lost: list[str] = []
    for start in range(0, count, PART):
        folder = place / f"{name}-{start}"
        folder.mkdir(parents=True)
        numbers = range(start, min(start + PART, count))

        def work(folder: Path = folder, numbers: Iterable[int] = numbers) -> None:
            with watched(folder) as seen:
                found = [line for number in numbers for line in attempt(f"{name} {number}", seed, folder, read)]
            (folder / "found.json").write_text(json.dumps(found + seen))

        status = forked(work, place / "errors.txt")
        answer = folder / "found.json"
        lost += json.loads(answer.read_text()) if answer.exists() else [f"{name} {numbers}: ended with {status}"]
        shutil.rmtree(folder)
    return Outcome(f"mutated {name}", count, tuple(lost))


def attempt(name: str, seed: int, folder: Path, read: Callable[[random.Random, Path], None]) -> list[str]:
    """Reads one mutated file, and returns a line if that raised a foreign error or took too long."""
    began = time.monotonic()
    try:
        with suppress(InputError):
            read(random.Random(f"{seed} {name}"), folder)
    except Exception as error:  # any error but the package's own is a fault
        return [f"{name}: {type(error).__name__}: {error!s:.200}"]
    taken = time.monotonic() - began
    return [f"{name}: took {taken:.0f} s"] if taken > SLOW_S else []


def read_image(bases: list[bytes]) -> Callable[[random.Random, Path], None]:
    """Returns a function that makes a mutated image and reads it."""

    def read(rng: random.Random, folder: Path) -> None:
        path = folder / "image"
        path.write_bytes(mutated(rng.choice(bases), rng.choice(bases), rng))
        channels = rng.choice((1, 3, 4))
        pixels = decode(path, PixelFormat(channels))
        if pixels.dtype != "uint8" or pixels.shape[2:] != (channels,) or pixels[..., 0].size > MAX_PIXELS:
            raise AssertionError(f"{pixels.dtype} {pixels.shape}")

    return read


def read_checkpoint(golden: Path) -> Callable[[random.Random, Path], None]:
    """Returns a function that makes a checkpoint with a mutated file, or a mutated description, and loads its model.

    In most of the checkpoints the manifest has the hash of the mutated file, so that the fault is not found by it.
    """

    def read(rng: random.Random, folder: Path) -> None:
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        if rng.random() < 0.5:
            part = checkpoint.read(golden, "model")
            description = json.loads(json.dumps(mutated_tree(dict(part.description), rng), ensure_ascii=True))
            checkpoint.write(run, 3, {"model": Part(part.tensors, description)}, keep=Retention(1))
        else:
            target = Path(shutil.copytree(golden, run / "checkpoints" / golden.name))
            path = rng.choice(sorted(target.iterdir()))
            path.write_bytes(mutated(path.read_bytes(), rng.choice(sorted(golden.iterdir())).read_bytes(), rng))
            if path.name != checkpoint.MANIFEST and rng.random() < 0.8:
                manifest = json.loads((target / checkpoint.MANIFEST).read_text())
                manifest["files"][path.name] = {"size": path.stat().st_size, "sha256": checkpoint.file_hash(path)}
                (target / checkpoint.MANIFEST).write_text(json.dumps(manifest))
        load(run, device="cpu")
        checkpoint.read(checkpoint.find(run)[0], "model")

    return read


def read_config(shipped: list[Path]) -> Callable[[random.Random, Path], None]:
    """Returns a function that mutates a configuration, as bytes or as a tree, and reads it."""

    def read(rng: random.Random, folder: Path) -> None:
        path = rng.choice(shipped)
        if rng.random() < 0.5:
            (folder / "x.toml").write_bytes(mutated(path.read_bytes(), rng.choice(shipped).read_bytes(), rng))
            config.load(folder / "x.toml")
        else:
            config.from_dict(mutated_tree(config.to_dict(config.load(path)), rng))

    return read


def read_weights(bases: list[bytes]) -> Callable[[random.Random, Path], None]:
    """Returns a function that makes a mutated file of torch.save, and reads its tensors to their last value."""

    def read(rng: random.Random, folder: Path) -> None:
        path = folder / "weights.pt"
        path.write_bytes(mutated_weights(rng.choice(bases), rng.choice(bases), rng))
        tensors = pickled.read(path, rng.choice((None, None, "", "model")), show=False)
        total = sum(tensor.clone().nbytes for tensor in tensors.values())
        if total > max(pickled.LEAST_MOST, pickled.MOST_TIMES * path.stat().st_size):
            raise AssertionError(f"{total} bytes")

    return read


def two_processes(place: Path) -> list[Outcome]:
    """Ends one process of a run of two, and starts the run again by the same command."""
    images = place / "two"
    write_images(images, 40, 16)
    tree = experiment(images)
    tree["training"]["steps"] = 40
    (place / "two.toml").write_text(toml(tree))
    launched(place, place / "two-whole").wait()
    expected, outcomes = digest(place / "two-whole"), []
    for number in (signal.SIGTERM, signal.SIGKILL):
        run, lost = place / f"two-{number.name}", []
        first = launched(place, run)
        while not (run / "metrics.jsonl").exists() and first.poll() is None:
            time.sleep(0.02)
        workers = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        os.kill(int(workers[-1]), number)
        try:
            ended = first.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            first.kill()
            ended = 0
            lost.append("the launcher did not end")
        if ended == 0 or checkpoint.newest(run)[1]:
            lost.append(f"ended with {ended}, {checkpoint.newest(run)}")
        elif launched(place, run).wait(PATIENCE_S) != 0 or digest(run) != expected:
            lost.append("is not the run of two processes that was never ended")
        outcomes.append(Outcome(f"{number.name} to one of two processes", 1, tuple(lost)))
    return outcomes


def launched(place: Path, run: Path) -> subprocess.Popen[bytes]:
    """Starts the command that trains with two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(ROOT / "train.py"), str(place / "two.toml"), "--out", str(run)]
    log = (place / "two.log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})


def campaign(
    place: Path,
    *,
    kills: int,
    signals: int,
    images: int,
    files: int,
    weights: int,
    images_through: bool,
    processes: bool,
    seed: int,
) -> list[Outcome]:
    """Returns the outcomes of all faults; `place` is a folder for temporary files."""
    single_threaded()
    sys.dont_write_bytecode = True
    os.environ["DIFFUSION_CACHE"] = str(place / "cache")
    # The moment of the first samples depends on the clock, on which the compared results must not depend.
    trainer.FIRST_SAMPLES_S = math.inf
    # The first optimizer imports modules, which takes longer than a run; children inherit them from here.
    torch.optim.AdamW([torch.zeros(1)])
    outcomes = random_ends(place, kills, signals, random.Random(seed)) if kills or signals else []
    outcomes.append(write_points(place, "killed", die, {KILLED}))
    outcomes.append(write_points(place, "failing", fail, {0, 1}))
    outcomes.append(size_limits(place))
    bases = [path.read_bytes() for path in pictures(place / "pictures")]
    golden = sorted((ROOT / "tests" / "golden").glob("format-*/checkpoints/step-*"))[-1]
    load(golden, device="cpu")  # Children inherit the modules that it imports.
    outcomes.append(reading("images", place, images, seed, read_image(bases)))
    outcomes.append(reading("checkpoints", place, files // 2, seed, read_checkpoint(golden)))
    shipped = sorted((ROOT / "configs").glob("*.toml"))
    outcomes.append(reading("configurations", place, files - files // 2, seed, read_config(shipped)))
    outcomes.append(reading("weights", place, weights, seed, read_weights(weight_files())))
    if images_through:
        outcomes += through(place)
    return outcomes + (two_processes(place) if processes else [])


def through(place: Path) -> list[Outcome]:
    """Takes border images through inspect, train and restore in a child process (`border_campaign`)."""
    answer = place / "border.json"

    def work() -> None:
        answer.write_text(json.dumps([[each.fault, each.tried, each.lost] for each in border(place / "border")]))

    status = forked(work, place / "errors.txt")
    if status:
        return [Outcome("border images", 1, (f"ended with {status}: {(place / 'errors.txt').read_text()[-300:]}",))]
    return [Outcome(fault, tried, tuple(lost)) for fault, tried, lost in json.loads(answer.read_text())]


def main() -> None:
    """Runs the campaign and prints its table."""
    options = common.parser(__doc__, "campaign")
    options.add_argument("--kills", type=int, default=300, help="runs ended by SIGKILL")
    options.add_argument("--signals", type=int, default=100, help="runs ended by SIGTERM")
    options.add_argument("--images", type=int, default=5000, help="mutated images")
    options.add_argument("--files", type=int, default=2000, help="mutated checkpoints and configurations")
    options.add_argument("--weights", type=int, default=2000, help="mutated files of torch.save")
    options.add_argument("--no-border", dest="border", action="store_false", help="leave out border images")
    options.add_argument("--no-processes", dest="processes", action="store_false", help="leave out runs of two")
    options.add_argument("--seed", type=int, default=0, help="seed of the moments and mutations")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        outcomes = campaign(
            Path(place).resolve(),
            kills=chosen.kills,
            signals=chosen.signals,
            images=chosen.images,
            files=chosen.files,
            weights=chosen.weights,
            images_through=chosen.border,
            processes=chosen.processes,
            seed=chosen.seed,
        )
    for outcome in outcomes:
        for line in outcome.lost[:20]:
            print(f"{outcome.fault}: {line}")
    goals = [Goal(f"lost, {outcome.fault}", len(outcome.lost), 0, "at most") for outcome in outcomes]
    tables = {"Faults": [outcome.row() for outcome in outcomes]}
    common.finish(goals, tables, chosen.out, check=chosen.check, values="counts")


if __name__ == "__main__":
    main()
