"""The speed of loading images, against torchvision's ImageFolder with a DataLoader: images per second from a folder to
batches on the device, memory as the folder grows, and the time to the first training step.

    python -m benchmarks.data [--images 2000] [--grow 600] [--workers 2] [--rounds 5] [--out FILE.json] [--check]

The images are generated: JPEGs of gradients and noise. Both sides resize to cover 64x64, crop the center, mirror half
of the images, scale to zero mean and deliver float batches on the device. Ours decodes once, into a new cache for the
cold measurements, and then reads the packed pixels in the main process. ImageFolder decodes in every epoch, in worker
processes that are kept. The two sides are timed by turns. For the memory, the folder grows by hard links to the same
small images. The memory that a process has to itself is its anonymous memory. Pages of mapped files belong to the page
cache of the system, which shares and reclaims them; they have a column of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import common
from benchmarks.common import Goal, Rows, Spread
from diffusion import distributed
from diffusion.data import Dataset, SampleStream, augment, crops_and_flips, open_folder
from diffusion.randomness import example_seed
from diffusion.transfers import to_device

CLASSES = 10
SMALL = 32
GROWTH = (1, 10, 100)
STEPS_BEFORE_READING = 50
# An epoch of packed images is too short to be timed, so at least this number of images is read.
PACKED_IMAGES = 20_000
# The goals: ratio of speeds, ratio of memory, and seconds.
SPEED, FLAT, START = 20.0, 1.1, 6.0


@dataclass(frozen=True)
class Options:
    """The options of the benchmark. `size` is the side of the training images, `side` that of the generated files."""

    images: int = 2000
    side: int = 256
    size: int = 64
    batch: int = 128
    workers: int = 2
    rounds: int = 5
    grow: int = 600


def write_images(folder: Path, count: int, side: int) -> None:
    """Writes `count` JPEGs of random gradients with noise, in ten subfolders."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, side)
    for i in range(count):
        corners = rng.uniform(0, 255, (2, 2, 3))
        rows = corners[0] + ramp[:, None, None] * (corners[1] - corners[0])
        pixels = rows[:, :1] + ramp[None, :, None] * (rows[:, 1:] - rows[:, :1]) + rng.normal(0, 20, (side, side, 3))
        path = folder / f"class{i % CLASSES}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def link_images(source: Path, folder: Path, times: int) -> None:
    """Makes a folder that has every image of the source `times` times, as hard links."""
    for path in sorted(source.rglob("*.jpg")):
        place = folder / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(times):
            os.link(path, place / f"{path.stem}-{copy}.jpg")


def write_shards(source: Path, folder: Path) -> None:
    """Writes the images of each subfolder of the source into a tar file of their own."""
    folder.mkdir()
    for place in sorted(source.iterdir()):
        with tarfile.open(folder / f"{place.name}.tar", "w") as tar:
            tar.add(place, place.name)


def ours(folder: Path, cache: Path, size: int) -> Dataset:
    return open_folder(
        folder, size=(size, size), labels=True, cache=cache, log=lambda line: None, min_images=1, progress=False
    )


def our_batches(dataset: Dataset, batch: int, epoch: int, *, flip: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of batches on the device, as training makes them."""
    stream, start = SampleStream(len(dataset), seed=0), epoch * len(dataset)
    for first in range(start, start + len(dataset), batch):
        count = min(batch, start + len(dataset) - first)
        values, label = dataset.batch(stream.indices(first, count))
        draws = crops_and_flips([example_seed(0, number) for number in range(first, first + count)], 0)
        values, draws = (to_device(part, distributed.device()) for part in (values, draws))
        x = dataset.spec.encode(augment(values, draws, flip=flip, margin=0))
        assert label is not None
        yield x, to_device(label, distributed.device())


def image_folder(folder: Path, options: Options, *, flip: bool = True) -> DataLoader[Any]:
    """Returns the loader that a user of torchvision would write."""
    from torchvision import datasets, transforms  # here, because a process that only trains does not import it

    steps = [
        transforms.Resize(options.size),
        transforms.CenterCrop(options.size),
        transforms.RandomHorizontalFlip(0.5 if flip else 0.0),
        transforms.ToTensor(),
        transforms.Normalize(0.5, 0.5),
    ]
    dataset = datasets.ImageFolder(str(folder), transforms.Compose(steps))
    workers = options.workers
    return DataLoader(dataset, options.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def their_batches(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of ImageFolder's batches on the device."""
    for x, label in loader:
        yield x.to(distributed.device()), label.to(distributed.device())


def count_images(batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    count = sum(len(label) for _, label in batches)
    if distributed.device().type != "cpu":
        torch.accelerator.synchronize()
    return count


def rate(batches: Iterable[tuple[Tensor, Tensor]], start: float) -> float:
    """Returns the images per second from `start` until the last batch is on the device."""
    return count_images(batches) / (time.perf_counter() - start)


def throughput(folder: Path, options: Options, scratch: Path) -> dict[str, list[float]]:
    """Returns the images per second of every round. Cold includes opening the folder; the others are later epochs."""
    names = ("ours, cold", "ours, cold from tar shards", "ImageFolder, cold", "ours, packed", "ImageFolder, later")
    rates: dict[str, list[float]] = {name: [] for name in names}
    epochs = range(1, 1 + max(1, PACKED_IMAGES // options.images))
    for turn in range(options.rounds):
        start = time.perf_counter()
        dataset = ours(folder, scratch / f"cache{turn}", options.size)
        rates["ours, cold"].append(rate(our_batches(dataset, options.batch, 0), start))
        start = time.perf_counter()
        sharded = ours(scratch / "shards", scratch / f"shard-cache{turn}", options.size)
        rates["ours, cold from tar shards"].append(rate(our_batches(sharded, options.batch, 0), start))
        start = time.perf_counter()
        loader = image_folder(folder, options)
        rates["ImageFolder, cold"].append(rate(their_batches(loader), start))
        start = time.perf_counter()
        packed = (pair for epoch in epochs for pair in our_batches(dataset, options.batch, epoch))
        rates["ours, packed"].append(rate(packed, start))
        start = time.perf_counter()
        rates["ImageFolder, later"].append(rate(their_batches(loader), start))
    return rates


def memory() -> dict[str, float]:
    """Returns the MiB of this process: anonymous now, mapped from files now, and the peak of all."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"own": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    return {name: int(lines[field].split()[0]) / 1024 for name, field in names.items()}


def child(task: str, folder: Path, cache: Path, options: Options) -> dict[str, float]:
    """Does one measurement in a process of its own."""
    if task == "start":
        return first_step(folder, cache, options)
    if task == "pack":
        ours(folder, cache, SMALL)
    elif task == "packed":
        dataset = ours(folder, cache, SMALL).split(0.1, seed=0)[0]
        count_images(our_batches(dataset, options.batch, 0))
    else:
        loader = iter(image_folder(folder, options))
        for _ in range(min(STEPS_BEFORE_READING, len(loader))):
            next(loader)
    return memory()


def first_step(folder: Path, cache: Path, options: Options) -> dict[str, float]:
    """Returns the times at which this process has opened the data and has made its first step, as `train` does."""
    from diffusion import config
    from diffusion.data import open_source
    from diffusion.training.trainer import Trainer

    os.environ["DIFFUSION_CACHE"] = str(cache)
    experiment = config.from_dict(
        {
            "data": {"path": str(folder), "size": options.size, "labels": True},
            "backbone": {"name": "unet", "channels": [32, 64, 64], "blocks": 1, "attention": [2]},
            "training": {"batch": 16, "precision": "fp32"},
        }
    )
    dataset = open_source(experiment.data, lambda line: None)
    opened = time.time()
    trainer = Trainer(experiment, *dataset.split(experiment.data.held_out, experiment.data.seed), cache / "run")
    trainer.update(trainer.maker(0))
    return {"opened": opened, "stepped": time.time()}


def spawn(task: str, folder: Path, cache: Path, options: Options) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.data",
        "--child",
        task,
        str(folder),
        str(cache),
        json.dumps(asdict(options)),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def start_up(folder: Path, cache: Path, options: Options) -> dict[str, list[float]]:
    """Returns the seconds from starting a process until its data are open, and until its first step is done."""
    times: dict[str, list[float]] = {"opened": [], "stepped": []}
    for _ in range(options.rounds):
        start = time.time()
        for name, when in spawn("start", folder, cache, options).items():
            times[name].append(when - start)
    return times


def memory_growth(options: Options, scratch: Path) -> list[dict[str, float]]:
    """Returns the memory by number of images: ours while packing and in an epoch, and ImageFolder's main process."""
    write_images(scratch / "small", options.grow, SMALL)
    rows = []
    for times in GROWTH:
        folder, cache = scratch / f"grown{times}", scratch / f"grown-cache{times}"
        link_images(scratch / "small", folder, times)
        packing, packed, theirs = (spawn(task, folder, cache, options) for task in ("pack", "packed", "imagefolder"))
        rows.append(
            {
                "images": options.grow * times,
                "packing, peak": packing["peak"],
                "packed, own": packed["own"],
                "packed, mapped": packed["mapped"],
                "ImageFolder, own": theirs["own"],
            }
        )
    return rows


def measure(options: Options) -> tuple[list[Goal], dict[str, Rows]]:
    """Returns all goals and tables."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_images(scratch / "images", options.images, options.side)
        write_shards(scratch / "images", scratch / "shards")
        time.sleep(2.1)  # a folder written this very moment is not remembered
        rates = throughput(scratch / "images", options, scratch)
        times = start_up(scratch / "images", scratch / "cache0", options)
        growth = memory_growth(options, scratch)
    pairs = zip(rates["ours, packed"], rates["ImageFolder, later"], strict=True)
    flat = max(growth[-1][key] / growth[0][key] for key in ("packing, peak", "packed, own"))
    goals = [
        Goal("packed images/s against ImageFolder", Spread.of([a / b for a, b in pairs]).median, SPEED),
        Goal(f"memory at {GROWTH[-1]}x against 1x", flat, FLAT, "at most"),
        Goal("seconds to the first step", Spread.of(times["stepped"]).median, START, "at most"),
    ]
    return goals, tables(rates, times, growth)


def tables(
    rates: dict[str, list[float]], times: dict[str, list[float]], growth: list[dict[str, float]]
) -> dict[str, Rows]:
    """Returns the tables by title."""
    return {
        "From a folder to batches": [{"loader": name, "images/s": Spread.of(values)} for name, values in rates.items()],
        "From the start of a process": [
            {"until": name, "seconds": Spread.of(values)} for name, values in times.items()
        ],
        "MiB of memory": [{**row, "images": int(row["images"])} for row in growth],
    }


def main() -> None:
    parser = common.parser(__doc__, "data")
    for name, default in asdict(Options()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        task, folder, cache, fields = given.child
        print(json.dumps(child(task, Path(folder), Path(cache), Options(**json.loads(fields)))))
        return
    goals, found = measure(Options(**{name: getattr(given, name) for name in asdict(Options())}))
    common.finish(goals, found, given.out, check=given.check)


if __name__ == "__main__":
    main()
