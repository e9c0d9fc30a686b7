"""`diffusion complete`: fills the holes of the images that a run learned from.

    OUT/draw-1/...       the completed images, each under its own name, in the values of the data
    OUT/completed.png    a few of them: damaged, completions, standard deviation
    OUT/samples.json     the settings, so that a folder holds completions by one model

Images are those of the run at the size at which it takes them. Those without holes are written as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion import checkpoint, config, distributed, figures
from diffusion.commands.measured import data_options, open_own
from diffusion.commands.options import Complete, Evaluate
from diffusion.commands.samples.places import choose, opened
from diffusion.commands.samples.sampling import SIGNALED
from diffusion.commands.samples.ways import identity
from diffusion.data import Dataset, PixelFormat, decode
from diffusion.data.images.decoding import to_tensor
from diffusion.data.images.encoding import read_info, save_image, suffix
from diffusion.errors import InputError, require
from diffusion.files import numbered
from diffusion.interrupt import Interrupt, Stopped
from diffusion.model import Model, load
from diffusion.model.completing import Completing, known_of, with_holes
from diffusion.progress import bar

# Images in the figure.
FIGURED = 4
# The draws of an image have the numbers of the image plus multiples of this, whatever the number of images.
STRIDE = 2**32


def complete(options: Complete) -> int:
    """Writes the completions that are missing and a figure, and returns the exit code."""
    for name, value in (("n", options.n), ("batch", options.batch)):
        require(value is None or value >= 1, name, "at least 1", value)
    distributed.join()
    model = load(options.run)
    require(model.spec.is_image, "RUN", "that of a model of images", f"{options.run}, of points")
    data = data_options(Evaluate(options.run, options.overrides, data_path=options.data_path), model)
    if not data.masks:
        raise InputError(
            f"data.masks: {options.run} was trained without, so that nothing of its images is unseen; to restore "
            "images, use diffusion inpaint"
        )
    model.completing(1, steps=options.steps)  # It refuses what cannot be done before images are read.
    with distributed.main_first():
        run = checkpoint.run_of(options.run)
        images = open_own(model, data, run, others="to restore other images, use diffusion inpaint")
        holes = with_holes(images)
        require(len(holes), "data.masks", "such that something of the images is unseen", repr(data.masks))
        job = _prepared(options, model, images)
    return job.run([int(i) for i in holes])


def _prepared(options: Complete, model: Model, images: Dataset) -> Job:
    """Chooses the folder, says so, and writes its record."""
    completing = model.completing(options.n * len(images), steps=options.steps, seed=options.seed)
    settings = {
        **identity(model),
        "kind": "completions",
        "steps": len(completing.times) - 1,
        "seed": options.seed,
        "grid": config.to_dict(model.config)["grid"],
    }
    folder, line = choose(options.run / f"completed-{options.seed}", options.out, settings)
    if line:
        distributed.say(line)
    record = opened(folder, settings, range(len(images)), lambda: options.batch or completing.batch)
    info = {"run": options.run.name, **settings}
    names = paths(images.names, suffix(model.spec))
    return Job(folder, names, images, completing, options.n, options.batch or record.batch, info, options.again)


def paths(names: Iterable[str], kind: str) -> list[Path]:
    """Returns the relative paths of completed images, of the suffix `kind`, for the names of these images.

    Subfolders are kept. Pages of a file are told apart by their numbers. Where images differ in their suffixes alone,
    the names keep those that are not `kind`.
    """
    plain = [_plain(name) for name in names]
    stems = [_stem(path) for path in plain]
    if len({_key(path) for path in stems}) < len(stems):
        stems = [_stem(path) if path.suffix == kind else path for path in plain]
    taken: set[str] = set()
    found = []
    for stem in stems:
        path = next(p for p in numbered(stem.with_name(f"{stem.name}{kind}"), suffix=True) if _key(p) not in taken)
        taken.add(_key(path))
        found.append(path)
    return found


def _plain(name: str) -> Path:
    """A name within a folder as a path below another: names in archives may lead elsewhere."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("..", "/")]
    return Path(*parts).with_name(parts[-1].replace("#", "-"))


def _stem(path: Path) -> Path:
    """A path without its suffix, after which the number of a page may stand."""
    _, dash, page = path.suffix.partition("-")
    return path.with_name(f"{path.stem}{dash}{page}")


def _key(path: Path) -> str:
    """What two paths have in common where case does not tell files apart."""
    return str(path).lower()


@dataclass(frozen=True)
class Job:
    """Completes `images` n times each into a `folder`, under the relative paths `names`, `batch` of them at a time.

    `info` goes into every file. With `again` those are drawn again that are there.
    """

    folder: Path
    names: list[Path]
    images: Dataset
    completing: Completing
    n: int
    batch: int
    info: dict[str, Any]
    again: bool

    def run(self, holes: list[int]) -> int:
        """Draws what is missing, draws the figure of some images with holes, and returns the exit code."""
        distributed.barrier()  # No process writes before all have found the folder.
        written = 0
        try:
            with Interrupt():
                written = self._fill()
                distributed.barrier()
                if distributed.is_main():
                    self._figure(holes)
        except Stopped as stop:
            distributed.say(f"{self.folder}: stopped; the same command goes on with the images that are missing")
            return SIGNALED + stop.number
        count, times = len(self.images), "once" if self.n == 1 else f"{self.n} times"
        there = "" if written == count else f"; {count - written:,} were there already" if written else ", all there"
        done = f"{count:,} images completed {times}, {len(holes):,} of them with holes, by step {self.info['step']}"
        distributed.say(f"{self.folder}: {done}{there}")
        return 0

    def path(self, draw: int, number: int) -> Path:
        """The file of a draw, from 0, of the image of a number."""
        return self.folder / f"draw-{draw + 1}" / self.names[number]

    def _fill(self) -> int:
        """Writes what is missing; returns the number of images of which anything was."""
        starts = range(0, len(self.images), self.batch)
        written = 0
        with bar(len(self.images), "completing", "image", show=distributed.is_main()) as moving:
            for place, start in enumerate(starts):
                numbers = range(start, min(start + self.batch, len(self.images)))
                if place % distributed.count() == distributed.rank():
                    written += len({number for draw in range(self.n) for number in self._write(draw, numbers)})
                moving.update(len(numbers))
        return int(distributed.gather(torch.tensor([written])).sum())

    def _write(self, draw: int, numbers: range) -> Iterator[int]:
        """Draws and writes those of some images that are missing; yields their numbers.

        All of them are drawn, as in another batch they would differ by rounding.
        """
        rows = np.asarray(numbers)
        contents = self.images.hashed(rows) if self.images.contents is None else self.images.contents[rows].tolist()
        missing = [
            number for number, content in zip(numbers, contents, strict=True) if self._misses(draw, number, content)
        ]
        if not missing:
            return
        drawn = self.completing(self.images.subset(rows), [draw * STRIDE + number for number in numbers])
        spec = self.completing.spec
        for number in missing:
            image, content = drawn[number - numbers.start] / spec.top, contents[number - numbers.start]
            name = self.images.names[number]
            info = {**self.info, "image": name, "content": str(content), "draw": draw + 1}
            save_image(image, self.path(draw, number), spec, info)
            yield number

    def _misses(self, draw: int, number: int, content: int) -> bool:
        """Whether a completion is to be written: it is not there, or is that of an image that has changed since.

        Raises InputError for a file that is no completion.
        """
        path = self.path(draw, number)
        if not path.exists():
            return True
        try:
            known = read_info(path)["content"]
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: is no completion of this command; move it, or name another folder") from error
        return self.again or known != str(content)

    def _figure(self, holes: list[int]) -> None:
        """Draws some images with holes, a row each, from the files."""
        chosen = [holes[i] for i in sorted({round(i * (len(holes) - 1) / (FIGURED - 1)) for i in range(FIGURED)})]
        known = known_of(self.images, chosen)
        rows = []
        for number, seen in zip(chosen, known, strict=True):
            draws = torch.stack([self._read(self.path(draw, number)) for draw in range(self.n)])
            std = draws.std(0, correction=min(1, self.n - 1))
            rows.append(figures.restoration(torch.where(seen, draws[0], 0.5), draws, std))
        figures.save_png(figures.stack(rows), self.folder / "completed.png", {**self.info, "draws": self.n})

    def _read(self, path: Path) -> Tensor:
        pixels = PixelFormat.of(self.completing.spec)
        return to_tensor(decode(path, pixels), pixels)
