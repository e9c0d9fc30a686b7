"""Measures what specks on a large photograph cost: time and memory beside those of the same specks in small pictures.

    python -m benchmarks.specks RUN [PHOTO] [--size 4000x3000] [--specks 50] [--n 8] [--steps 4] [--method replacement]

A photograph of the size (PHOTO scaled to it, or one that is made) gets specks, small ellipses at random places.
`diffusion inpaint` fills them in the photograph, and in pictures of their own, each of which shows a speck and what
windows that touch it see. Both commands run in processes of their own, by turns. The figures are the time of restoring,
as the commands note it with their results, the time of the whole commands, which read and write pictures too, and the
peak of the memory. The memory of the small pictures is that of the model and of all libraries.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks import common
from benchmarks.common import Goal, Rows
from diffusion.model import load

Box = tuple[int, int, int, int]
# The least and the largest diameter of a speck in pixels.
DIAMETERS = 3, 12
LARGEST_RATIO, LARGEST_GB = 1.3, 1.5
# A small process that runs a command and writes down its memory and time. A process counts the memory of the one that
# started it until its own program begins, so that this one may not be large.
WATCH = """
import json, resource, subprocess, sys

code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump([used.ru_maxrss, used.ru_utime + used.ru_stime], file)
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: the seconds of the whole and of restoring alone, its windows, its peak memory in GB, and the
    seconds of the processor, which others that run beside it hardly change.
    """

    seconds: float
    restoring: float
    windows: int
    peak: float
    cpu: float


def made(size: tuple[int, int], seed: int) -> Image.Image:
    """Returns a photograph of the size (width, height) that looks like clouds with grain."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    clouds = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
    grain = random.integers(-8, 9, (size[1], size[0], 1), dtype=np.int16)
    return Image.fromarray((clouds + grain).clip(0, 255).astype(np.uint8))


def specks(size: tuple[int, int], count: int, gap: int, seed: int) -> list[Box]:
    """Returns the boxes (left, top, right, bottom) of specks that are farther than `gap` from each other.

    Raises ValueError if there is no room for them.
    """
    random, boxes = np.random.default_rng(seed), list[Box]()
    for _ in range(1000 * count):
        width, height = (int(d) for d in random.integers(DIAMETERS[0], DIAMETERS[1] + 1, 2))
        left, top = (int(random.integers(0, side - d)) for side, d in zip(size, (width, height), strict=True))
        box = left, top, left + width, top + height
        if all(
            box[0] - other[2] > gap or other[0] - box[2] > gap or box[1] - other[3] > gap or other[1] - box[3] > gap
            for other in boxes
        ):
            boxes.append(box)
            if len(boxes) == count:
                return boxes
    raise ValueError(f"--specks: {count} specks have no room in {size[0]} x {size[1]} pixels")


def masked(size: tuple[int, int], boxes: Sequence[Box]) -> Image.Image:
    """Returns a mask with black ellipses."""
    mask = Image.new("L", size, 255)
    for left, top, right, bottom in boxes:
        ImageDraw.Draw(mask).ellipse((left, top, right - 1, bottom - 1), fill=0)
    return mask


def surroundings(box: Box, size: tuple[int, int], window: int) -> Box:
    """Returns the box that windows which touch something in a box see."""
    left, top, right, bottom = box
    reach = window - 1
    return max(0, left - reach), max(0, top - reach), min(size[0], right + reach), min(size[1], bottom + reach)


def measured(command: Sequence[str], out: Path) -> Cost:
    """Runs a command that restores into the folder `out`, in a process of its own.

    Raises RuntimeError with its messages if it fails.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log, tempfile.NamedTemporaryFile() as answer:
        code = subprocess.call([sys.executable, "-c", WATCH, answer.name, *command], stdout=log, stderr=log)
        seconds = time.perf_counter() - start
        if code:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)}: ended with {code}\n{log.read().decode()[-2000:]}")
        most, cpu = json.loads(answer.read())
    notes = [json.loads(path.read_text())["diagnostics"] for path in sorted(out.rglob("restoration.json"))]
    peak = most * (1 if sys.platform == "darwin" else 1024) / 1e9
    restoring, windows = (sum(note[name] for note in notes) for name in ("seconds", "windows"))
    return Cost(seconds, restoring, windows, peak, cpu)


def prepare(folder: Path, photo: Path | None, size: tuple[int, int], boxes: Sequence[Box], window: int) -> None:
    """Writes the photograph with its mask, and the pictures of single specks with theirs, into a folder."""
    whole = made(size, 0) if photo is None else Image.open(photo).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    mask = masked(size, boxes)
    whole.save(folder / "photo.png", compress_level=1)
    mask.save(folder / "mask.png")
    for name in ("small", "small-masks"):
        (folder / name).mkdir()
    for number, box in enumerate(boxes):
        part = surroundings(box, size, window)
        whole.crop(part).save(folder / "small" / f"{number}.png")
        masked(size, [box]).crop(part).save(folder / "small-masks" / f"{number}.png")


def differences(folder: Path, out: Path) -> int:
    """Returns the number of known values of the photograph that its first restoration does not have."""
    (restored,) = sorted(out.rglob("restored-0.png"))
    photo, found, known = (
        np.asarray(Image.open(path)) for path in (folder / "photo.png", restored, folder / "mask.png")
    )
    changed: npt.NDArray[np.bool_] = (photo != found).any(2) & (known >= 128)
    return int(changed.sum())


def main() -> None:
    parser = common.parser(__doc__, "specks")
    parser.add_argument("run", type=Path, help="run of a model of RGB images")
    parser.add_argument("photo", type=Path, nargs="?", help="photograph; without one it is made")
    parser.add_argument("--size", type=_size, default=(4000, 3000), help="of the photograph, WIDTHxHEIGHT")
    parser.add_argument("--specks", type=int, default=50)
    parser.add_argument("--n", type=int, default=8, help="restorations")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--method", default="replacement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each command runs")
    options = parser.parse_args()
    window = max(load(options.run, device="cpu").spec.shape[1:])
    boxes = specks(options.size, options.specks, window, seed=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.photo, options.size, boxes, window)
        drawing = ["--n", str(options.n), "--steps", str(options.steps), "--method", options.method]
        costs = compared(folder, options.run, drawing, options.rounds)
        changed = differences(folder, folder / "out-photo")
    pairs = list(zip(*costs.values(), strict=True))
    ratio = statistics.median(large.restoring / small.restoring for large, small in pairs)
    more = max(large.peak for large, _ in pairs) - max(small.peak for _, small in pairs)
    goals = [
        Goal("time of restoring beside small pictures", ratio, LARGEST_RATIO, "at most"),
        Goal("GB above those of the model", more, LARGEST_GB, "at most"),
        Goal("known pixels that changed", changed, 0, "at most"),
    ]
    width, height = options.size
    title = f"{options.specks} specks on {width} x {height}, n {options.n}, {options.steps} steps of {options.method}"
    common.finish(goals, {title: rows(costs)}, options.out, check=options.check, values="medians")


def compared(folder: Path, run: Path, drawing: Sequence[str], rounds: int) -> dict[str, list[Cost]]:
    """Runs `diffusion inpaint` on the photograph in a folder and on its small pictures, by turns."""
    given = {"photo": ("photo.png", "mask.png"), "small pictures": ("small", "small-masks")}
    costs: dict[str, list[Cost]] = {title: [] for title in given}
    for number in range(rounds):
        for title in list(given)[:: -1 if number % 2 else 1]:
            images, masks = given[title]
            out = folder / f"out-{title}"
            shutil.rmtree(out, ignore_errors=True)
            command = [sys.executable, "-m", "diffusion", "inpaint", str(run), str(folder / images)]
            costs[title].append(measured([*command, "--mask", str(folder / masks), *drawing, "--out", str(out)], out))
    return costs


def rows(costs: Mapping[str, Sequence[Cost]]) -> Rows:
    """Returns the rows of the table."""
    return [
        {
            "what": title,
            "windows": of[0].windows,
            "restoring, s": statistics.median(cost.restoring for cost in of),
            "whole command, s": statistics.median(cost.seconds for cost in of),
            "its CPU, s": statistics.median(cost.cpu for cost in of),
            "peak, GB": max(cost.peak for cost in of),
        }
        for title, of in costs.items()
    ]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, got {text!r}")
    return int(width), int(height)


if __name__ == "__main__":
    main()
